package serve

import (
	"io"
	"net/http"
	"time"
)

// What is left of a request's body when its answer begins, on HTTP/1: up to
// settleBytes of it are waited for, for up to settleTime, so that the connection
// can carry the next request. An answer is not held back longer for that, since
// a client may well send the rest only once it has read it. After the answer
// the connection takes in more for lingerTime before it is closed: what a peer
// still sends to a closed one makes its TCP drop the answer unread.
const (
	settleBytes = 256 << 10 // as many as net/http takes in by itself
	settleTime  = 100 * time.Millisecond
	lingerTime  = time.Second
)

// bodyLeft reports whether the client may send more of the request's body.
func (x *exchange) bodyLeft() bool {
	return x.r.ProtoMajor == 1 && x.r.ContentLength != 0 && x.body.ReadCloser != nil && !x.body.ended.Load()
}

// settle comes right before a final head. net/http would wait for the rest of
// the body at that point for as long as the client likes.
func (w *response) settle() {
	if w.duplex || !w.exchange.bodyLeft() {
		return
	}
	r, h := w.exchange.r, w.Header()
	if len(r.Header["Expect"]) > 0 || r.ContentLength > settleBytes || h.Get("Connection") == "close" {
		return // net/http does not wait for these
	}
	if !w.exchange.body.swallow() && w.EnableFullDuplex() == nil {
		h.Set("Connection", "close")
	}
}

// swallow waits for the rest of the body and reports whether it came. It has no
// deadline on the connection: net/http ends a request's context with any read
// that fails. So the read may go on, until linger ends it.
func (b *requestBody) swallow() bool {
	over := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, b.ReadCloser, settleBytes+1)
		if err == io.EOF {
			b.ended.Store(true)
		}
		over <- err
	}()
	t := time.NewTimer(settleTime)
	defer t.Stop()
	select {
	case err := <-over:
		return err == io.EOF
	case <-t.C:
		return false
	}
}

// linger comes once the exchange is over: net/http sends what it holds of the
// answer, and then takes in more of the body before it ends the connection. It
// undoes a deadline on the way, so one is set when the time has passed.
func (w *response) linger() {
	if !w.exchange.bodyLeft() {
		return
	}
	c := http.NewResponseController(w.ResponseWriter)
	time.AfterFunc(lingerTime, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
}

// EnableFullDuplex is for http.ResponseController.
func (w *response) EnableFullDuplex() error {
	w.duplex = true
	return http.NewResponseController(w.ResponseWriter).EnableFullDuplex()
}
