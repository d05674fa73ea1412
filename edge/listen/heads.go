package listen

import (
	"context"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// A client of HTTP/3 that sends half a HEADERS frame, and keeps the connection
// alive with PINGs, is idle neither to QUIC nor to http3, which waits for the
// rest of the frame without end and offers no deadline for it. So a connection
// on which no exchange is under way for as long as one may be idle, and then
// take for a head, is closed, whatever is half there.

// heads closes one connection of HTTP/3 on which no request becomes complete.
type heads struct {
	limit time.Duration
	mu    struct {
		sync.Mutex
		exchanges int         // under way
		timer     *time.Timer // runs when there are none
	}
}

type headsKey struct{}

// newHeads calls late when there was no exchange for limit; stop it at the end.
func newHeads(limit time.Duration, late func()) *heads {
	h := &heads{limit: limit}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.timer = time.AfterFunc(limit, func() {
		h.mu.Lock()
		none := h.mu.exchanges == 0
		h.mu.Unlock()
		if none {
			late()
		}
	})
	return h
}

// watchHeads gives a connection of HTTP/3 its limit.
func watchHeads(ctx context.Context, c *quic.Conn, limit time.Duration) context.Context {
	h := newHeads(limit, func() {
		_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeRequestIncomplete), "no request was complete in time")
	})
	context.AfterFunc(c.Context(), h.stop)
	return context.WithValue(ctx, headsKey{}, h)
}

func (h *heads) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.exchanges++
	h.mu.timer.Stop()
}

func (h *heads) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.exchanges--; h.mu.exchanges == 0 {
		h.mu.timer.Reset(h.limit)
	}
}

func (h *heads) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.exchanges++ // it stays stopped
	h.mu.timer.Stop()
}
