package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/edge/proxy"
)

// tcpServer accepts and shakes hands by itself, then gives net/http two kinds
// of connection: *tls.Conn, which it serves as HTTP/2, and guarded ones, which
// it serves as HTTP/1. Left to net/http, nothing could stand between TLS and its
// HTTP/1 parser.
type tcpServer struct {
	cfg        *Config
	tls        *tls.Config
	http       *http.Server
	ready      *handoff
	gate       *gate
	open       atomic.Int64
	failed     atomic.Int64 // handshakes
	handshakes sync.WaitGroup
	slots      chan struct{} // one for each handshake under way
	stop       context.Context
	cancel     context.CancelFunc
	accepting  chan struct{} // closed when the accept loop has ended
	lifecycle  struct {
		sync.Mutex
		started, stopped bool
	}
}

func newTCPServer(cfg *Config, g *gate, h http.Handler) *tcpServer {
	t := &tcpServer{
		cfg:       cfg,
		gate:      g,
		tls:       tlsConfig(cfg, "h2", "http/1.1", "http/1.0"),
		ready:     newHandoff(cfg.TCP.Addr()),
		slots:     make(chan struct{}, MaxHandshakes),
		accepting: make(chan struct{}),
	}
	t.stop, t.cancel = context.WithCancel(context.Background())
	t.http = &http.Server{
		Handler:           h,
		ReadHeaderTimeout: cfg.HeadTimeout,
		IdleTimeout:       cfg.IdleTimeout,
		MaxHeaderBytes:    maxHeadBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          MaxStreams,
			MaxReadFrameSize:              maxFrame,
			MaxReceiveBufferPerConnection: maxConnWindow,
			MaxReceiveBufferPerStream:     maxWindow,
			WriteByteTimeout:              cfg.IdleTimeout,
		},
		Protocols:   protocols(),
		ConnContext: calmH2,
		ErrorLog:    log.New(debugLog{cfg.Log}, "", 0),
	}
	return t
}

func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	return p
}

func tlsConfig(cfg *Config, next ...string) *tls.Config {
	return withTickets(cfg.TicketKey, &tls.Config{GetCertificate: cfg.Certificate, NextProtos: next, MinVersion: tls.VersionTLS12})
}

// debugLog takes net/http's lines: nearly all of them are what clients did.
type debugLog struct{ log *slog.Logger }

func (d debugLog) Write(p []byte) (int, error) {
	d.log.Debug("http", slog.String("message", string(p)))
	return len(p), nil
}

// serve accepts until the listener is closed.
func (t *tcpServer) serve() error {
	if !t.start() {
		return nil
	}
	var web sync.WaitGroup
	web.Go(func() { _ = t.http.Serve(t.ready) }) // ends with the handoff, always by an error
	err := t.accept()
	close(t.accepting)
	web.Wait()
	return err
}

// start reports whether there is still something to serve.
func (t *tcpServer) start() bool {
	t.lifecycle.Lock()
	defer t.lifecycle.Unlock()
	if t.lifecycle.stopped {
		return false
	}
	t.lifecycle.started = true
	return true
}

// acceptPause is how long to wait when the process is out of descriptors.
const acceptPause = 50 * time.Millisecond

func (t *tcpServer) accept() error {
	for {
		c, err := t.cfg.TCP.Accept()
		switch {
		case err == nil:
			t.admit(c)
		case t.stop.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			t.ready.close()
			return err
		default:
			t.cfg.Log.Warn("accept", slog.Any("error", err))
			select {
			case <-time.After(acceptPause):
			case <-t.stop.Done():
				return nil
			}
		}
	}
}

// admit begins a connection, or closes it at once: cheaper for both than to let
// it wait, or to tell it why, which would take a handshake.
func (t *tcpServer) admit(c net.Conn) {
	select {
	case t.slots <- struct{}{}:
	default:
		t.failed.Add(1)
		abort(c)
		return
	}
	if t.relayed(c) {
		t.handshakes.Go(func() {
			t.unwrap(c)
			<-t.slots
		})
		return
	}
	if !t.gate.enter(c.RemoteAddr()) {
		<-t.slots
		abort(c)
		return
	}
	t.open.Add(1)
	t.handshakes.Go(func() {
		t.handshake(c)
		<-t.slots
	})
}

