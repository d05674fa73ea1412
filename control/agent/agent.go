// Package agent makes a node be what the catalog says, and reports.
//
// It follows the catalog's change stream, fetches what releases name, has it
// made runnable, swaps the route table, and tells control how far it is. What
// it has it keeps on disk: a node starts and serves without control.
//
// One loop owns all state (loop.go); work that takes long runs beside it, one
// piece for each function, so that no function waits for another's failure.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/control/fleet"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/edge/replica"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// Doer sends a request, whose URL has only path and query, to control. *peer.Client is one.
type Doer interface {
	Do(r *http.Request) (*http.Response, error)
}

// Function is a version ready to run. *pool.Function is one.
type Function interface {
	Version() *function.Version
	// Release says that no route leads to it any more.
	Release()
}

// Namespaces is the KV that change streams keep fresh. *kv.Store is one.
type Namespaces interface {
	Apply(ns hostcall.Namespace, c kv.Changes)
	Reset(ns hostcall.Namespace)
	Forget(ns hostcall.Namespace)
	Limit(ns hostcall.Namespace, stale time.Duration)
	Attach(ns hostcall.Namespace, c *replica.Copy) bool
	Detach(ns hostcall.Namespace, noRoom bool)
	Own(ctx context.Context, ns hostcall.Namespace, key string, q kv.Question) (hostcall.Entry, error)
}

var _ Namespaces = (*kv.Store)(nil)

// Config wires an agent. What has no default must be set.
type Config[F Function] struct {
	// Self is what every report says of this node: Node, PoP and Region as in its certificate, Labels, Public, Build, Started.
	Self    report.Report
	Dir     string           // the agent's own folder of the node's state
	Control Doer             // reaches control
	Trust   catalog.Verifier // vouches for catalog records and changes; *identity.Anchor
	// Neighbours lists the other live nodes of this PoP, cheaply: it is asked often. nil: there are none.
	Neighbours func() []Neighbour

	// Prepare makes a version runnable out of checked bytes; pool.Pool.Prepare.
	Prepare func(ctx context.Context, v function.Version, parts pool.Parts) (F, pool.Prepared, error)
	// Target is what the routes of a release lead to that this node holds. Whether its requests go on to another is the agent's to say.
	Target func(f F, r catalog.Release) *serve.Target
	// Swap takes the next route table; serve.Handler.SetRoutes.
	Swap func(*serve.Routes)
	KV   Namespaces
	// Replica is where copies of replicated namespaces are, a folder of its own that one
	// process at a time may use, and how large they may be; without a Dir there are none.
	Replica replica.Config
	// Forget gives up what was compiled of a code that this node may no longer hold; may be nil.
	Forget func(code function.Digest) error
	// Compiled lists the codes of which something is compiled on disk; may be nil.
	Compiled func() (map[function.Digest]bool, error)

	Announce func(fleet.Head) error // tells the fleet of this node's heads; may be nil
	OnEvent  func(Event)            // must not block; may be nil
	Orders   func(report.Orders)    // takes what control wants of this node, each time it is told; may be nil
	Usage    func() []kv.SpaceUsage // what KV was asked for here, for the report; may be nil
	Draining func() bool            // whether this node drains, for the report; may be nil

	// Reign is closed when this agent is the node's only one: until then another
	// may be at work in the same folder, so that this one neither reports nor
	// writes the catalog nor removes anything. Nil: it is from the start.
	Reign <-chan struct{}
	// Hold makes the agent serve the catalog that last served well, and follow
	// control only after so long; 0: it follows at once.
	Hold time.Duration
	// Calm is after how long a catalog counts as having served well; default 1 min.
	Calm time.Duration

	Workers int           // functions made ready at once; default 2
	Settle  time.Duration // how long a start waits for all functions before it serves those it has; default 15 s
	Grace   time.Duration // how long what no release names stays on disk; default 10 min
	Beat    time.Duration // between reports when nothing changes; default 30 s
}

func (c Config[F]) withDefaults() Config[F] {
	def := func(field *time.Duration, d time.Duration) {
		if *field == 0 {
			*field = d
		}
	}
	def(&c.Settle, 15*time.Second)
	def(&c.Grace, 10*time.Minute)
	def(&c.Beat, 30*time.Second)
	def(&c.Calm, time.Minute)
	if c.Reign == nil {
		now := make(chan struct{})
		close(now)
		c.Reign = now
	}
	if c.Workers == 0 {
		c.Workers = 2
	}
	if c.Announce == nil {
		c.Announce = func(fleet.Head) error { return nil }
	}
	if c.OnEvent == nil {
		c.OnEvent = func(Event) {}
	}
	return c
}

// Validate reports every fault of c.
func (c Config[F]) Validate() error {
	var faults []error
	need := func(set bool, what string) {
		if !set {
			faults = append(faults, fmt.Errorf("agent: %s is not set", what))
		}
	}
	need(c.Dir != "", "dir")
	need(c.Control != nil, "control")
	need(c.Trust != nil, "trust")
	need(c.Prepare != nil, "prepare")
	need(c.Target != nil, "target")
	need(c.Swap != nil, "swap")
	need(c.KV != nil, "kv")
	need(c.Workers >= 0, "workers (below 0)")
	faults = append(faults, c.Self.Validate())
	return errors.Join(faults...)
}

