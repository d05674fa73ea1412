package edge

import "net/http"

// Serve hands requests to h; nil means http.DefaultServeMux. Call it once, at
// the end of main: it does not return.
//
// On the edge, what ran before Serve is the function's start-up, run once at
// deploy and kept as a snapshot; each request is answered from a fresh copy of
// it. A main that returns without Serve fails the deploy.
//
// Elsewhere (go run) it serves h on 127.0.0.1:8787, or on 127.0.0.1 and the port
// in the environment variable PORT.
//
// The handler sees what net/http's own server would give it, except that a
// connection cannot be hijacked, response trailers are not sent, and HTTP/2 push
// does not exist. A panic is logged with its stack; the client gets 500, or a
// broken response if part of it was sent. http.ErrAbortHandler is not logged.
func Serve(h http.Handler) {
	if h == nil {
		h = http.DefaultServeMux
	}
	serve(h)
}

// Warm has f run at the end of start-up, before the snapshot is taken, so that
// what it leaves behind (caches, pools, lazily built tables) is there for every
// request at no cost. Call it before [Serve]. What f does is frozen: let it make
// nothing that must differ between requests, and call nothing that may fail once
// and remember it.
func Warm(f func()) {
	warmUps = append(warmUps, f)
}

var warmUps []func()

func runWarmUps() {
	for _, f := range warmUps {
		f()
	}
	warmUps = nil
}
