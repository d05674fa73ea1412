package changes

import (
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

// Sink is where followed changes go. Calls come one at a time. An error stops
// the stream; it is opened again later at the position before the failed call.
type Sink interface {
	// Reset forgets all of log: what follows replaces it.
	Reset(ctx context.Context, log string, epoch uint64) error
	// Apply takes the next changes of b.Log: verified, in order, nothing left out
	// and nothing that was applied before. b.From is the position so far (except
	// for the first batch with Tail, which says where the log begins), b.To the one
	// afterwards. Without changes it says that there was nothing more up to To at b.At; with a Head, that
	// b is a page, and what is there is not everything before that. The sink may keep b.
	Apply(ctx context.Context, b *Batch) error
}

// FollowerConfig says where changes come from, who vouches for them, and where they go.
type FollowerConfig struct {
	// Open opens one stream on control for r; the reader is closed when the stream is given up. Required.
	Open func(ctx context.Context, r Request) (io.ReadCloser, error)
	// Neighbours are followed instead of control where they name a parent; nil: control always.
	Neighbours Neighbourhood
	// Verify returns the batch inside what was sealed, if a changes key that the
	// fleet's root delegated to sealed it; see VerifyWith. Required.
	Verify func(sealed []byte) (payload []byte, err error)
	// Sink takes the changes. Required.
	Sink Sink
	// Relay keeps what was applied for neighbours; may be nil, and shared.
	Relay *Relay

	Idle       time.Duration  // a stream of control's silent for so long is given up; default 20 s
	Quiet      time.Duration  // the same for a neighbour's, which beats every second; default 5 s
	Behind     time.Duration  // how long a neighbour may stay behind a head that was heard of; default 3 s
	Stale      time.Duration  // how long a neighbour may bring nothing newly signed; default 25 s
	MinBackoff time.Duration  // before the first new attempt; default 100 ms
	MaxBackoff time.Duration  // default 5 s: after an outage, how much later than its end a log is followed again
	Jitter     func() float64 // in [0,1); default math/rand
	OnEvent    func(ev Event) // told what happens; must not block; may be nil
}

// Event is one thing that happened to a follower.
type Event struct {
	Kind EventKind
	Log  string // Resync, Refused, Aside
	From string // the neighbour it is about; "" is control
	Why  string // Aside
	Err  error  // Disconnected, Refused: why
}

// EventKind names an Event.
type EventKind string

// The events.
const (
	Connected    EventKind = "connected"
	Disconnected EventKind = "disconnected"
	Resync       EventKind = "resync"
	Refused      EventKind = "refused"
	Aside        EventKind = "aside" // the neighbour does not serve the log now: control does for a while
)

// Follower keeps logs followed: it opens streams, verifies what comes, hands it
// to the sink, and opens another when a stream ends. There is one stream to control and one
// to each neighbour that logs are followed from, each with a lane of its own (lane.go).
type Follower struct {
	cfg     FollowerConfig
	replan  chan struct{} // holds a token when route has something to do
	applied sync.Mutex    // held over each call of the sink
	mu      struct {
		sync.Mutex
		logs  map[string]*followed
		lanes map[string]*lane // by neighbour; "" is control's
	}
}

// followed is one log; Follower.mu guards it.
type followed struct {
	want    Want
	started bool   // want.Position is a position, also if it is {epoch, 0}
	floor   uint64 // the highest epoch seen: the log never goes below it
	at      source
}

// NewFollower returns a follower of nothing yet; Run makes it work.
func NewFollower(cfg FollowerConfig) *Follower {
	setDefault(&cfg.Idle, 20*time.Second)
	setDefault(&cfg.Quiet, 5*time.Second)
	setDefault(&cfg.Behind, 3*time.Second)
	setDefault(&cfg.Stale, 25*time.Second)
	setDefault(&cfg.MinBackoff, 100*time.Millisecond)
	setDefault(&cfg.MaxBackoff, 5*time.Second)
	if cfg.Jitter == nil {
		cfg.Jitter = rand.Float64
	}
	if cfg.OnEvent == nil {
		cfg.OnEvent = func(Event) {}
	}
	if cfg.Neighbours == nil {
		cfg.Neighbours = alone{}
	}
	f := &Follower{cfg: cfg, replan: make(chan struct{}, 1)}
	f.mu.logs = make(map[string]*followed)
	f.mu.lanes = make(map[string]*lane)
	return f
}

func setDefault(d *time.Duration, def time.Duration) {
	if *d <= 0 {
		*d = def
	}
}

// Follow adds logs, each from its position (the zero Position: from the
// beginning, or from the head if Tail). A log that is followed already stays
// where it is. Adding opens the stream anew at once.
func (f *Follower) Follow(wants ...Want) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range wants {
		if f.mu.logs[w.Log] == nil {
			f.mu.logs[w.Log] = &followed{want: w, started: w.Position != Position{}, floor: w.Epoch}
		}
	}
	f.wake()
}

// Unfollow drops logs; a batch of one that is being applied is finished first or not begun.
func (f *Follower) Unfollow(logs ...string) {
	f.mu.Lock()
	for _, log := range logs {
		if l := f.mu.logs[log]; l != nil {
			delete(f.mu.logs, log)
			f.poke(l.at.via)
		}
	}
	f.mu.Unlock()
	for _, log := range logs {
		f.cfg.Relay.forget(log)
	}
}

// Retry opens the streams anew at once, every log where it is: for who was told that there is more.
func (f *Follower) Retry() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for via := range f.mu.lanes {
		f.poke(via)
	}
}

// Reroute looks at once whether a log has another parent now; it is looked at every second too.
func (f *Follower) Reroute() { f.wake() }

// wake has Run look at the routes.
func (f *Follower) wake() {
	select {
	case f.replan <- struct{}{}:
	default:
	}
}

// Position returns how far log was applied, for saving; false before the first batch or if it is not followed.
func (f *Follower) Position(log string) (Position, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.mu.logs[log]
	if l == nil || !l.started {
		return Position{}, false
	}
	return l.want.Position, true
}

// Run follows until ctx is done and returns its error. Call it once.
func (f *Follower) Run(ctx context.Context) error {
	var lanes sync.WaitGroup
	defer lanes.Wait()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	if _, alone := f.cfg.Neighbours.(alone); alone {
		tick.Stop() // nothing changes by itself
	}
	for {
		for _, l := range f.route() {
			lanes.Go(func() { f.drive(ctx, l) })
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.replan:
		case <-tick.C:
		}
	}
}

// take returns the log's state if lane via may move it now; nil if another does, or none.
// The caller holds f.applied, so that it stays so while it applies.
func (f *Follower) take(log, via string) *followed {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := f.mu.logs[log]; l != nil && l.at.placed && l.at.via == via {
		return l
	}
	return nil
}

// move notes how far a log is; started is false when it has to begin again.
func (f *Follower) move(l *followed, p Position, started bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l.want.Position, l.started, l.want.Proof = p, started, nil
	l.floor = max(l.floor, p.Epoch)
}
