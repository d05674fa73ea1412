package edge

import (
	"fmt"
	"net/http"
	"runtime/debug"
)

// writer is the one response writer of the instance; it keeps its buffers from
// start-up to the request.
var writer response

// invoke answers the request that head describes with h, through x.
func invoke(h http.Handler, head string, x exchange) {
	r, cancel, err := newRequest(head, x)
	if err != nil {
		logLine(levelError, err.Error())
		x.abort()
		return
	}
	defer cancel()
	writer.begin(x, r.Method == http.MethodHead)
	if call(h, &writer, r) || refuse(&writer) {
		writer.finish()
		_ = r.Body.Close()
		return
	}
	x.abort()
}

// call runs the handler. What it reports is whether the answer may be finished,
// as it is: not after a panic.
func call(h http.Handler, w *response, r *http.Request) (returned bool) {
	defer func() {
		v := recover()
		switch {
		case returned:
		case v == nil: // runtime.Goexit: nothing runs after this function
			logLine(levelError, "edge: the handler called runtime.Goexit")
			w.x.abort()
		case v == http.ErrAbortHandler:
			w.sent = true // nothing may be added
		default:
			logLine(levelError, fmt.Sprintf("panic serving %s %s: %v\n%s", r.Method, r.URL.Path, v, debug.Stack()))
		}
	}()
	h.ServeHTTP(w, r)
	return true
}

// refuse replaces an answer of which nothing was sent by a 500; it reports
// whether it could.
func refuse(w *response) bool {
	if w.sent {
		return false
	}
	w.begin(w.x, w.isHead)
	http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
	return true
}
