package listen

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// A request that is cancelled, or whose stream breaks the protocol, costs the
// client a few bytes and us a guest: asked and cancelled fast enough, no bound on
// streams at once holds (Rapid Reset, CVE-2023-44487; MadeYouReset,
// CVE-2025-8671, where we are made to reset). So each connection of HTTP/2 and 3
// has an allowance of exchanges that end unfinished; beyond it, it is closed.
const (
	calmResets = 100 // in calmWindow
	calmWindow = 10 * time.Second
)

// calm counts the exchanges of one connection that ended unfinished.
type calm struct {
	close func() // ends the connection, saying why
	mu    struct {
		sync.Mutex
		since time.Time
		n     int
		over  bool
	}
}

type calmKey struct{}

// unfinished counts one exchange, and reports whether it was the one too many.
func (c *calm) unfinished(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.mu.since) > calmWindow {
		c.mu.since, c.mu.n = now, 0
	}
	if c.mu.n++; c.mu.n <= calmResets || c.mu.over {
		return false
	}
	c.mu.over = true
	return true
}

// settle looks at how an exchange ended. In HTTP/2 and 3 its context is done only
// when its stream was reset, by either side, or its connection ended; and in
// HTTP/2 when a HEAD was answered, by a handler that then returns as it should.
func (s *Server) settle(r *http.Request, returned bool) {
	ctx := r.Context()
	if r.ProtoMajor == 1 || ctx.Err() == nil || returned && r.Method == http.MethodHead {
		return
	}
	if c, ok := ctx.Value(calmKey{}).(*calm); ok && c.unfinished(time.Now()) {
		s.calmed.Add(1)
		c.close()
	}
}

// calmH2 gives a connection of HTTP/2 its allowance.
func calmH2(ctx context.Context, c net.Conn) context.Context {
	conn, ok := c.(*tls.Conn)
	if !ok {
		return ctx // HTTP/1 has no streams
	}
	return context.WithValue(ctx, calmKey{}, &calm{close: func() { goAway(conn) }})
}

// calmH3 gives a connection of HTTP/3 its allowance.
func calmH3(ctx context.Context, c *quic.Conn) context.Context {
	return context.WithValue(ctx, calmKey{}, &calm{close: func() {
		_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), "too many cancelled requests")
	}})
}

// goAwayTime bounds how long we try to tell a client of HTTP/2 why it is closed.
const goAwayTime = time.Second

// goAway closes a connection of HTTP/2, saying why. net/http has no way to, so
// the frame is written beside it; should it fall into the middle of another one,
// the client sees a broken connection, which is what it gets next anyway.
func goAway(conn *tls.Conn) {
	const enhanceYourCalm = 0xb
	frame := []byte{0, 0, 8, 7, 0, 0, 0, 0, 0} // length, type GOAWAY, flags, stream 0
	frame = binary.BigEndian.AppendUint32(frame, 1<<31-1)
	frame = binary.BigEndian.AppendUint32(frame, enhanceYourCalm)
	_ = conn.SetWriteDeadline(time.Now().Add(goAwayTime))
	_, _ = conn.Write(frame)
	_ = conn.NetConn().Close() // conn.Close could wait for the client again
}
