// Command guest has a handler for each thing the SDK must do as net/http does.
// The test runs it as a guest and as an ordinary server and compares.
package main

import (
	"net/http"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

func main() {
	mux := http.NewServeMux()
	for pattern, h := range responses {
		mux.HandleFunc(pattern, h)
	}
	for pattern, h := range requests {
		mux.HandleFunc(pattern, h)
	}
	for pattern, h := range offers {
		mux.HandleFunc(pattern, h)
	}
	edge.Warm(func() { warmed = true })
	edge.Serve(mux)
}

var warmed bool
