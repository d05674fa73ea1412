package changes

import (
	"context"
	"errors"
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
	// afterwards. Without changes it says that there was nothing more up to To at b.At. The sink may keep b.
	Apply(ctx context.Context, b *Batch) error
}

// FollowerConfig says where changes come from, who vouches for them, and where they go.
type FollowerConfig struct {
	// Open opens one stream for r; the reader is closed when the stream is given up. Required.
	Open func(ctx context.Context, r Request) (io.ReadCloser, error)
	// Verify returns the batch inside what was sealed, if a changes key that the
	// fleet's root delegated to sealed it; see VerifyWith. Required.
	Verify func(sealed []byte) (payload []byte, err error)
	// Sink takes the changes. Required.
	Sink Sink

	Idle       time.Duration  // a stream silent for so long is given up; default 20 s
	MinBackoff time.Duration  // before the first new attempt; default 100 ms
	MaxBackoff time.Duration  // default 15 s
	Jitter     func() float64 // in [0,1); default math/rand
	OnEvent    func(ev Event) // told what happens; must not block; may be nil
}

// Event is one thing that happened to a follower.
type Event struct {
	Kind EventKind
	Log  string // Resync, Refused
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
)

// Follower keeps logs followed: it opens a stream, verifies what comes, hands it
// to the sink, and opens another when the stream ends.
type Follower struct {
	cfg FollowerConfig
	mu  struct {
		sync.Mutex
		logs  map[string]*followed
		moved chan struct{} // closed and replaced when the set of logs changes
	}
}

type followed struct {
	want    Want
	started bool   // want.Position is a position, also if it is {epoch, 0}
	floor   uint64 // the highest epoch seen: the log never goes below it
}

// NewFollower returns a follower of nothing yet; Run makes it work.
func NewFollower(cfg FollowerConfig) *Follower {
	setDefault(&cfg.Idle, 20*time.Second)
	setDefault(&cfg.MinBackoff, 100*time.Millisecond)
	setDefault(&cfg.MaxBackoff, 15*time.Second)
	if cfg.Jitter == nil {
		cfg.Jitter = rand.Float64
	}
	if cfg.OnEvent == nil {
		cfg.OnEvent = func(Event) {}
	}
	f := &Follower{cfg: cfg}
	f.mu.logs = make(map[string]*followed)
	f.mu.moved = make(chan struct{})
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
	added := false
	for _, w := range wants {
		if f.mu.logs[w.Log] == nil {
			f.mu.logs[w.Log] = &followed{want: w, started: w.Position != Position{}, floor: w.Epoch}
			added = true
		}
	}
	if added {
		f.wake()
	}
}

// Unfollow drops logs; a batch of one that is being applied is finished first or not begun.
func (f *Follower) Unfollow(logs ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range logs {
		delete(f.mu.logs, l)
	}
	f.wake()
}

// Retry opens the stream anew at once, every log where it is: for who was told that there is more.
func (f *Follower) Retry() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wake()
}

// wake ends the stream of now so that Run opens one for the logs of now.
func (f *Follower) wake() {
	close(f.mu.moved)
	f.mu.moved = make(chan struct{})
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
	backoff := f.cfg.MinBackoff
	for ctx.Err() == nil {
		moved, req := f.plan()
		if len(req.Logs) == 0 {
			wait(ctx, moved, -1)
			continue
		}
		heard, err := f.follow(ctx, moved, req)
		if errors.Is(err, errMoved) || errors.Is(err, errRetry) || ctx.Err() != nil {
			backoff = f.cfg.MinBackoff
			continue
		}
		f.cfg.OnEvent(Event{Kind: Disconnected, Err: err})
		if heard {
			backoff = f.cfg.MinBackoff
		}
		// Full jitter: a control node that comes back must not meet everyone at once.
		wait(ctx, moved, f.cfg.MinBackoff/2+time.Duration(f.cfg.Jitter()*float64(backoff)))
		backoff = min(2*backoff, f.cfg.MaxBackoff)
	}
	return ctx.Err()
}

// wait returns after d (never if negative), when moved is closed, or when ctx is done.
func wait(ctx context.Context, moved <-chan struct{}, d time.Duration) {
	var after <-chan time.Time
	if d >= 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-ctx.Done():
	case <-moved:
	case <-after:
	}
}

// plan returns the request for the logs of now, and what is closed when they change.
func (f *Follower) plan() (moved <-chan struct{}, r Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.mu.logs {
		r.Logs = append(r.Logs, l.want)
	}
	return f.mu.moved, r
}

// followed returns the log's state; nil if it is not followed.
func (f *Follower) followed(log string) *followed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.logs[log]
}

// move notes how far a log is; started is false when it has to begin again.
func (f *Follower) move(l *followed, p Position, started bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l.want.Position, l.started = p, started
	l.floor = max(l.floor, p.Epoch)
}
