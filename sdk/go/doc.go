// Package edge runs an ordinary [http.Handler] as a Selvage function and gives
// it what the edge offers: KV, outbound requests, variables, the log.
//
//	package main
//
//	import (
//		"net/http"
//
//		edge "github.com/selvage-edge/selvage/sdk/go"
//	)
//
//	func main() {
//		edge.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//			w.Write([]byte("hello from " + edge.Info(r.Context()).PoP))
//		}))
//	}
//
// Build it for the edge with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags='-s -w' -o function.wasm
//
// and run it on your own machine, as an ordinary web server, with go run.
//
// # What start-up means
//
// Everything up to [Serve] (package initialisation and the first part of main)
// runs once, when the function is deployed. The memory it leaves behind is kept
// as a snapshot, and each request starts from a fresh copy of that snapshot in a
// sandbox of its own, in microseconds. So:
//
//   - Do expensive work before Serve: parse templates, build tables, compile
//     regular expressions. It costs nothing per request. See also [Warm].
//   - What a request changes in memory is gone when it ends. Keep state in KV.
//   - KV, outbound requests and variables belong to requests: at start-up there
//     are none. [Var] panics there, so that the mistake shows at deploy.
//   - What start-up makes of a seed is part of the snapshot: a generator of
//     rand.New there draws the same sequence in each request, a seed of
//     maphash.MakeSeed is the same. What the runtime draws in a request is fresh:
//     the SDK seeds it anew for the top-level functions of math/rand and
//     math/rand/v2, maphash.MakeSeed and the order of maps. Keys and tokens come
//     from crypto/rand, as everywhere.
//   - The environment (os.Getenv) is the one start-up saw. Use [Var].
//
// # What waits
//
// A guest has one thread; other requests are not affected by what it does, and
// no processor time is charged while it waits. Goroutines of one request wait for
// the host side by side: for the request's body, for a slow client to take the
// answer, for KV gets, for subrequests' heads and bodies in both directions (see
// [Transport]).
// The timers of a request run meanwhile, late by up to 16 ms, or 256 ms if all its
// goroutines wait for the host. Other KV calls than gets stop all goroutines of
// their request until they are answered.
//
// A request whose handler starts no goroutine pays nothing for this: its calls
// wait by themselves.
package edge
