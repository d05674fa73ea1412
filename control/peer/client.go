package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
)

const (
	dialTimeout = 5 * time.Second
	// HeaderTimeout bounds the wait for a response's head once the request is sent.
	HeaderTimeout = 30 * time.Second
)

// ErrClosed is the cause of the end of what a closed client had under way.
var ErrClosed = errors.New("the peer client was closed")

// ClientConfig says whom a Client talks to.
type ClientConfig struct {
	Member        *identity.Member // required
	Expect        identity.Expect  // whom every address must prove to be
	Addresses     []string         // host:port, tried in order from the one that last worked
	HeaderTimeout time.Duration    // default HeaderTimeout
	// Dial makes TCP connections; default a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client talks to one peer, or to any of several equals, over few long-lived
// connections. Safe for concurrent use.
type Client struct {
	transport *http.Transport
	member    *identity.Member
	conns     *connSet
	ctx       context.Context // ends at Close
	end       context.CancelCauseFunc
	mu        struct {
		sync.Mutex
		addresses []string // the one that last worked first
	}
}

// NewClient returns a client; it connects when first used.
func NewClient(c ClientConfig) (*Client, error) {
	if c.Member == nil {
		return nil, errors.New("peer client: it needs a member")
	}
	if c.HeaderTimeout == 0 {
		c.HeaderTimeout = HeaderTimeout
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
	cl := &Client{member: c.Member, conns: newConnSet()}
	cl.transport = newTransport(c, cl.conns)
	cl.ctx, cl.end = context.WithCancelCause(context.Background())
	cl.SetAddresses(c.Addresses)
	return cl, nil
}

func newTransport(c ClientConfig, conns *connSet) *http.Transport {
	return &http.Transport{
		DialTLSContext:         dialer(c, conns),
		Protocols:              onlyHTTP2(),
		HTTP2:                  http2Config(),
		ResponseHeaderTimeout:  c.HeaderTimeout,
		MaxResponseHeaderBytes: maxHead,
		IdleConnTimeout:        idleTimeout,
		DisableCompression:     true,
	}
}

// errDial marks what failed before any of a request was sent.
type errDial struct{ error }

func (e *errDial) Unwrap() error { return e.error }

// errSent marks what failed after, at some address, a request may have been sent.
type errSent struct{ error }

func (e *errSent) Unwrap() error { return e.error }

// Unsent reports whether err, of Do, means that nothing of the request was sent:
// no address could be reached in time, or none proved to be whom it should be.
func Unsent(err error) bool {
	var dial *errDial
	var sent *errSent
	return errors.As(err, &dial) && !errors.As(err, &sent)
}

var errNoAddress = errors.New("no peer address is known")

func dialer(c ClientConfig, conns *connSet) func(context.Context, string, string) (net.Conn, error) {
	conf := c.Member.ClientTLS(c.Expect)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
		defer cancel()
		raw, err := c.Dial(ctx, network, addr)
		if err != nil {
			return nil, &errDial{err}
		}
		if raw, err = conns.add(raw); err != nil {
			return nil, &errDial{err}
		}
		conn := tls.Client(raw, conf)
		if err := conn.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, &errDial{fmt.Errorf("%s: %w", addr, err)}
		}
		return conn, nil
	}
}

// SetAddresses replaces the list; one that works keeps being preferred if it is
// still in it.
func (c *Client) SetAddresses(addresses []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := slices.Clone(addresses)
	if len(c.mu.addresses) > 0 {
		list = first(list, c.mu.addresses[0])
	}
	c.mu.addresses = list
}

// first returns list with addr at its head, if it is in it.
func first(list []string, addr string) []string {
	i := slices.Index(list, addr)
	if i <= 0 {
		return list
	}
	return slices.Insert(slices.Delete(list, i, i+1), 0, addr)
}

// Addresses returns the list, the preferred one first.
func (c *Client) Addresses() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.mu.addresses)
}

