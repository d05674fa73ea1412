// Package node wires the serving process of an edge node: what it is made of,
// in which order it starts, and in which it ends.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/control/agent"
	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/fleet"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/edge/invoke"
	"github.com/selvage-edge/selvage/edge/keeper"
	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/edge/replica"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/plain"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// How long requests under way may take to end: after SIGTERM, and when another
// server has taken over, so that nobody waits. The keeper waits a little longer before it kills.
const (
	drainLimit    = 25 * time.Second
	handoverLimit = 2 * time.Minute
)

// handoverPause is between another server's taking over and the end of our
// listeners: handshakes that began with us end with us.
const handoverPause = 500 * time.Millisecond

// firstTable is how long connections may queue at the sockets while the first
// route table is made; a server that replaces one that died has it in a moment.
// Beside a server that serves there is time to compile everything, as another engine must.
const (
	firstTable       = 20 * time.Second
	firstTableBeside = 4 * time.Minute
)

// holdCatalog is how long a server that was told to keep to what last served
// well does not ask for anything newer.
const holdCatalog = 10 * time.Minute

// node is one running server.
type node struct {
	cfg   config.Edge
	build string
	log   *slog.Logger
	att   *keeper.Attached

	secret []byte
	member *place
	path   *dataPath
	orders *orders
	agent  *agent.Agent[*pool.Function]
	routed chan struct{} // closed when the first route table is in use
	once   sync.Once
}

// Run serves until ctx ends, then drains; it is the whole life of the process
// that a keeper starts. Build is the program's version.
func Run(ctx context.Context, cfg config.Edge, build string) error {
	n := &node{cfg: cfg, build: build, routed: make(chan struct{})}
	n.log = slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: config.Level(cfg.Log.Level), ReplaceAttr: plain.Attr})).With("node", cfg.Node.Name)
	var err error
	if n.att, err = keeper.Attach(); err != nil {
		return err
	}
	defer n.att.Close()
	if n.secret, err = openSecret(filepath.Join(cfg.Node.State, "secret", "node.key")); err != nil {
		return err
	}
	if n.member, err = n.join(ctx); err != nil {
		return err
	}
	defer n.member.close()
	if n.path, err = n.openDataPath(); err != nil {
		return err
	}
	defer n.path.close(n.log)
	if err = n.lockIn(); err != nil {
		return err
	}
	if n.orders, err = openOrders(filepath.Join(cfg.Node.State, "orders.json"), n.follow); n.orders == nil {
		return err
	}
	if err != nil {
		n.log.Warn("starting without last orders", "err", err)
	}
	if n.agent, err = n.openAgent(); err != nil {
		return err
	}
	if n.path.peer, err = n.peerServer(); err != nil {
		return err
	}
	return n.run(ctx)
}

// run starts everything that goes on, and ends it in the reverse order.
func (n *node) run(ctx context.Context) error {
	// What keeps the node up to date goes on while requests drain.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop()
	parts.Go(func() { _ = n.agent.Run(background) }) // returns the context's error only
	parts.Go(func() { n.path.geo.Run(background) })
	office := n.openOffice(background)
	defer office.close()
	n.awaitRoutes(ctx)
	n.path.start()
	if err := n.att.Ready(); err != nil {
		return err
	}
	n.log.Info("serving", "public", n.cfg.Listen.Public, "pop", n.cfg.Node.PoP, "build", n.build, "beside", n.att.Beside())
	headroom := Headroom()
	defer runtime.KeepAlive(headroom)
	var err error
	select {
	case <-ctx.Done():
	case <-n.att.Retire():
		return n.handOver(ctx, office)
	case err = <-n.path.failed:
	case <-n.att.Lost():
		err = errors.New("the keeper is gone")
	}
	office.leave()
	return errors.Join(err, n.path.drain(n.log, drainLimit))
}

// handOver ends a server whose successor serves: first what only one of them
// may do, then, when nothing new comes any more, what is under way.
func (n *node) handOver(ctx context.Context, office *office) error {
	n.log.Info("another server has taken over")
	office.close()
	if err := n.att.Retired(); err != nil {
		return err
	}
	select {
	case <-time.After(handoverPause):
	case <-ctx.Done(): // the node is stopped: no time for that
		return n.path.drain(n.log, drainLimit)
	}
	return n.path.drain(n.log, handoverLimit)
}

// awaitRoutes waits for the first route table, so that no connection that waits
// at the sockets is told that there are no routes yet.
func (n *node) awaitRoutes(ctx context.Context) {
	wait := firstTable
	if n.att.Beside() {
		wait = firstTableBeside
	}
	limit := time.NewTimer(wait)
	defer limit.Stop()
	select {
	case <-n.routed:
	case <-limit.C:
		n.log.Warn("serving without a route table: neither this node's disk nor control has given one", "waited", wait.String())
	case <-ctx.Done():
	}
}

// swap takes the agent's next route table.
func (n *node) swap(t *serve.Routes) {
	n.path.handler.SetRoutes(t)
	n.once.Do(func() { close(n.routed) })
}

// follow does what control orders. /readyz and the next report tell of it.
func (n *node) follow(o report.Orders) {
	was := n.path.handler.Draining()
	n.path.handler.SetDraining(o.Drain)
	if n.path.ending.Load() {
		n.path.handler.SetDraining(true)
	}
	if was != o.Drain {
		n.log.Info("orders from control", "drain", o.Drain)
		if n.agent != nil {
			n.agent.Restate()
		}
	}
}

