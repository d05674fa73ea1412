package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// client sends requests over one connection, which it opens when it must.
type client interface {
	do(ctx context.Context) (answer, error)
	close()
}

// answer is a complete response.
type answer struct {
	status  int
	bytes   int64
	body    []byte // kept only for a Check
	redials uint64
}

// dialers makes the clients; no connection is open yet.
func dialers(cfg *Config) (clients []client, closeAll func(), err error) {
	closeAll = func() {
		for _, c := range clients {
			c.close()
		}
	}
	for range cfg.Connections {
		var c client
		switch cfg.Protocol {
		case H1:
			c, err = newRaw(cfg)
		case H2:
			c, err = newH2(cfg)
		case H3:
			c, err = newH3(cfg)
		}
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		clients = append(clients, c)
	}
	return clients, closeAll, nil
}

// dialError is a failure before any byte of the request was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return "connect: " + e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// redialPause stands between two attempts to connect.
const redialPause = 10 * time.Millisecond

// withRedial calls f again as long as it cannot connect and ctx lasts: a server
// that is being replaced may refuse, and no request was lost by that. The time
// it takes counts.
func withRedial(ctx context.Context, f func() (answer, error)) (answer, error) {
	for redials := uint64(0); ; redials++ {
		a, err := f()
		a.redials += redials
		var de *dialError
		if err == nil || !errors.As(err, &de) {
			return a, err
		}
		select {
		case <-time.After(redialPause):
		case <-ctx.Done():
			return a, err
		}
	}
}

// tlsFor is the configuration of one connection, for one protocol.
func tlsFor(cfg *Config, next string) *tls.Config {
	c := &tls.Config{}
	if cfg.TLS != nil {
		c = cfg.TLS.Clone()
	}
	c.NextProtos = []string{next}
	if c.ServerName == "" {
		u, _ := url.Parse(cfg.URL) // Validate has parsed it
		c.ServerName = u.Hostname()
	}
	return c
}

func dialTLS(ctx context.Context, cfg *Config, next string) (*tls.Conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", cfg.Address)
	if err != nil {
		return nil, &dialError{err}
	}
	c := tls.Client(raw, tlsFor(cfg, next))
	if err := c.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, &dialError{err}
	}
	// A server without ALPN (RFC 7301) speaks HTTP/1.1.
	if got := c.ConnectionState().NegotiatedProtocol; got != next && (got != "" || cfg.Protocol != H1) {
		_ = c.Close()
		return nil, fmt.Errorf("the server speaks %q, not %q", got, next)
	}
	return c, nil
}

// opening lets one request of a client alone until its connection is there: a Transport opens
// one for each request that finds none, which would be as many handshakes as there are workers.
type opening struct {
	leader chan struct{} // who fills it goes first
	up     chan struct{} // closed once a connection was opened, or cannot be for another reason than that nobody is there
	once   sync.Once
}

func newOpening() *opening {
	return &opening{leader: make(chan struct{}, 1), up: make(chan struct{})}
}

func (o *opening) wait(ctx context.Context) {
	if o == nil {
		return
	}
	select {
	case <-o.up:
	case o.leader <- struct{}{}:
	case <-ctx.Done():
	}
}

func (o *opening) opened(err error) {
	var de *dialError
	if !errors.As(err, &de) {
		o.once.Do(func() { close(o.up) })
	}
}

func h2Transport(cfg *Config, o *opening) *http.Transport {
	p := new(http.Protocols)
	p.SetHTTP2(true)
	return &http.Transport{
		Protocols:          p,
		DisableCompression: true,
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := dialTLS(ctx, cfg, "h2")
			o.opened(err)
			if err != nil {
				return nil, err // not a *tls.Conn that is nil
			}
			return c, nil
		},
	}
}

// tripper is a client over a RoundTripper that keeps one connection.
type tripper struct {
	http.RoundTripper
	cfg     *Config
	request *http.Request // cloned for each
	opening *opening      // nil: connections are opened as they are needed
	done    func()
}

func newH2(cfg *Config) (client, error) {
	o := newOpening()
	rt := h2Transport(cfg, o)
	t, err := newTripper(cfg, rt, rt.CloseIdleConnections)
	if err != nil {
		return nil, err
	}
	t.opening = o
	return t, nil
}

func newTripper(cfg *Config, rt http.RoundTripper, done func()) (*tripper, error) {
	r, err := http.NewRequest(cfg.Method, cfg.URL, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	r.Header = cfg.Header.Clone()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	return &tripper{RoundTripper: rt, cfg: cfg, request: r, done: done}, nil
}

func (t *tripper) close() { t.done() }

func (t *tripper) do(ctx context.Context) (answer, error) {
	t.opening.wait(ctx)
	return withRedial(ctx, func() (answer, error) { return t.once(ctx) })
}

func (t *tripper) once(ctx context.Context) (answer, error) {
	r := t.request.WithContext(ctx)
	if len(t.cfg.Body) > 0 {
		r.ContentLength = int64(len(t.cfg.Body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(t.cfg.Body)), nil }
		r.Body, _ = r.GetBody()
	}
	resp, err := t.RoundTrip(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode}
	if t.cfg.Check != nil {
		a.body, err = io.ReadAll(resp.Body)
		a.bytes = int64(len(a.body))
	} else {
		a.bytes, err = io.Copy(io.Discard, resp.Body)
	}
	if err != nil {
		return a, fmt.Errorf("read the body: %w", err)
	}
	return a, nil
}

// newH3 makes a client with a UDP socket of its own.
func newH3(cfg *Config) (client, error) {
	udp, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	qt := &quic.Transport{Conn: udp}
	rt := &http3.Transport{
		TLSClientConfig:    tlsFor(cfg, http3.NextProtoH3),
		DisableCompression: true,
		Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			addr, err := net.ResolveUDPAddr("udp", cfg.Address)
			if err != nil {
				return nil, &dialError{err}
			}
			c, err := qt.Dial(ctx, addr, tc, qc)
			if err != nil {
				return nil, &dialError{err}
			}
			return c, nil
		},
	}
	return newTripper(cfg, rt, func() {
		_ = rt.Close()
		_ = qt.Close()
		_ = udp.Close()
	})
}
