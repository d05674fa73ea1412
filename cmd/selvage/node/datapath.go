package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/cmd/selvage/nameserver"
	"github.com/selvage-edge/selvage/control/agent"
	"github.com/selvage-edge/selvage/control/geodns"
	"github.com/selvage-edge/selvage/edge/certs"
	"github.com/selvage-edge/selvage/edge/fetch"
	"github.com/selvage-edge/selvage/edge/forward"
	"github.com/selvage-edge/selvage/edge/geo"
	"github.com/selvage-edge/selvage/edge/guard"
	"github.com/selvage-edge/selvage/edge/invoke"
	"github.com/selvage-edge/selvage/edge/keeper"
	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/listen"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/artifact"
	"github.com/selvage-edge/selvage/runtime/compile"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/pool"
)

var _ serve.Invoker = (*invoke.Target)(nil)

// headTimeout bounds the reading of one HTTP/1 head.
const headTimeout = 5 * time.Second

// dataPath is everything a request meets.
type dataPath struct {
	engine    *engine.Engine
	compiler  *compile.Compiler
	artifacts *artifact.Store
	pool      *pool.Pool
	kv        *kv.Store
	fetch     *fetch.Client
	lines     *telemetry.Log // access records and functions' lines
	metrics   *telemetry.Telemetry
	tracer    *telemetry.Tracer // nil: nothing is traced
	limiter   *limit.Limiter
	onward    *limit.Limiter // of exchanges that other nodes answer
	geo       *geo.DB
	dns       *geodns.Server // nil: this node is no name server
	handler   *serve.Handler
	forward   *forward.Forwarder
	public    *listen.Server
	admin     *http.Server
	peer      *peerPort
	sockets   struct{ admin, peer net.Listener }
	serving   sync.WaitGroup
	ending    atomic.Bool // this server drains before it ends
	failed    chan error  // what stopped serving by itself
}

// openDataPath builds the rooms from the ground up; nothing is served yet.
func (n *node) openDataPath() (*dataPath, error) {
	p := &dataPath{failed: make(chan error, 4)}
	for _, step := range []func(*dataPath) error{n.openRuntime, n.openPorts, n.openServe, n.openForward, n.openListeners} {
		if err := step(p); err != nil {
			p.close(n.log)
			return nil, err
		}
	}
	return p, nil
}

func (n *node) openRuntime(p *dataPath) (err error) {
	if p.engine, err = engine.Open(engine.Config{}); err != nil {
		return err
	}
	store, err := artifact.Open(artifact.Config{Dir: filepath.Join(n.cfg.Node.State, "artifacts"), Key: derive(n.secret, "artifacts")})
	if err != nil {
		return err
	}
	p.artifacts = store
	p.compiler = compile.NewCompiler(compile.CompilerConfig{Runner: n.att, Store: store, Fingerprint: p.engine.Fingerprint(),
		Notice: func(err error) { n.log.Warn("an artifact is compiled again", "err", err) }})
	p.pool, err = pool.Open(pool.Config{Engine: p.engine, Compiler: p.compiler, Computing: Computing(),
		LoadedBytes: int64(n.cfg.Limits.LoadedBytes), LoadedMaps: n.cfg.Limits.LoadedMaps})
	return err
}

func (n *node) openPorts(p *dataPath) (err error) {
	if p.kv, err = kv.New(kv.Config{Origin: agent.NewOrigin(n.member.reach), Owner: n.owner, Bytes: int64(n.cfg.Limits.CacheBytes)}); err != nil {
		return err
	}
	p.fetch, err = fetch.New(fetch.Config{Allow: config.Prefixes(n.cfg.Fetch.Allow), Refuse: n.own(), Connections: n.cfg.Fetch.Connections})
	return err
}

// own lists the addresses of the fleet's own traffic, which no function may reach.
func (n *node) own() []netip.AddrPort {
	var own []netip.AddrPort
	l := n.cfg.Listen
	for _, a := range append([]string{l.Admin, config.Reach(l.Peer, l.Advertise), config.Reach(l.Gossip, l.Advertise)}, append(n.member.id.Control, n.member.id.API...)...) {
		if ap, err := netip.ParseAddrPort(a); err == nil {
			own = append(own, ap)
		}
	}
	return own
}

func (n *node) openServe(p *dataPath) (err error) {
	place := telemetry.Place{PoP: n.cfg.Node.PoP, Node: n.cfg.Node.Name, Region: n.cfg.Node.Region}
	l := n.cfg.Log
	p.lines = telemetry.NewLog(os.Stdout, telemetry.LogConfig{Place: place, NoAccess: !l.Access, RecentBytes: l.RecentBytes, FunctionBytes: l.FunctionBytes})
	if t := n.cfg.Trace; t.Endpoint != "" {
		p.tracer, err = telemetry.NewTracer(context.Background(), telemetry.TraceConfig{Endpoint: t.Endpoint, Ratio: t.Ratio, Asked: float64(t.Asked), Place: place, Version: n.build,
			OnError: func(err error) { n.log.Debug("spans are lost", "err", err) }})
		if err != nil {
			return fmt.Errorf("trace.endpoint: %w", err)
		}
	}
	p.metrics = telemetry.New(telemetry.Config{Place: place, Log: p.lines, Tracer: p.tracer})
	bounds := limit.Config{Node: n.cfg.Limits.Concurrency, Queue: n.cfg.Limits.Queue}
	p.limiter, p.onward = limit.New(bounds), limit.New(bounds)
	if p.geo, err = nameserver.OpenGeo(n.cfg.Geo, n.log); err != nil || n.cfg.DNS.Listen == "" {
		return err
	}
	if err := geodns.Probe(n.cfg.DNS.Listen); err != nil { // before this server is ready, so that the one before it serves on
		return dnsError(err)
	}
	c := n.cfg.DNS.Server(p.geo)
	c.Log = n.log.With("room", "geodns")
	p.dns, err = geodns.New(c)
	return err
}

