// Package fetch makes a function's outbound requests: to the backends it is
// bound to and nowhere else, never to an address inside the operator's network
// that was not allowed by name.
package fetch

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// Config says where requests may go and how long each phase may take.
type Config struct {
	// Allow lists networks that are not public and may be reached all the same.
	// Addresses of cloud metadata services need an entry of their own (/32, /128).
	Allow []netip.Prefix
	// Refuse lists addresses never to be reached, whatever Allow says: this
	// node's own admin, peer and gossip ports, and control's.
	Refuse []netip.AddrPort
	// CDN is this fleet's name in CDN-Loop (RFC 8586), a token; default "selvage".
	CDN string
	// Roots are the authorities of backends; nil means the system's.
	Roots *x509.CertPool
	// Resolver looks up backends; nil means the system's.
	Resolver *net.Resolver

	Connect time.Duration // DNS and TCP; default 5 s
	TLS     time.Duration // the handshake; default 5 s
	Head    time.Duration // from the request sent to the response's head; default 10 s
	Body    time.Duration // without a byte of the response's body; default 30 s
	Idle    time.Duration // a connection kept for the next request; default 60 s
}

func (c Config) withDefaults() Config {
	def := func(field *time.Duration, d time.Duration) {
		if *field == 0 {
			*field = d
		}
	}
	def(&c.Connect, 5*time.Second)
	def(&c.TLS, 5*time.Second)
	def(&c.Head, 10*time.Second)
	def(&c.Body, 30*time.Second)
	def(&c.Idle, time.Minute)
	if c.CDN == "" {
		c.CDN = CDN
	}
	return c
}

// Validate reports every fault of c.
func (c Config) Validate() error {
	var faults []error
	for _, p := range c.Allow {
		if !p.IsValid() || p != p.Masked() {
			faults = append(faults, fmt.Errorf("fetch allow %s: want a network, as in 10.1.0.0/16", p))
		}
	}
	for _, a := range c.Refuse {
		if !a.IsValid() {
			faults = append(faults, errors.New("fetch refuse: an address is not ip:port"))
		}
	}
	if c.CDN != "" && !isToken(c.CDN) {
		faults = append(faults, fmt.Errorf("fetch cdn %q: want a token (letters, digits, - and .)", c.CDN))
	}
	for _, d := range []time.Duration{c.Connect, c.TLS, c.Head, c.Body, c.Idle} {
		if d < 0 {
			faults = append(faults, fmt.Errorf("fetch: timeout %v is below 0", d))
		}
	}
	return errors.Join(faults...)
}

// Client makes outbound requests. It may be used from many goroutines.
type Client struct {
	config Config
	gate   *gate
	pools  *pools
	counts counts
}

var _ hostcall.Fetcher = (*Client)(nil)

// New returns a client without connections. Close ends it.
func New(c Config) (*Client, error) {
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("open fetch: %w", err)
	}
	g := newGate(c.Allow, c.Refuse)
	return &Client{config: c, gate: g, pools: newPools(c, g)}, nil
}

// Close ends all connections that wait for a next request; those in use end with theirs.
func (c *Client) Close() { c.pools.close() }

// Retire ends the waiting connections of a function that is gone.
func (c *Client) Retire(id function.ID) { c.pools.retire(id) }

// Fetch makes one request for v. It follows no redirect and adds no
// credentials. Errors to test for: hostcall.ErrDenied, ErrInvalid, ErrTooLarge,
// ErrUnavailable. Close the response's body; ctx bounds the reading of it too.
func (c *Client) Fetch(ctx context.Context, v *function.Version, r *http.Request) (*http.Response, error) {
	c.counts.requests.Add(1)
	resp, err := c.fetch(ctx, v, r)
	if err != nil {
		c.counts.failed(err)
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, fmt.Errorf("fetch: %w", err)
	}
	return resp, nil
}

func (c *Client) fetch(ctx context.Context, v *function.Version, r *http.Request) (*http.Response, error) {
	b, err := bound(v, r.URL)
	if err != nil {
		return nil, err
	}
	out, err := c.request(ctx, r, b)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	p := c.pools.of(v.ID)
	defer p.done()
	resp, err := p.transport.RoundTrip(watch(ctx, out))
	if err != nil {
		cause := reason(ctx, err)
		cancel(nil)
		return nil, cause
	}
	if err := checkResponse(resp); err != nil {
		resp.Body.Close()
		cancel(nil)
		return nil, fmt.Errorf("%w: %w", hostcall.ErrUnavailable, err)
	}
	dropHopByHop(resp.Header)
	resp.Body = newBody(ctx, cancel, resp.Body, c.config.Body)
	return resp, nil
}

// reason says what an error of the transport means to the function.
func reason(ctx context.Context, err error) error {
	var no *denied
	switch {
	case errors.As(err, &no):
		return fmt.Errorf("%w: %w", hostcall.ErrDenied, no)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", hostcall.ErrUnavailable, err)
}