// Agent runs a node's functions by the catalog.
type Agent[F Function] struct {
	config    Config[F]
	labels    function.Labels // what this node is
	catalog   *catalog.State
	blobs     *blobs
	pop       *pop
	relay     *changes.Relay
	serving   atomic.Int64 // blobs being sent
	answering atomic.Int64 // neighbours' questions about keys
	lending   atomic.Int64 // copies being sent
	sink      *catalogSink
	follower  *changes.Follower // of the catalog
	spaces    *spaces
	reporter  *reporter
	wake      chan struct{} // the catalog changed
	results   chan result[F]
	connected atomic.Bool
	heard     atomic.Pointer[fleet.Head]
	poked     atomic.Int64 // ns since born; 0: never
	born      time.Time
	stats     atomic.Pointer[Stats]
	retired   atomic.Bool
	routed    atomic.Pointer[map[function.ID]bool] // functions that can be run here
	work      sync.WaitGroup
	room      chan struct{}
}

// Open reads the last known good state from disk. Nothing runs before Run.
func Open[F Function](c Config[F]) (*Agent[F], error) {
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("open agent: %w", err)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open agent: %w", err)
	}
	p := newPop(c.Self.Node, c.Neighbours, c.OnEvent)
	b, err := openBlobs(filepath.Join(c.Dir, "blobs"), c.Control, p, c.OnEvent)
	if err != nil {
		return nil, fmt.Errorf("open agent: %w", err)
	}
	a := &Agent[F]{
		born:   time.Now(),
		config: c, labels: function.LabelsOf(c.Self.Node, c.Self.PoP, c.Self.Region, c.Self.Labels), catalog: catalog.NewState(c.Trust), blobs: b, pop: p,
		wake: make(chan struct{}, 1), results: make(chan result[F]), room: make(chan struct{}, c.Workers),
	}
	a.stats.Store(&Stats{})
	a.reporter = newReporter(c.Control, c.Self, c.Beat, c.OnEvent)
	a.relay = changes.NewRelay(changes.RelayConfig{Allow: a.mayFollow, Serves: a.serves})
	a.spaces = newSpaces(c, p, a.relay)
	a.reporter.orders, a.reporter.drains, a.reporter.usage, a.reporter.copies = c.Orders, c.Draining, c.Usage, a.spaces.copies
	a.sink = &catalogSink{state: a.catalog, changed: a.changed, onEvent: c.OnEvent}
	a.load()
	a.follow()
	if a.reigns() {
		a.spaces.open() // before anything is served: a node without control has nothing else
	}
	return a, nil
}

// load takes the catalog from disk. Without it the node starts empty: what is
// there is no reason not to start.
func (a *Agent[F]) load() {
	path := a.catalogPath()
	if a.config.Hold > 0 {
		if _, err := os.Stat(a.servedPath()); err == nil {
			path = a.servedPath()
		}
	}
	err := a.catalog.Load(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.config.OnEvent(Event{Kind: CatalogUnread, Err: err})
	}
}

// servedPath is where the catalog is kept that last served well.
func (a *Agent[F]) servedPath() string { return filepath.Join(a.config.Dir, "catalog.served") }

// Retire has the agent leave to another what only one of a node's may do. It
// keeps what is served up to date for as long as it runs, but for copies of
// replicated namespaces, which are the other's. It cannot be undone.
func (a *Agent[F]) Retire() {
	a.retired.Store(true)
	a.spaces.close()
}

// reigns reports whether this is the node's only agent.
func (a *Agent[F]) reigns() bool {
	select {
	case <-a.config.Reign:
		return !a.retired.Load()
	default:
		return false
	}
}

func (a *Agent[F]) catalogPath() string { return filepath.Join(a.config.Dir, "catalog") }

func (a *Agent[F]) follow() {
	a.follower = changes.NewFollower(changes.FollowerConfig{
		Open: openStream(a.config.Control), Neighbours: a.pop, Relay: a.relay,
		Verify: changes.VerifyWith(a.config.Trust), Sink: a.sink, OnEvent: a.followed,
	})
}

// follows begins to follow control's catalog, at once or after the hold.
func (a *Agent[F]) follows(ctx context.Context) {
	if a.config.Hold > 0 {
		a.config.OnEvent(Event{Kind: CatalogHeld, Took: a.config.Hold})
		select {
		case <-time.After(a.config.Hold):
		case <-ctx.Done():
			return
		}
	}
	p := a.catalog.Snapshot().Position()
	a.follower.Follow(changes.Want{Log: catalogLog, Position: changes.Position{Epoch: p.Epoch, Seq: p.Revision}})
}

