package listen

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// quicServer accepts QUIC connections by itself and gives them to http3, because
// http3's own loop drops connections that are accepted while it shuts down.
type quicServer struct {
	cfg       *Config
	http      *http3.Server
	transport *quic.Transport
	listener  *quic.EarlyListener
	conns     atomic.Int64
	busy      atomic.Int64 // exchanges under way
	serving   sync.WaitGroup
	starting  sync.WaitGroup // connections that http3 does not count yet
	unstarted sync.Map       // *quic.Conn to func(): takes it from starting, once
	live      sync.Map       // *quic.Conn to struct{}: those that are served
	rate      rate
	lifecycle struct {
		sync.Mutex
		opened, stopped bool
	}
	ended chan struct{} // closed when the accept loop has ended
}

func newQUICServer(cfg *Config, g *gate, h http.Handler) *quicServer {
	q := &quicServer{cfg: cfg, ended: make(chan struct{})}
	q.http = &http3.Server{
		Handler:        q.count(h),
		MaxHeaderBytes: maxHeadBytes,
		IdleTimeout:    cfg.IdleTimeout,
		Logger:         cfg.Log,
		ConnContext: func(ctx context.Context, c *quic.Conn) context.Context {
			q.started(c) // http3 has counted the connection just before
			return calmH3(watchHeads(ctx, c, cfg.IdleTimeout+cfg.HeadTimeout), c)
		},
	}
	q.transport = &quic.Transport{
		Conn:                  cfg.UDP,
		ConnectionIDGenerator: connectionIDs{cfg.ConnectionPrefix},
		VerifySourceAddress:   func(a net.Addr) bool { return !q.rate.allow(time.Now(), freeHandshakes) || g.crowded(a) },
		ConnContext:           g.enterQUIC,
	}
	if cfg.ResetKey != [32]byte{} {
		q.transport.StatelessResetKey = (*quic.StatelessResetKey)(&cfg.ResetKey)
	}
	if cfg.TokenKey != [32]byte{} {
		q.transport.TokenGeneratorKey = (*quic.TokenGeneratorKey)(&cfg.TokenKey)
	}
	return q
}

// connectionIDs makes IDs by which the kernel tells one server's packets from
// another's: a prefix, and eight random bytes that no two connections share.
// The prefix is the same for all of a server's connections, so it links none to another.
type connectionIDs struct{ prefix [4]byte }

var _ quic.ConnectionIDGenerator = connectionIDs{}

// GenerateConnectionID implements quic.ConnectionIDGenerator.
func (c connectionIDs) GenerateConnectionID() (quic.ConnectionID, error) {
	id := make([]byte, c.ConnectionIDLen())
	_, _ = rand.Read(id[copy(id, c.prefix[:]):]) // never fails
	return quic.ConnectionIDFromBytes(id), nil
}

// ConnectionIDLen implements quic.ConnectionIDGenerator.
func (c connectionIDs) ConnectionIDLen() int { return len(c.prefix) + 8 }

// quicConfig is never nil: http3's default would allow 0-RTT, whose requests an
// attacker can replay.
func (q *quicServer) quicConfig() *quic.Config {
	return &quic.Config{
		Allow0RTT:                      false,
		EnableDatagrams:                false,
		HandshakeIdleTimeout:           quicHandshake,
		MaxIdleTimeout:                 quicIdle,
		MaxIncomingStreams:             MaxStreams,
		MaxIncomingUniStreams:          8, // control and the two of QPACK, and room for grease
		InitialStreamReceiveWindow:     128 << 10,
		MaxStreamReceiveWindow:         maxWindow,
		InitialConnectionReceiveWindow: 256 << 10,
		MaxConnectionReceiveWindow:     maxConnWindow,
	}
}

func (q *quicServer) count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q.busy.Add(1)
		defer q.busy.Add(-1)
		if c, ok := r.Context().Value(headsKey{}).(*heads); ok {
			c.begin()
			defer c.end()
		}
		h.ServeHTTP(w, r)
	})
}

// open starts to read packets.
func (q *quicServer) open() error {
	q.lifecycle.Lock()
	defer q.lifecycle.Unlock()
	if q.lifecycle.stopped {
		return nil
	}
	ln, err := q.transport.ListenEarly(http3.ConfigureTLSConfig(tlsConfig(q.cfg)), q.quicConfig())
	if err != nil {
		return fmt.Errorf("listen: quic on %s: %w", q.cfg.UDP.LocalAddr(), err)
	}
	q.listener, q.lifecycle.opened = ln, true
	return nil
}