// relayed reports whether a balancer passes the connection on.
func (t *tcpServer) relayed(c net.Conn) bool {
	if len(t.cfg.Balancers) == 0 {
		return false
	}
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := a.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(t.cfg.Balancers, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// unwrap reads whose connection it is, and begins it as theirs: it counts for
// the client, not for the balancer. Until then it counts as a handshake.
func (t *tcpServer) unwrap(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(t.cfg.HandshakeTimeout)) // a socket takes it
	who, err := proxy.Read(c)
	if err != nil {
		t.cfg.Log.Debug("proxy protocol", slog.String("balancer", c.RemoteAddr().String()), slog.Any("error", err))
		t.failed.Add(1)
		abort(c)
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	of := c
	if who.IsValid() {
		of = proxy.As(c, who)
	}
	if !t.gate.enter(of.RemoteAddr()) {
		abort(c)
		return
	}
	t.open.Add(1)
	t.handshake(of)
}

// abort closes without the wait that TCP keeps for stragglers: what is refused
// must not cost the kernel memory for a minute.
func abort(c net.Conn) {
	if c, ok := c.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	_ = c.Close()
}

// handshake turns a connection into one that net/http can serve.
func (t *tcpServer) handshake(c net.Conn) {
	counted := &countedConn{Conn: c, left: t.left}
	conn := tls.Server(counted, t.tls)
	ctx, cancel := context.WithTimeout(context.Background(), t.cfg.HandshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		t.cfg.Log.Debug("tls handshake", slog.String("client", c.RemoteAddr().String()), slog.Any("error", err))
		t.failed.Add(1)
		_ = counted.Close()
		return
	}
	var served net.Conn = conn
	if conn.ConnectionState().NegotiatedProtocol != "h2" {
		served = t.cfg.Guard(stateful{conn})
	}
	if !t.ready.give(served) {
		_ = counted.Close()
	}
}

// stateful hides that a connection is a *tls.Conn, so that net/http reads it
// through its guard and does not shake hands again.
type stateful struct{ net.Conn }

// ConnectionState is how net/http learns that the connection is encrypted.
func (s stateful) ConnectionState() tls.ConnectionState { return s.Conn.(*tls.Conn).ConnectionState() }

// CloseWrite ends our side: net/http lingers with it after an early answer.
func (s stateful) CloseWrite() error { return s.Conn.(*tls.Conn).CloseWrite() }

// left counts a connection out.
func (t *tcpServer) left(c net.Conn) {
	t.open.Add(-1)
	t.gate.leave(c.RemoteAddr())
}

// countedConn counts itself out when it is closed.
type countedConn struct {
	net.Conn
	left   func(net.Conn)
	closed atomic.Bool
}

func (c *countedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.left(c.Conn)
	}
	return c.Conn.Close()
}

// drain ends in three steps: no new connections; each client learns from its
// next answer that the connection ends; those that ask for nothing are closed.
func (t *tcpServer) drain(ctx context.Context) error {
	t.lifecycle.Lock()
	started := t.lifecycle.started
	t.lifecycle.stopped = true
	t.lifecycle.Unlock()
	t.cancel()
	closeErr := t.cfg.TCP.Close()
	if errors.Is(closeErr, net.ErrClosed) {
		closeErr = nil
	}
	if !started {
		return closeErr
	}
	<-t.accepting
	t.linger(ctx)
	err := t.http.Shutdown(ctx)
	if err != nil {
		_ = t.http.Close()
	}
	t.ready.close()
	t.handshakes.Wait()
	return errors.Join(closeErr, err)
}

// linger waits until all connections are gone, for at most Linger.
func (t *tcpServer) linger(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Linger)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for t.open.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// handoff is a net.Listener of connections that were accepted elsewhere.
type handoff struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandoff(addr net.Addr) *handoff {
	return &handoff{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// give reports whether somebody took the connection.
func (h *handoff) give(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.done:
		return false
	}
}

func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handoff) close() { h.once.Do(func() { close(h.done) }) }

// Close is for http.Server, which closes its listeners when it shuts down.
func (h *handoff) Close() error {
	h.close()
	return nil
}

func (h *handoff) Addr() net.Addr { return h.addr }
