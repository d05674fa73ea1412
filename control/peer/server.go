package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
)

// Timeouts of both sides.
const (
	headerTimeout = 10 * time.Second // to read a request's head
	pingAfter     = 15 * time.Second // without a frame
	pingTimeout   = 10 * time.Second // for the ping's answer: then the connection is dead
	idleTimeout   = 5 * time.Minute  // a connection without streams is closed
)

// What one connection may use. Its window has room for all of its streams', or a few
// that nobody reads would stall the others. (http.HTTP2Config asks for less than 4 MiB,
// and takes more; TestStreamsDoNotStallOthers sees when that changes.)
const (
	maxStreams   = 1000
	streamWindow = 256 << 10 // bytes
	connWindow   = maxStreams * streamWindow
	maxHead      = 128 << 10 // a client's head, and what a node says of it
)

// ServerConfig says what a Server serves. Both fields are required.
type ServerConfig struct {
	Member  *identity.Member
	Handler http.Handler // sees the peer by From
}

// Server answers peers. It keeps no secret of its own: the member's certificate
// and trust are asked for at each handshake.
type Server struct {
	http    *http.Server
	anchor  *identity.Anchor
	closing chan struct{} // closed when Close begins
	end     context.CancelFunc
	wait    sync.WaitGroup
	mu      struct {
		sync.Mutex
		closed bool
		conns  map[*tls.Conn]struct{}
	}
}

// NewServer returns a server that does not listen yet.
func NewServer(c ServerConfig) (*Server, error) {
	if c.Member == nil || c.Handler == nil {
		return nil, errors.New("peer server: it needs a member and a handler")
	}
	base, end := context.WithCancel(context.Background())
	s := &Server{anchor: c.Member.Anchor(), closing: make(chan struct{}), end: end}
	s.mu.conns = map[*tls.Conn]struct{}{}
	s.http = &http.Server{
		Handler:           s.admit(c.Handler),
		TLSConfig:         c.Member.ServerTLS(),
		Protocols:         onlyHTTP2(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHead,
		HTTP2:             http2Config(),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnState:         s.track,
		ErrorLog:          log.New(io.Discard, "", 0), // handshakes that fail are the caller's to see; strangers' are noise
	}
	return s, nil
}

func onlyHTTP2() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP2(true)
	return p
}

func http2Config() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams:          maxStreams,
		MaxReceiveBufferPerConnection: connWindow,
		MaxReceiveBufferPerStream:     streamWindow,
		SendPingTimeout:               pingAfter,
		PingTimeout:                   pingTimeout,
	}
}

// Serve answers on a plain TCP listener until Close; it returns nil after Close.
// It closes l.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return l.Close()
	}
	s.wait.Add(2)
	s.mu.Unlock()
	defer s.wait.Done()
	stop := make(chan struct{})
	go func() {
		defer s.wait.Done()
		s.watchTrust(stop)
	}()
	defer close(stop)
	err := s.http.ServeTLS(l, "", "")
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// admit puts the sender's identity into the context. The handshake checked the
// certificate; what may have changed since is checked again.
func (s *Server) admit(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			refuse(w, http.StatusForbidden, "no certificate")
			return
		}
		leaf := r.TLS.PeerCertificates[0]
		p, err := identity.PeerOf(leaf)
		if err == nil {
			err = s.anchor.Trust().StillGood(leaf)
		}
		if err != nil {
			refuse(w, http.StatusForbidden, err.Error())
			return
		}
		if r.URL.Path == signPath {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		ctx := context.WithValue(r.Context(), contextKey{}, &arrival{p, s.closing})
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

func (s *Server) track(c net.Conn, state http.ConnState) {
	t, ok := c.(*tls.Conn)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.mu.conns[t] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(s.mu.conns, t)
	}
}

// watchTrust cuts connections whose certificate a new trust no longer accepts:
// a stream may outlive its peer's good name by days.
func (s *Server) watchTrust(stop <-chan struct{}) {
	for {
		changed := s.anchor.Changed()
		s.cutRevoked()
		select {
		case <-changed:
		case <-stop:
			return
		}
	}
}

func (s *Server) cutRevoked() {
	trust := s.anchor.Trust()
	for _, c := range s.open() {
		state := c.ConnectionState()
		if len(state.PeerCertificates) == 0 {
			continue // still shaking hands: checked there
		}
		if _, err := trust.CheckPeer(state.PeerCertificates[0], identity.Expect{}, true); err != nil {
			c.NetConn().Close()
		}
	}
}

func (s *Server) open() []*tls.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*tls.Conn, 0, len(s.mu.conns))
	for c := range s.mu.conns {
		list = append(list, c)
	}
	return list
}

// Close stops listening, ends what Stream marked, lets other requests under way
// finish until ctx is done, ends the rest, and waits for Serve.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.mu.closed {
		s.mu.closed = true
		close(s.closing)
	}
	s.mu.Unlock()
	err := s.http.Shutdown(ctx)
	s.end()
	if err != nil {
		err = s.http.Close()
	}
	s.wait.Wait()
	return err
}