func (n *node) openAgent() (*agent.Agent[*pool.Function], error) {
	var hold, settle time.Duration
	if n.att.Held() {
		hold = holdCatalog
	}
	if n.att.Beside() {
		settle = firstTableBeside // a table that lacks functions would be worse than the old server's
	}
	a, err := agent.Open(agent.Config[*pool.Function]{
		Reign: n.att.Reign(), Hold: hold, Settle: settle,
		Self: report.Report{Node: n.cfg.Node.Name, PoP: n.member.peer().PoP, Region: n.member.peer().Region, Labels: n.cfg.Node.LabelList(),
			Public: config.Reach(n.cfg.Listen.Public, n.cfg.Listen.Advertise), Build: n.build, Started: time.Now()},
		Dir:     filepath.Join(n.cfg.Node.State, "agent"),
		Control: n.member.control,
		Trust:   n.member.id.Member.Anchor(), Neighbours: n.member.neighbours,
		Prepare: n.path.pool.Prepare,
		Target: func(f *pool.Function, _ catalog.Release) *serve.Target {
			t := invoke.New(f, n.ports())
			t.Where = n.path.geo
			return &serve.Target{Version: f.Version(), Invoker: t}
		},
		Swap:     n.swap,
		KV:       n.path.kv,
		Replica:  n.replica(),
		Forget:   n.path.artifacts.Drop,
		Compiled: n.path.artifacts.Codes,
		Announce: n.member.announce,
		OnEvent:  n.told,
		Usage:    n.path.kv.Usage,
		Draining: n.orders.draining,
		Orders: func(o report.Orders) {
			if err := n.orders.take(o); err != nil {
				n.log.Error("control's orders cannot be followed", "err", err)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	n.gauges(a)
	return a, nil
}

// replica is where copies of replicated namespaces are.
func (n *node) replica() replica.Config {
	if n.cfg.Limits.Replica == 0 {
		return replica.Config{}
	}
	return replica.Config{Dir: filepath.Join(n.cfg.Node.State, "replica"), Bytes: n.cfg.Limits.Replica}
}

// owner is the neighbour that looks after a KV key. Guests, whose reads ask for it, run
// only once the agent does.
func (n *node) owner(ns hostcall.Namespace, key string) kv.Owner {
	if n.agent == nil {
		return nil
	}
	return n.agent.Owner(ns, key)
}

// ports are what functions' host calls reach.
func (n *node) ports() guest.Ports {
	return guest.Ports{KV: n.path.tracer.TraceKV(n.path.kv), Fetch: n.path.tracer.TraceFetch(n.path.fetch), Log: n.path.lines}
}

// told logs what the agent tells of.
func (n *node) told(e agent.Event) {
	level := slog.LevelInfo
	if e.Err != nil {
		level = slog.LevelWarn
	}
	var attrs []slog.Attr
	if e.Function.Name != "" {
		attrs = append(attrs, slog.String("project", e.Function.Project), slog.String("function", e.Function.Name),
			slog.Uint64("release", e.Release))
	}
	if e.Digest != "" {
		attrs = append(attrs, slog.String("digest", e.Digest.Short()))
	}
	if e.Took > 0 {
		attrs = append(attrs, slog.Float64("took_ms", float64(e.Took.Microseconds())/1000))
	}
	if e.Kind == agent.CatalogHeld {
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("means", "servers ended again and again: what last served well is served, and no deployment is followed for so long"),
			slog.String("do", "mend what ended them; 'selvage edge upgrade' follows control at once"))
	}
	if e.Kind == agent.Swapped {
		attrs = append(attrs, slog.Int("routes", e.Routes))
	}
	if e.Log != "" {
		attrs = append(attrs, slog.String("log", e.Log), slog.String("what", e.What))
	}
	if e.Neighbour != "" {
		attrs = append(attrs, slog.String("neighbour", e.Neighbour))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("err", e.Err.Error()))
	}
	n.log.LogAttrs(context.Background(), level, "agent: "+string(e.Kind), attrs...)
}

func (n *node) gossip() (*fleet.Fleet, error) {
	listen := n.cfg.Listen
	g, err := fleet.Join(fleet.Config{
		Fleet: n.member.id.Member.Peer().Fleet, Name: n.cfg.Node.Name, Key: n.member.id.GossipKey,
		Meta: fleet.Meta{Role: fleet.Node, PoP: n.member.peer().PoP, Region: n.member.peer().Region,
			Public: config.Reach(listen.Public, listen.Advertise), Peer: config.Reach(listen.Peer, listen.Advertise), Version: n.build,
			Draining: n.path.handler.Draining(), Site: n.site(), Labels: strings.Join(n.cfg.Node.LabelList(), ",")},
		Bind: listen.Gossip, Advertise: config.Reach(listen.Gossip, listen.Advertise),
		Seeds: n.member.id.Seeds, SeedsFile: filepath.Join(n.cfg.Node.State, "seeds.json"),
		OnHead: n.agent.Hear, OnEvent: n.heard, Log: n.log.With("room", "fleet"),
	})
	if err != nil {
		return nil, fmt.Errorf("membership: %w", err)
	}
	return g, nil
}

func (n *node) heard(e fleet.Event) {
	level := slog.LevelInfo
	if e.Kind == fleet.Conflict {
		level = slog.LevelError // two nodes of one name: the operator must give one of them another
	}
	n.log.Log(context.Background(), level, "fleet: "+e.Kind.String(), "member", e.Member.Name, "pop", e.Member.Meta.PoP)
	n.regroup()
}

// regroup has the agent look again at who follows whom in this PoP.
func (n *node) regroup() {
	n.member.near.look()
	n.member.others.look()
	n.agent.Regroup()
}
