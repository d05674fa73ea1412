// Command selvage is the whole product: control node, edge node, and the tool of
// those who write and run functions.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
)

// version is set by the linker for releases.
var version = "dev"

// Exit codes, stable for scripts.
const (
	exitOK      = 0
	exitFailed  = 1 // it was tried and failed
	exitUsage   = 2 // the command's words are off
	exitReach   = 3 // the fleet could not be reached
	exitRefused = 4 // the fleet said no: the right is missing, the input is off, or what was named is not there
)

// The keeper's main thread starts its servers, and must be the one that executes
// the next keeper: see keeper.Config.Become.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "edge" {
		runtime.LockOSThread()
	}
}

// failure is an error with --json, an object on a line: the last of standard error.
type failure struct {
	Error   string `json:"error"`
	Code    int    `json:"code"`              // the exit code
	Problem string `json:"problem,omitempty"` // which it is, where the fleet refused: see the OpenAPI document
}

// tell writes what the program failed with.
func tell(w io.Writer, asJSON bool, code int, err error) {
	if !asJSON {
		fmt.Fprintln(w, "selvage:", term.Error(err))
		return
	}
	f := failure{Error: term.Error(err), Code: code}
	var refusal *client.Refusal
	if errors.As(err, &refusal) {
		f.Problem = refusal.Name()
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(f) // there is nobody left to tell
}

func main() {
	if code, ok := runHelper(os.Args[1:]); ok {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx)
	if err != nil && !errors.Is(err, errSaid) {
		tell(os.Stderr, slices.Contains(os.Args[1:], "--json"), code, err)
	}
	stop()
	os.Exit(code)
}
