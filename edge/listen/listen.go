// Package listen serves HTTP/1.1, HTTP/2 and HTTP/3 on sockets that are already
// open, and drains them without a failed request.
package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Config wires a Server. TCP, UDP, Certificate and Handler must be set.
type Config struct {
	// TCP and UDP have the same address. They are used, not owned: the server
	// closes these values when it drains, which leaves a socket open that another
	// process, or another descriptor of this one, holds as well.
	TCP net.Listener
	UDP net.PacketConn
	// Certificate chooses the certificate of a handshake.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Handler     http.Handler
	// Guard wraps each HTTP/1 connection, after TLS; nil: none. See guard.Wire.
	Guard func(net.Conn) net.Conn
	// AltSvcPort is where clients find HTTP/3. Default: the port of UDP.
	AltSvcPort int
	// Log gets what goes wrong below HTTP, at debug level for what clients cause.
	// Default: nothing is logged.
	Log *slog.Logger
	// ResetKey lets clients of a server that died learn from the next one, at
	// once, that their QUIC connections are gone. The same for all servers of a
	// node; the zero value turns it off.
	ResetKey [32]byte
	// TokenKey encrypts QUIC address tokens. The same for all servers of a node;
	// the zero value means one of its own.
	TokenKey [32]byte
	// TicketKey is what the keys of TLS session tickets are made of, a new one each
	// day. The same for all servers of a node, so that clients resume with each of
	// them; the zero value means keys of its own.
	TicketKey [32]byte
	// ConnectionPrefix is how the IDs of QUIC connections begin: where two servers
	// have sockets on one address, the kernel tells their packets apart by it.
	ConnectionPrefix [4]byte

	// Connections bounds those that are open at once, TCP and QUIC together,
	// handshakes included; one more is closed unread. Default 20,000, and never
	// more than the process's descriptors allow.
	Connections int
	// ConnectionsPerClient bounds those of one client: an IPv4 address or an IPv6
	// /64. Default 1,000.
	ConnectionsPerClient int

	// Balancers are networks whose TCP connections begin with a PROXY protocol
	// header, which says whose they are; without one they are closed. From
	// anywhere else such a header is not believed: it is no TLS. See edge/proxy.
	Balancers []netip.Prefix

	HandshakeTimeout time.Duration // default HandshakeTimeout; it includes the PROXY header
	HeadTimeout      time.Duration // to read a request's head (HTTP/3: see heads.go); default HeadTimeout
	IdleTimeout      time.Duration // of a connection without requests; default IdleTimeout
	// Linger is how long a drain lets connections without requests live, so that
	// each can learn from one more answer that it must end; those of HTTP/3 up to
	// five times as long while packets come and go. Default 1 s.
	Linger time.Duration
}

// The times of a Config that sets none.
const (
	HandshakeTimeout = 10 * time.Second
	HeadTimeout      = 5 * time.Second
	IdleTimeout      = 60 * time.Second
)

// Limits of connections, the same for every node (threats: HTTP/2 and QUIC).
const (
	maxHeadBytes  = 32 << 10
	MaxStreams    = 100
	maxConnWindow = 1536 << 10
	maxWindow     = 512 << 10
	maxFrame      = 16 << 10 // of HTTP/2, which must fit in every window, and is buffered whole
	MaxHandshakes = 4096     // TLS handshakes under way
	quicIdle      = 30 * time.Second
	quicHandshake = 5 * time.Second
	// Above this many new connections in a second, QUIC clients must first prove
	// their address (Retry), so that nobody can be flooded through us.
	freeHandshakes = 500
)

// Validate reports every fault of the configuration.
func (c *Config) Validate() error {
	var faults []error
	if c.TCP == nil {
		faults = append(faults, errors.New("listen: Config.TCP is not set"))
	}
	if c.UDP == nil {
		faults = append(faults, errors.New("listen: Config.UDP is not set"))
	}
	if c.Certificate == nil {
		faults = append(faults, errors.New("listen: Config.Certificate is not set"))
	}
	if c.Handler == nil {
		faults = append(faults, errors.New("listen: Config.Handler is not set"))
	}
	return errors.Join(faults...)
}

func (c *Config) withDefaults() Config {
	d := *c
	or(&d.Connections, 20_000)
	or(&d.ConnectionsPerClient, 1_000)
	d.Connections = min(d.Connections, affordable())
	or(&d.HandshakeTimeout, HandshakeTimeout)
	or(&d.HeadTimeout, HeadTimeout)
	or(&d.IdleTimeout, IdleTimeout)
	or(&d.Linger, time.Second)
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Guard == nil {
		d.Guard = func(c net.Conn) net.Conn { return c }
	}
	if udp, ok := d.UDP.LocalAddr().(*net.UDPAddr); ok && d.AltSvcPort == 0 {
		d.AltSvcPort = udp.Port
	}
	return d
}

