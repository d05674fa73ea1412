// Package fetch makes a function's outbound requests: to the backends it is
// bound to and nowhere else, never to an address inside the operator's network
// that was not allowed by name.
package fetch

import (
	"cmp"
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
	// Allow lists networks that are not public and may be reached all the same, by
	// backends that are bound as private.
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

	// Of backends that name no timeouts of their own; default function.DefaultTimeouts.
	Connect time.Duration // DNS and TCP
	TLS     time.Duration // the handshake
	Head    time.Duration // from the request sent to the response's head
	Body    time.Duration // without a byte of the response's body
	Idle    time.Duration // a connection kept for the next request; default 60 s
	// Connections is how many a function may have to one backend; default 256.
	// One request more waits until one is free, or its time is over.
	Connections int
}

func (c Config) withDefaults() Config {
	def := func(field *time.Duration, d time.Duration) {
		if *field == 0 {
			*field = d
		}
	}
	def(&c.Connect, function.DefaultTimeouts.Connect)
	def(&c.TLS, function.DefaultTimeouts.TLS)
	def(&c.Head, function.DefaultTimeouts.FirstByte)
	def(&c.Body, function.DefaultTimeouts.Between)
	def(&c.Idle, time.Minute)
	if c.Connections == 0 {
		c.Connections = maxConnsPerBackend
	}
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
	if c.Connections < 0 {
		faults = append(faults, fmt.Errorf("fetch connections %d: want 0 or more", c.Connections))
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
	to, err := bound(v, r.URL)
	if err != nil {
		return nil, err
	}
	to.timeouts = c.timeouts(to.timeouts)
	out, err := c.request(ctx, r, to.Backend)
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.bounded(ctx, to.timeouts.Total)
	p := c.pools.of(v.ID, to)
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
	resp.Body = newBody(ctx, cancel, resp.Body, to.timeouts.Between)
	return resp, nil
}

// timeouts are a backend's own, and the node's where it names none.
func (c *Client) timeouts(t function.Timeouts) function.Timeouts {
	return function.Timeouts{
		Connect: cmp.Or(t.Connect, c.config.Connect), TLS: cmp.Or(t.TLS, c.config.TLS),
		FirstByte: cmp.Or(t.FirstByte, c.config.Head), Between: cmp.Or(t.Between, c.config.Body), Total: t.Total,
	}
}

var errTotal = fmt.Errorf("%w: not done within the backend's total_timeout", hostcall.ErrUnavailable)

// bounded returns the context of one request, which ends after d unless that is 0.
func (c *Client) bounded(ctx context.Context, d time.Duration) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if d == 0 {
		return ctx, cancel
	}
	t := time.AfterFunc(d, func() { cancel(errTotal) })
	return ctx, func(err error) {
		t.Stop()
		cancel(err)
	}
}

// reason says what an error of the transport means to the function.
func reason(ctx context.Context, err error) error {
	var no *denied
	switch {
	case errors.As(err, &no):
		return fmt.Errorf("%w: %w", hostcall.ErrAddress, no)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", hostcall.ErrUnavailable, err)
}
