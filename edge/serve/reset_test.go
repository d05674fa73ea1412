package serve_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/selvage-edge/selvage/edge/listen"
)

// h2conn is a client of HTTP/2 that sends what it likes.
type h2conn struct {
	*http2.Framer
	conn   *tls.Conn
	block  bytes.Buffer
	enc    *hpack.Encoder
	stream uint32
	ended  chan error // the GOAWAY's code, or how the connection ended
}

// h2 opens a connection and reads, and forgets, what the server sends.
func (d *door) h2(t *testing.T) *h2conn {
	t.Helper()
	c := &h2conn{conn: d.dial(t, "h2"), ended: make(chan error, 1)}
	c.Framer = http2.NewFramer(c.conn, c.conn)
	c.enc = hpack.NewEncoder(&c.block)
	_, _ = io.WriteString(c.conn, http2.ClientPreface) // the reader sees what goes wrong
	_ = c.WriteSettings()
	go func() {
		for {
			f, err := c.ReadFrame()
			if err != nil {
				c.ended <- err
				return
			}
			if g, ok := f.(*http2.GoAwayFrame); ok {
				c.ended <- http2.ConnectionError(g.ErrCode)
				return
			}
		}
	}()
	return c
}

// open begins a request on a new stream, with a body to come.
func (c *h2conn) open(path string) (uint32, error) {
	c.block.Reset()
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", doorName}, {":path", path}} {
		_ = c.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	if c.stream == 0 {
		c.stream--
	}
	c.stream += 2
	return c.stream, c.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: c.block.Bytes(), EndHeaders: true})
}

// TestResetFlood: clients of HTTP/2 that ask and cancel (Rapid Reset), or have us
// cancel (MadeYouReset), are told to calm down, before they have cost much.
func TestResetFlood(t *testing.T) {
	for name, reset := range map[string]func(c *h2conn, stream uint32) error{
		"rapid reset": func(c *h2conn, stream uint32) error { return c.WriteRSTStream(stream, http2.ErrCodeCancel) },
		"window of nothing": func(c *h2conn, stream uint32) error { // a stream error: the increment must not be 0
			return c.WriteRawFrame(http2.FrameWindowUpdate, 0, stream, []byte{0, 0, 0, 0})
		},
		"window too large": func(c *h2conn, stream uint32) error { return c.WriteWindowUpdate(stream, 1<<31-1) },
	} {
		t.Run(name, func(t *testing.T) {
			d := openDoor(t, listen.Config{}, map[string]wat{"/": hello, "/sleep": sleeper})
			before := d.warm(t, "/")
			c := d.h2(t)
			var err error
			sent := 0
			for err == nil {
				var stream uint32
				if stream, err = c.open("/sleep"); err == nil {
					err = reset(c, stream)
				}
				if sent++; sent > 1_000_000 {
					t.Fatal("a million requests were taken")
				}
			}
			how := <-c.ended
			t.Logf("after %d requests: %v", sent, how)
			if s := d.server.Stats(); s.Refused.Calm == 0 && !errors.Is(how, http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)) {
				t.Errorf("ended with %v, %+v", how, s)
			}
			wait(t, "no exchanges", func() bool { s := d.server.Stats(); return s.Exchanges == 0 && s.Taken == 0 })
			before.back(t)
		})
	}
}

// TestCalmCounts: the connection is closed by the cancelled request too many,
// and by nothing that ends as it should.
func TestCalmCounts(t *testing.T) {
	d := openDoor(t, listen.Config{}, map[string]wat{"/": hello, "/sleep": sleeper, "/flush": {handle: `(drop (call $response_flush))
		(drop (call $sleep (i64.const 5000000)))`}})
	cancelled := func(c http.RoundTripper) error {
		ctx, cancel := context.WithCancel(patient(t))
		defer cancel()
		go func() {
			wait(t, "it runs", func() bool { return d.server.Stats().Exchanges == 1 })
			cancel()
		}()
		resp, err := c.RoundTrip(d.request(ctx, t, "GET", "/sleep", nil))
		if err == nil {
			_ = resp.Body.Close()
		}
		wait(t, "it has ended", func() bool { return d.server.Stats().Exchanges == 0 })
		if ctx.Err() == nil {
			return fmt.Errorf("it was not cancelled: %w", err)
		}
		return nil
	}
	for _, name := range []string{"h2", "h3"} {
		t.Run(name, func(t *testing.T) {
			c := d.clients(t)[name]
			was := d.server.Stats().Refused.Calm
			for range 150 {
				if got := d.ask(t, c, "HEAD", "/flush", nil); got != 200 {
					t.Fatalf("status %d", got)
				}
			}
			for i := range 100 {
				if err := cancelled(c); err != nil {
					t.Fatalf("the %dth: %v", i+1, err)
				}
			}
			if got := d.ask(t, c, "GET", "/", nil); got != 200 || d.server.Stats().Refused.Calm != was || d.server.Stats().Taken != 1 {
				t.Fatalf("after 100: status %d, %+v", got, d.server.Stats())
			}
			_ = cancelled(c) // the client may see its connection end first
			wait(t, "it is closed", func() bool { s := d.server.Stats(); return s.Refused.Calm == was+1 && s.Taken == 0 })
		})
	}
}

// TestStreamFlood: streams that are opened and left are bounded for each
// connection, and end with it.
func TestStreamFlood(t *testing.T) {
	d := openDoor(t, listen.Config{}, map[string]wat{"/": hello, "/sleep": sleeper})
	before := d.warm(t, "/")
	t.Run("h2", func(t *testing.T) {
		c := d.h2(t)
		for range 1000 {
			if _, err := c.open("/sleep"); err != nil {
				t.Fatal(err)
			}
		}
		wait(t, "a hundred run", func() bool { return d.server.Stats().Exchanges == 100 })
		before.within(t, 100*10, 32<<20)
		_ = c.conn.Close()
	})
	wait(t, "no exchanges", func() bool { s := d.server.Stats(); return s.Exchanges == 0 && s.Taken == 0 })
	t.Run("h3", func(t *testing.T) {
		conn, err := d.dialQUIC(patient(t), "", http3.ConfigureTLSConfig(d.tls.Clone()), &quic.Config{})
		if err != nil {
			t.Fatal(err)
		}
		opened := 0
		for ; ; opened++ { // half a HEADERS frame on each
			s, err := conn.OpenStream()
			if err != nil {
				break
			}
			_, _ = s.Write([]byte{1, 0x40, 100, 'x'})
		}
		if opened != 100 {
			t.Errorf("%d streams", opened)
		}
		wait(t, "one connection", func() bool { return d.server.Stats().QUIC == 1 })
		before.within(t, 100*3, 16<<20)
		_ = conn.CloseWithError(0, "")
	})
	wait(t, "no connections", func() bool { return d.server.Stats().Taken == 0 })
	before.back(t)
}

// TestFramesThatStop: an HTTP/2 connection that stops in the middle of a head, or
// before it, is idle.
func TestFramesThatStop(t *testing.T) {
	d := openDoor(t, listen.Config{IdleTimeout: 300 * time.Millisecond}, map[string]wat{"/": hello})
	before := used()
	for range 50 {
		c := d.h2(t)
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}) // CONTINUATION never comes
		silent := d.dial(t, "h2")
		_, _ = io.WriteString(silent, http2.ClientPreface[:10])
	}
	wait(t, "no connections", func() bool { return d.server.Stats().Taken == 0 })
	before.back(t)
}