func or[T int | time.Duration](d *T, def T) {
	if *d <= 0 {
		*d = def
	}
}

// Server serves one address. Make it with New.
type Server struct {
	cfg      Config
	altSvc   []string // the header's value
	tcp      *tcpServer
	quic     *quicServer
	draining atomic.Bool
	gate     *gate
	inFlight atomic.Int64 // exchanges
	calmed   atomic.Int64 // connections closed for too many unfinished exchanges
	running  sync.WaitGroup
	drain    sync.Mutex // one Drain or Close at a time
	done     chan struct{}
	doneOnce sync.Once
	failed   atomic.Pointer[error] // why it stopped serving by itself
}

// New returns a Server that does not serve yet.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg.withDefaults(), done: make(chan struct{})}
	s.altSvc = []string{fmt.Sprintf(`h3=":%d"; ma=86400`, s.cfg.AltSvcPort)}
	s.gate = newGate(s.cfg.Connections, s.cfg.ConnectionsPerClient)
	s.tcp = newTCPServer(&s.cfg, s.gate, s.handler())
	s.quic = newQUICServer(&s.cfg, s.gate, s.handler())
	return s, nil
}

// handler counts exchanges, and tells clients of HTTP/3 and of the drain.
func (s *Server) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor > 1 {
			growStack() // a connection of HTTP/1 keeps its goroutine, and its stack
		}
		s.inFlight.Add(1)
		defer func() {
			s.inFlight.Add(-1)
			s.settle(r)
		}()
		if r.ProtoMajor == 1 {
			unboundEnd(w)
		}
		if r.ProtoMajor < 3 {
			w.Header()["Alt-Svc"] = s.altSvc
			if s.draining.Load() {
				// Ends the connection after this answer: HTTP/1 says so to the
				// client, HTTP/2 turns it into a GOAWAY.
				w.Header()["Connection"] = closeHeader
			}
		}
		s.cfg.Handler.ServeHTTP(w, r)
		if r.ProtoMajor == 1 {
			s.boundEnd(w, r)
		}
	})
}

// deadlines are what net/http's HTTP/1 responses have.
type deadlines interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// boundEnd bounds what net/http does after the handler, which is to read the
// rest of the request and to send the rest of the answer: a client that stalls
// there would keep the connection for good. With the next request, or when it
// waits for one, the read deadline is another.
func (s *Server) boundEnd(w http.ResponseWriter, r *http.Request) {
	d, ok := w.(deadlines)
	if !ok {
		return
	}
	now := time.Now()
	if r.ContentLength != 0 {
		_ = d.SetReadDeadline(now.Add(s.cfg.HeadTimeout))
	}
	_ = d.SetWriteDeadline(now.Add(s.cfg.IdleTimeout))
}

// unboundEnd takes back the write deadline of the exchange before, which
// net/http leaves as it is.
func unboundEnd(w http.ResponseWriter) {
	if d, ok := w.(deadlines); ok {
		_ = d.SetWriteDeadline(time.Time{})
	}
}

var closeHeader = []string{"close"}

// Serve serves until Drain or Close, then returns nil; it returns earlier, with
// the error, when a socket fails for good.
func (s *Server) Serve() error {
	if err := s.quic.open(); err != nil {
		return err
	}
	s.running.Go(func() { s.fail(s.tcp.serve()) })
	s.running.Go(func() { s.fail(s.quic.serve()) })
	<-s.done
	if err := s.failed.Load(); err != nil {
		return *err // Drain or Close ends the other half, and waits for it
	}
	s.running.Wait()
	return nil
}

// fail ends Serve when a socket broke; nil is the end that Drain wanted.
func (s *Server) fail(err error) {
	if err != nil {
		s.failed.CompareAndSwap(nil, &err)
		s.finish()
	}
}

func (s *Server) finish() { s.doneOnce.Do(func() { close(s.done) }) }

// Drain stops accepting, lets every exchange end and every client learn that
// its connection does (Connection: close, GOAWAY), and returns when no
// connection is left. When ctx ends first it closes what is left and returns
// ctx's error. Connections that arrive meanwhile are left to the next server on
// the same sockets: in the listen queue, and as QUIC packets that are sent again.
func (s *Server) Drain(ctx context.Context) error {
	s.drain.Lock()
	defer s.drain.Unlock()
	s.draining.Store(true)
	var tcpErr, quicErr error
	var both sync.WaitGroup
	both.Go(func() { tcpErr = s.tcp.drain(ctx) })
	both.Go(func() { quicErr = s.quic.drain(ctx) })
	both.Wait()
	s.finish()
	s.running.Wait()
	return errors.Join(tcpErr, quicErr)
}

// Close ends every connection at once.
func (s *Server) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Drain(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