// Run makes the node what the catalog says until ctx ends, and returns when
// everything it started has ended. Functions stay as they are: closing the
// pool is the caller's. Call it once.
func (a *Agent[F]) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	for _, part := range []func(context.Context){
		func(ctx context.Context) { _ = a.follower.Run(ctx) }, // returns ctx's error only
		a.follows,
		func(ctx context.Context) { a.spaces.run(ctx, a.config.Reign) },
		a.reports,
		a.loop,
	} {
		parts.Go(func() { part(ctx) })
	}
	parts.Wait()
	return ctx.Err()
}

// reports tells control of this node once this agent is the one to.
func (a *Agent[F]) reports(ctx context.Context) {
	select {
	case <-a.config.Reign:
		a.reporter.run(ctx, a.reigns)
	case <-ctx.Done():
	}
}

// Restate has the node's state reported soon: something of it changed that is not the agent's.
func (a *Agent[F]) Restate() { a.reporter.again() }

// changed wakes the loop; it never blocks.
func (a *Agent[F]) changed() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// followed is told what happens to the catalog's stream.
func (a *Agent[F]) followed(e changes.Event) {
	switch e.Kind {
	case changes.Connected:
		a.connected.Store(true)
	case changes.Disconnected:
		a.connected.Store(false)
	}
	a.config.OnEvent(streamEvent(catalogLog, e))
}

func streamEvent(log string, e changes.Event) Event {
	if e.Log != "" {
		log = e.Log
	}
	what := string(e.Kind)
	if e.Why != "" {
		what += ": " + e.Why
	}
	return Event{Kind: Stream, Log: log, What: what, Neighbour: e.From, Err: e.Err}
}

// Regroup looks at once at who follows whom: for when the PoP's members changed.
func (a *Agent[F]) Regroup() {
	a.follower.Reroute()
	a.spaces.follower.Reroute()
}

// Reached opens the change streams anew at once: for when control answers again after it did not.
func (a *Agent[F]) Reached() {
	a.follower.Retry()
	a.spaces.follower.Retry()
}

// Hear takes a head that the fleet told of. If it is ahead of this node and
// the stream is down, the stream is tried at once, at most every second: a
// hint is worth a question and no more. A neighbour that does not get there in
// time is passed over.
func (a *Agent[F]) Hear(h fleet.Head) {
	if h.Log != catalogLog {
		return
	}
	p := a.catalog.Snapshot().Position()
	if !h.After(fleet.Head{Log: h.Log, Epoch: p.Epoch, Sequence: p.Revision}) {
		return
	}
	a.heard.Store(&h)
	a.follower.Heard(h.Log, changes.Position{Epoch: h.Epoch, Seq: h.Sequence})
	now, last := max(1, int64(time.Since(a.born))), a.poked.Load() // not by the wall clock: it may be set back
	if a.connected.Load() || last != 0 && now-last < int64(time.Second) || !a.poked.CompareAndSwap(last, now) {
		return
	}
	a.follower.Retry()
}

// Catalog returns the catalog that this node follows; never nil.
func (a *Agent[F]) Catalog() *catalog.Snapshot { return a.catalog.Snapshot() }

// Stats are facts of now.
type Stats struct {
	Epoch     uint64 // the catalog's, as applied here
	Revision  uint64
	Connected bool // to the catalog's stream, control's or a neighbour's
	Behind    bool // the fleet told of a newer catalog
	Functions int  // that the catalog has
	Live      int  // whose newest release is served
	Failed    int
	Blobs     int
	Followed  int // namespaces kept fresh
	Copies    Copies

	FromControl    int // logs followed there
	FromNeighbours int // and from neighbours
	Relay          changes.RelayStats
	Fetched        Fetched
}

// Copies are those of replicated namespaces.
type Copies struct {
	Whole  int // that reads are answered from
	Others int // that are being made, or cannot be had now
	NoRoom int // namespaces without one, for want of room
	Bytes  int64

	FromNeighbours int64 // copies that came from a node of the PoP, since the start
	ToNeighbours   int64 // copies sent to nodes of the PoP
	Untrue         int64 // copies of neighbours that were not what control says
}

// Fetched counts blobs since the start.
type Fetched struct {
	FromControl    int64
	FromNeighbours int64
	Detours        int64 // asked of a neighbour in vain
	ToNeighbours   int64
}

// Stats returns them.
func (a *Agent[F]) Stats() Stats {
	s := *a.stats.Load()
	p := a.catalog.Snapshot().Position()
	s.Epoch, s.Revision, s.Connected = p.Epoch, p.Revision, a.connected.Load()
	if h := a.heard.Load(); h != nil {
		s.Behind = h.After(fleet.Head{Log: h.Log, Epoch: p.Epoch, Sequence: p.Revision})
	}
	s.Followed, s.Copies = a.spaces.count()
	c1, n1 := a.follower.Sources()
	c2, n2 := a.spaces.follower.Sources()
	s.FromControl, s.FromNeighbours, s.Relay = c1+c2, n1+n2, a.relay.Stats()
	got := &a.blobs.got
	s.Fetched = Fetched{got.control.Load(), got.neighbour.Load(), got.detours.Load(), a.blobs.sent.Load()}
	return s
}
