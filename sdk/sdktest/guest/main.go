// Command guest has a handler for each thing the SDK must do as net/http does.
// The test runs it as a guest and as an ordinary server and compares.
package main

import (
	"context"
	"net/http"
	"os"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

func main() {
	if fail := failures[os.Getenv("START")]; fail != nil {
		fail()
		return
	}
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

// failures are start-ups that fail, by the value of START.
var failures = map[string]func(){
	"no-serve": func() {},
	"panic":    func() { panic("a bug at start") },
	"warm-up":  func() { edge.Warm(func() { panic("a bug in Warm") }); edge.Serve(nil) },
	"variable": func() { _ = edge.Var("NAME") },
	"kv":       func() { _, _ = store.Get(context.Background(), "k") },
	"exit":     func() { os.Exit(3) },
	"asleep":   func() { select {} },
}