func (n *node) openListeners(p *dataPath) error {
	var pairs []certs.Pair
	for _, c := range n.cfg.TLS.Certificates {
		pairs = append(pairs, certs.Pair{Cert: c.Cert, Key: c.Key})
	}
	store, err := certs.Load(pairs)
	if err != nil {
		return err
	}
	p.handler, err = serve.New(serve.Config{Limiter: p.limiter, Telemetry: p.metrics, Covers: store.Covers, Forward: p.forward, Onward: p.onward,
		Proxies: config.Prefixes(n.cfg.Listen.TrustedProxies), Unready: n.member.others.unready,
		Place: telemetry.Place{PoP: n.cfg.Node.PoP, Node: n.cfg.Node.Name, Region: n.cfg.Node.Region}})
	if err != nil {
		return err
	}
	tcp, err := n.att.Listener(keeper.PublicTCP)
	if err != nil {
		return err
	}
	udp, err := n.att.PacketConn(keeper.PublicUDP)
	if err != nil {
		return err
	}
	if err := n.asConfigured("listen.public", n.cfg.Listen.Public, tcp.Addr()); err != nil {
		return err
	}
	p.public, err = listen.New(listen.Config{TCP: tcp, UDP: udp, Certificate: store.Get, Handler: p.handler,
		Connections: n.cfg.Limits.Connections, ConnectionsPerClient: n.cfg.Limits.PerClient,
		Balancers: config.Prefixes(n.cfg.Listen.ProxyProtocol),
		Guard:     func(c net.Conn) net.Conn { return guard.Wire(c, headTimeout) },
		ResetKey:  derive(n.secret, "quic reset"), TokenKey: derive(n.secret, "quic token"), TicketKey: derive(n.secret, "tls ticket"),
		ConnectionPrefix: n.att.ConnectionPrefix(), Log: n.log.With("room", "listen")})
	if err != nil {
		return err
	}
	if p.sockets.admin, err = n.att.Listener(keeper.Admin); err != nil {
		return err
	}
	if p.sockets.peer, err = n.att.Listener(keeper.Peer); err != nil {
		return err
	}
	p.admin = &http.Server{Handler: nameserver.Explaining(p.dns, p.handler.Admin()), ReadHeaderTimeout: headTimeout, MaxHeaderBytes: 16 << 10}
	return errors.Join(n.asConfigured("listen.admin", n.cfg.Listen.Admin, p.sockets.admin.Addr()), n.asConfigured("listen.peer", n.cfg.Listen.Peer, p.sockets.peer.Addr()))
}

// startOffice serves metrics and health, which also tell when the rest is not
// ready, and the fleet.
func (p *dataPath) startOffice() {
	p.serve("admin", func() error { return p.admin.Serve(p.sockets.admin) })
	p.serve("peer", p.peer.begin(p.sockets.peer))
}

// officeLimit is how long answers to peers and operators under way may take to end.
const officeLimit = 5 * time.Second

// closeOffice gives the ports of the office up. What other nodes handed on goes on until drain.
func (p *dataPath) closeOffice() {
	ctx, cancel := context.WithTimeout(context.Background(), officeLimit)
	defer cancel()
	p.peer.retire(officeLimit)
	_ = p.admin.Shutdown(ctx)                                        // who is cut off asks again
	_ = errors.Join(p.sockets.admin.Close(), p.sockets.peer.Close()) // closed already if they were served
}

// start serves users.
func (p *dataPath) start() { p.serve("public", p.public.Serve) }

func (p *dataPath) serve(name string, run func() error) {
	p.serving.Go(func() {
		if err := run(); err != nil && !errors.Is(err, http.ErrServerClosed) {
			p.failed <- fmt.Errorf("%s listener: %w", name, err)
		}
	})
}

// drain lets requests under way end, also those that other nodes handed on, then stops serving.
func (p *dataPath) drain(log *slog.Logger, limit time.Duration) error {
	begin := time.Now()
	p.ending.Store(true)
	p.handler.SetDraining(true)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := p.public.Drain(ctx)
	last, cancel := context.WithDeadline(context.Background(), latest(begin.Add(limit), time.Now().Add(officeLimit)))
	defer cancel()
	p.closeOffice()
	p.peer.finish(last)
	p.serving.Wait()
	log.Info("drained", "took", time.Since(begin).Round(time.Millisecond))
	return err
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// close gives everything back, in the reverse order.
func (p *dataPath) close(log *slog.Logger) {
	var errs []error
	if p.pool != nil {
		errs = append(errs, p.pool.Close())
	}
	if p.compiler != nil {
		errs = append(errs, p.compiler.Close())
	}
	if p.fetch != nil {
		p.fetch.Close()
	}
	if p.kv != nil {
		p.kv.Close()
	}
	if p.engine != nil {
		errs = append(errs, p.engine.Close())
	}
	flush, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	errs = append(errs, p.tracer.Close(flush))
	cancel()
	if p.lines != nil {
		errs = append(errs, p.lines.Close())
	}
	if err := errors.Join(errs...); err != nil {
		log.Warn("closing", "err", err)
	}
}
