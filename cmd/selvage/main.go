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
	"strings"
	"syscall"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/control/bundle"
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
	Error   string         `json:"error"`             // all of it, as it is shown without --json
	Code    int            `json:"code"`              // the exit code
	Problem string         `json:"problem,omitempty"` // which it is, where the fleet refused: see the OpenAPI document
	Message string         `json:"message"`           // what happened
	Hint    string         `json:"hint,omitempty"`    // what to do next, where it is told apart
	Path    string         `json:"path,omitempty"`    // the file that is at fault
	Line    int            `json:"line,omitempty"`    // in it, from 1, of the first fault
	Faults  []bundle.Fault `json:"faults,omitempty"`  // of a manifest, each with its line
}

// failureOf takes apart what the program failed with.
func failureOf(code int, err error) failure {
	f := failure{Error: term.Error(err), Code: code}
	f.Message = f.Error
	var (
		refusal  *client.Refusal
		manifest *bundle.Faults
		file     *config.Fault
		hint     interface{ Hint() string }
	)
	switch {
	case errors.As(err, &refusal):
		f.Problem, f.Message, f.Hint, f.Faults = refusal.Name(), term.Plain(refusal.Problem.Error()), term.Plain(refusal.Hint), refusal.Faults
	case errors.As(err, &manifest) && len(manifest.List) > 0:
		f.Path, f.Line, f.Faults = manifest.File, manifest.List[0].Line, manifest.List
	case errors.As(err, &file):
		f.Path, f.Line = file.Path, file.Line
	case errors.As(err, &hint):
		f.Hint = hint.Hint()
		f.Message = strings.TrimSuffix(f.Error, "\n"+f.Hint)
	}
	return f
}

// tell writes what the program failed with.
func tell(w io.Writer, asJSON bool, code int, err error) {
	if !asJSON {
		fmt.Fprintln(w, "selvage:", term.Error(err))
		return
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(failureOf(code, err)) // there is nobody left to tell
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
