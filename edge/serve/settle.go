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
	x, h := w.exchange, w.Header()
	if w.duplex || !x.bodyLeft() {
		return
	}
	w.closes = true
	switch {
	case h.Get("Connection") == "close", x.r.ProtoAtLeast(1, 1) && len(x.r.Header["Expect"]) > 0:
		return // net/http does not wait for these, and ends the connection
	case x.r.ContentLength-x.body.bytes.Load() <= settleBytes && x.body.swallow():
		w.closes = false
		return
	}
	if w.EnableFullDuplex() == nil {
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
	if !w.exchange.bodyLeft() || !w.closes && !w.duplex {
		return // it may carry the next request by then
	}
	c := http.NewResponseController(w.ResponseWriter)
	time.AfterFunc(lingerTime, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
}

// EnableFullDuplex is for http.ResponseController.
func (w *response) EnableFullDuplex() error {
	w.duplex = true
	return http.NewResponseController(w.ResponseWriter).EnableFullDuplex()
}
