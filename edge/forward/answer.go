package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/edge/guard"
	"github.com/selvage-edge/selvage/runtime/fault"
)

// pieces are buffers for answers' bodies.
var pieces = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// answer passes the other node's answer on as it comes.
func answer(ctx context.Context, x Exchange, resp *http.Response) error {
	defer resp.Body.Close()
	to := toClient(x)
	defer to.end()
	head(x.W.Header(), resp)
	x.W.WriteHeader(resp.StatusCode)
	buf := pieces.Get().(*[32 << 10]byte)
	defer pieces.Put(buf)
	for {
		n, err := resp.Body.Read(buf[:])
		if n > 0 {
			if err := to.write(buf[:n]); err != nil {
				return fault.New(fault.Canceled, "", err)
			}
		}
		switch {
		case err == io.EOF:
			trail(x.W.Header(), resp)
			return nil
		case errors.Is(ctx.Err(), context.Canceled):
			return fault.New(fault.Canceled, "", err)
		case err != nil:
			return fmt.Errorf("%w: %w", ErrBroken, err)
		case n < len(buf):
			if err := to.flush(); err != nil {
				return fault.New(fault.Canceled, "", err)
			}
		}
	}
}

func head(h http.Header, resp *http.Response) {
	delete(resp.Header, "Alt-Svc") // this node says its own
	endToEnd(h, resp.Header)
	if len(resp.Trailer) > 0 {
		delete(h, "Content-Length") // HTTP/1.1 has trailers after chunks only
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http guesses one
	}
}

func trail(h http.Header, resp *http.Response) {
	for name, values := range resp.Trailer {
		if guard.MayTrail(name) {
			h[http.TrailerPrefix+name] = values
		}
	}
}

// clientStall is how long a client may take to make room for one of pieces. Then it
// is cut off: its answer takes room on two nodes.
const clientStall = time.Minute

// client is who the answer is for.
type client struct {
	w       http.ResponseWriter
	control *http.ResponseController
	stall   *time.Timer
	mu      struct {
		sync.Mutex
		ended bool // its controller must not be used any more
	}
}

// toClient prepares the client's connection for an answer, which begins now.
func toClient(x Exchange) *client {
	c := &client{w: x.W, control: http.NewResponseController(x.W)}
	if x.R.Body != nil && x.R.Body != http.NoBody && x.R.ProtoMajor == 1 {
		_ = c.control.EnableFullDuplex() // the body is read while the answer is written
	}
	c.stall = time.AfterFunc(clientStall, c.cut)
	c.stall.Stop()
	return c
}

func (c *client) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.ended {
		_ = c.control.SetWriteDeadline(time.Unix(1, 0))
	}
}

func (c *client) end() {
	c.stall.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.ended = true
}

func (c *client) write(p []byte) error {
	c.stall.Reset(clientStall)
	_, err := c.w.Write(p)
	return c.inTime(err)
}

func (c *client) flush() error {
	c.stall.Reset(clientStall)
	return c.inTime(c.control.Flush())
}

// inTime adds to a write's error that the client is cut off.
func (c *client) inTime(err error) error {
	if !c.stall.Stop() && err == nil {
		err = os.ErrDeadlineExceeded
	}
	return err
}
