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
	maxPools           = 1024 // functions with connections of their own
	maxIdlePerBackend  = 16
	maxConnsPerBackend = 256
	maxResponseHead    = 64 << 10 // bytes
	maxInformational   = 5        // 1xx responses before the one that counts
)

// pool is the connections of one function: another's request never goes down them.
type pool struct {
	transport *http.Transport
	owner     *pools
	inUse     int       // guarded by owner
	last      time.Time // guarded by owner
}

type pools struct {
	config Config
	dialer *net.Dialer
	mu     struct {
		sync.Mutex
		byFunction map[function.ID]*pool
	}
}

func newPools(c Config, g *gate) *pools {
	p := &pools{config: c, dialer: &net.Dialer{
		Timeout: c.Connect, KeepAlive: 30 * time.Second, Resolver: c.Resolver, ControlContext: g.control,
	}}
	p.mu.byFunction = map[function.ID]*pool{}
	return p
}

// of returns the function's pool; call done when the request is sent.
func (p *pools) of(id function.ID) *pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	have := p.mu.byFunction[id]
	if have == nil {
		p.sweep()
		have = &pool{transport: p.transport(), owner: p}
		p.mu.byFunction[id] = have
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
	var oldest function.ID
	var when time.Time
	for id, have := range p.mu.byFunction {
		if have.inUse > 0 {
			continue
		}
		if time.Since(have.last) > 2*p.config.Idle {
			p.drop(id)
		} else if when.IsZero() || have.last.Before(when) {
			oldest, when = id, have.last
		}
	}
	if len(p.mu.byFunction) >= maxPools && !when.IsZero() {
		p.drop(oldest)
	}
}

// drop forgets a pool; connections in use end with their request. p.mu is held.
func (p *pools) drop(id function.ID) {
	if have := p.mu.byFunction[id]; have != nil {
		delete(p.mu.byFunction, id)
		have.transport.CloseIdleConnections()
	}
}

func (p *pools) retire(id function.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(id)
}

func (p *pools) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.mu.byFunction {
		p.drop(id)
	}
}

func (p *pools) transport() *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // never from the environment: a proxy would dial what the gate refuses
		DialContext:            p.dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: p.config.Roots},
		TLSHandshakeTimeout:    p.config.TLS,
		ResponseHeaderTimeout:  p.config.Head,
		IdleConnTimeout:        p.config.Idle,
		MaxIdleConnsPerHost:    maxIdlePerBackend,
		MaxConnsPerHost:        maxConnsPerBackend,
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