// serve accepts until the listener is closed.
func (q *quicServer) serve() error {
	if q.listener == nil {
		return nil
	}
	defer close(q.ended)
	for {
		conn, err := q.listener.Accept(context.Background())
		if errors.Is(err, quic.ErrServerClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("listen: quic accept on %s: %w", q.cfg.UDP.LocalAddr(), err)
		}
		q.begin(conn)
	}
}

// begin hands a connection to http3.
func (q *quicServer) begin(conn *quic.Conn) {
	q.starting.Add(1)
	q.unstarted.Store(conn, sync.OnceFunc(q.starting.Done))
	q.conns.Add(1)
	q.live.Store(conn, struct{}{})
	q.serving.Go(func() {
		defer q.live.Delete(conn)
		defer q.conns.Add(-1)
		defer q.started(conn)
		if err := q.http.ServeQUICConn(conn); err != nil {
			q.cfg.Log.Debug("http3", slog.String("client", conn.RemoteAddr().String()), slog.Any("error", err))
		}
	})
}

func (q *quicServer) started(conn *quic.Conn) {
	if done, ok := q.unstarted.LoadAndDelete(conn); ok {
		done.(func())()
	}
}

// drain stops accepting: from then on packets of unknown connections are
// ignored, so that their clients send them again and the next server answers.
// Then every client gets a GOAWAY.
func (q *quicServer) drain(ctx context.Context) error {
	q.lifecycle.Lock()
	opened, again := q.lifecycle.opened, q.lifecycle.stopped
	q.lifecycle.stopped = true
	q.lifecycle.Unlock()
	if again {
		return nil
	}
	var err error
	if opened {
		err = q.listener.Close()
		<-q.ended
		q.starting.Wait() // http3.Server.Shutdown must not race with a connection it does not know
		err = errors.Join(err, q.shutdown(ctx))
		q.serving.Wait()
		err = errors.Join(err, q.transport.Close())
	}
	return errors.Join(err, q.cfg.UDP.Close())
}

// shutdown sends the GOAWAYs and waits until the clients have closed their
// connections; those that only keep one open are closed after Linger.
func (q *quicServer) shutdown(ctx context.Context) error {
	idle, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { q.whenIdle(idle, stop) })
	err := q.http.Shutdown(idle)
	stop()
	watch.Wait()
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return nil // idle connections only
	}
	return err
}

// whenIdle calls f when no exchange was under way for Linger, nor a packet: being without
// exchanges is not enough, the last answers may still be on their way.
func (q *quicServer) whenIdle(ctx context.Context, f func()) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	now := time.Now()
	quiet := quiet{linger: q.cfg.Linger, since: now, idle: now}
	for {
		select {
		case now := <-tick.C:
			if quiet.long(now, q.busy.Load() > 0, q.moved()) {
				f()
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// moved is a number that changes with each packet that the connections open send or
// receive: an answer that was not acknowledged is sent again.
func (q *quicServer) moved() (bytes uint64) {
	q.live.Range(func(conn, _ any) bool {
		s := conn.(*quic.Conn).ConnectionStats()
		bytes += s.BytesSent + s.BytesReceived
		return true
	})
	return bytes
}

// mostLingers bounds the wait for packets to end: a client may send some for ever.
const mostLingers = 5

// quiet finds out when nothing has happened for linger.
type quiet struct {
	linger time.Duration
	since  time.Time // when something happened last
	idle   time.Time // when an exchange was under way last
	moved  uint64
}

func (q *quiet) long(now time.Time, busy bool, moved uint64) bool {
	if busy {
		q.since, q.idle = now, now
	}
	if moved != q.moved {
		q.since, q.moved = now, moved
	}
	return now.Sub(q.since) >= q.linger || now.Sub(q.idle) >= mostLingers*q.linger
}

// rate counts events by the second.
type rate struct {
	mu struct {
		sync.Mutex
		second int64
		n      int
	}
}

// allow reports whether the event is among the first most of its second.
func (r *rate) allow(now time.Time, most int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := now.Unix(); s != r.mu.second {
		r.mu.second, r.mu.n = s, 0
	}
	r.mu.n++
	return r.mu.n <= most
}