func (c *Client) prefer(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mu.addresses) == 0 || c.mu.addresses[0] != addr {
		c.mu.addresses = first(slices.Clone(c.mu.addresses), addr)
	}
}

// Do sends r, whose URL needs only path and query (http.NewRequest with
// "/peer/v1/..." will do). Where an address cannot be reached, or is not whom
// it should be, the next is tried (unless r's body cannot be had again: no
// GetBody); so it is where a GET or HEAD fails on the way. Other requests are not
// sent twice. There is no overall timeout: bound it by r's context, which also
// ends the response's body. Close the body.
func (c *Client) Do(r *http.Request) (*http.Response, error) {
	addresses := c.Addresses()
	if len(addresses) == 0 {
		return nil, &errDial{fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, errNoAddress)}
	}
	var errs []error
	unsent := true
	for _, addr := range addresses {
		resp, err := c.try(r, addr)
		if err == nil {
			c.prefer(addr)
			return resp, nil
		}
		errs = append(errs, fmt.Errorf("peer %s: %s %s: %w", addr, r.Method, r.URL.Path, err))
		unsent = unsent && Unsent(err)
		if r.Context().Err() != nil || c.ctx.Err() != nil || !mayTryNext(r, err) {
			break
		}
	}
	if !unsent {
		return nil, &errSent{errors.Join(errs...)}
	}
	return nil, errors.Join(errs...)
}

// mayTryNext reports whether r can be sent elsewhere without doing its work twice.
func mayTryNext(r *http.Request, err error) bool {
	var dial *errDial
	if errors.As(err, &dial) {
		return r.Body == nil || r.Body == http.NoBody || r.GetBody != nil // the transport closed the first body
	}
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && (r.Body == nil || r.Body == http.NoBody)
}

func (c *Client) try(r *http.Request, addr string) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	stop := context.AfterFunc(c.ctx, func() { cancel(ErrClosed) })
	end := func() { stop(); cancel(nil) }
	var connected atomic.Bool // there was a connection to send it on
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}
	out, err := aim(r.WithContext(httptrace.WithClientTrace(ctx, trace)), addr)
	if err != nil {
		end()
		return nil, err
	}
	resp, err := c.transport.RoundTrip(out)
	if err == nil {
		if err = c.check(resp); err != nil {
			resp.Body.Close()
		}
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("%w (%w)", err, cause)
		}
		if !connected.Load() && !Unsent(err) {
			err = &errDial{err}
		}
		end()
		return nil, err
	}
	resp.Body = &body{resp.Body, end}
	return resp, nil
}

// aim returns r addressed to addr, with a body of its own if it can be had.
func aim(r *http.Request, addr string) (*http.Request, error) {
	out := r.Clone(r.Context())
	out.URL = &url.URL{Scheme: "https", Host: addr, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	out.Host = ""
	out.RequestURI = ""
	out.Trailer = r.Trailer // whose values are known once the body is read
	if r.GetBody != nil {
		var err error
		if out.Body, err = r.GetBody(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// check notices that a peer was revoked after its connection was made.
func (c *Client) check(resp *http.Response) error {
	if resp.TLS == nil || len(resp.TLS.PeerCertificates) == 0 {
		return fmt.Errorf("%w: no certificate", identity.ErrUntrusted)
	}
	return c.member.Anchor().Trust().StillGood(resp.TLS.PeerCertificates[0])
}

// Of returns who sent a response.
func Of(resp *http.Response) (identity.Peer, error) {
	if resp.TLS == nil || len(resp.TLS.PeerCertificates) == 0 {
		return identity.Peer{}, fmt.Errorf("%w: no certificate", identity.ErrUntrusted)
	}
	return identity.PeerOf(resp.TLS.PeerCertificates[0])
}

// body releases its request when it ends.
type body struct {
	io.ReadCloser
	end func()
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.end()
	return err
}

// Close ends all connections and what is under way on them (ErrClosed).
func (c *Client) Close() {
	c.end(ErrClosed)
	c.transport.CloseIdleConnections()
	c.conns.close()
}
