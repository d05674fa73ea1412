// Command selvage is the whole product: control node, edge node, and the tool of
// those who write and run functions.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

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
	exitRefused = 4 // the fleet said no: the input or the right is missing
)

// The keeper's main thread starts its servers, and must be the one that executes
// the next keeper: see keeper.Config.Become.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "edge" {
		runtime.LockOSThread()
	}
}

func main() {
	if code, ok := runHelper(os.Args[1:]); ok {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx)
	if err != nil && !errors.Is(err, errSaid) {
		fmt.Fprintln(os.Stderr, "selvage:", term.Error(err))
	}
	stop()
	os.Exit(code)
}
