package main

import (
	"github.com/selvage-edge/selvage/runtime/compile"
	"github.com/selvage-edge/selvage/runtime/jail"
)

// runHelper is the whole life of a helper: `selvage helper VERB`, started by a
// keeper or a control node. It is not a command of the tree: nothing of the rest is set up for it.
func runHelper(args []string) (code int, ok bool) {
	if len(args) == 0 || args[0] != "helper" {
		return 0, false
	}
	return jail.Main(args[1:], compile.Work), true
}
