package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
)

// Bounds of connections.
const (
	maxPools           = 4096 // functions and backends with connections of their own
	maxIdlePerBackend  = 16
	maxConnsPerBackend = 256
	maxResponseHead    = 64 << 10 // bytes
	maxInformational   = 5        // 1xx responses before the one that counts
)

// key names a pool: another function's requests, and those under other terms,
// never go down its connections.
type key struct {
	id function.ID
	to route
}

// pool is the connections of one function to one backend.
type pool struct {
	transport *http.Transport
	owner     *pools
	inUse     int       // guarded by owner
	last      time.Time // guarded by owner
}

type pools struct {
	config         Config
	public, inside *gate
	mu             struct {
		sync.Mutex
		open map[key]*pool
	}
}

func newPools(c Config, g *gate) *pools {
	p := &pools{config: c, public: g.public(), inside: g}
	p.mu.open = map[key]*pool{}
	return p
}

// of returns the function's pool for the backend; call done when the request is sent.
func (p *pools) of(id function.ID, to route) *pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := key{id, to}
	have := p.mu.open[k]
	if have == nil {
		p.sweep()
		have = &pool{transport: p.transport(to), owner: p}
		p.mu.open[k] = have
	}
	have.inUse++
	have.last = time.Now()
	return have
}

func (p *pool) done() {
	p.owner.mu.Lock()
	defer p.owner.mu.Unlock()
	p.inUse--
}

// sweep drops pools long unused, and the one unused the longest when there are too many.
func (p *pools) sweep() {
	var oldest key
	var when time.Time
	for k, have := range p.mu.open {
		if have.inUse > 0 {
			continue
		}
		if time.Since(have.last) > 2*p.config.Idle {
			p.drop(k)
		} else if when.IsZero() || have.last.Before(when) {
			oldest, when = k, have.last
		}
	}
	if len(p.mu.open) >= maxPools && !when.IsZero() {
		p.drop(oldest)
	}
}

// drop forgets a pool; connections in use end with their request. p.mu is held.
func (p *pools) drop(k key) {
	if have := p.mu.open[k]; have != nil {
		delete(p.mu.open, k)
		have.transport.CloseIdleConnections()
	}
}

func (p *pools) retire(id function.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range p.mu.open {
		if k.id == id {
			p.drop(k)
		}
	}
}

func (p *pools) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range p.mu.open {
		p.drop(k)
	}
}

func (p *pools) transport(to route) *http.Transport {
	g := p.public
	if to.private {
		g = p.inside
	}
	dialer := &net.Dialer{
		Timeout: to.timeouts.Connect, KeepAlive: 30 * time.Second, Resolver: p.config.Resolver, ControlContext: g.control,
	}
	return &http.Transport{
		Proxy:                  nil, // never from the environment: a proxy would dial what the gate refuses
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: p.config.Roots},
		TLSHandshakeTimeout:    to.timeouts.TLS,
		ResponseHeaderTimeout:  to.timeouts.FirstByte,
		IdleConnTimeout:        p.config.Idle,
		MaxIdleConnsPerHost:    maxIdlePerBackend,
		MaxConnsPerHost:        p.config.Connections,
		MaxResponseHeaderBytes: maxResponseHead,
		DisableCompression:     true, // the function gets what was sent, and no bomb is unpacked for it
		ForceAttemptHTTP2:      true,
	}
}

var errInformational = errors.New("the backend sent too many 1xx responses")

// watch returns r with ctx, bounding what the transport does not.
func watch(ctx context.Context, r *http.Request) *http.Request {
	n := 0
	return r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error {
			if n++; n > maxInformational {
				return errInformational
			}
			return nil
		},
	}))
}
