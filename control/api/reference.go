package api

import (
	"fmt"
	"io"
)

// WriteReference writes a table of the operations for developers, operators and
// joining nodes, from the routes themselves.
func WriteReference(w io.Writer) {
	fmt.Fprintf(w, "| call | scope | what |\n|---|---|---|\n")
	for _, r := range (&API{}).publicRoutes() {
		scope := string(r.scope)
		if r.who == anyone {
			scope = "none"
		}
		fmt.Fprintf(w, "| `%s %s` | %s | %s |\n", r.method, r.pattern, scope, r.summary)
	}
}
