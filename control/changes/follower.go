package changes

import (
	"context"
	"errors"
	"fmt"
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
	// and nothing that was applied before. b.From is the position so far, b.To the
	// one afterwards. The sink may keep b.
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
	started bool // want.Position is a position, also if it is {epoch, 0}
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
			f.mu.logs[w.Log] = &followed{want: w, started: w.Position != Position{}}
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
		heard, err := f.stream(ctx, moved, req)
		if errors.Is(err, errMoved) || ctx.Err() != nil {
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

var (
	errMoved = errors.New("changes: the logs to follow changed")
	errIdle  = errors.New("changes: the stream went silent")
)

// stream follows one stream to its end. heard says that something valid came.
func (f *Follower) stream(ctx context.Context, moved <-chan struct{}, req Request) (heard bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(f.cfg.Idle, func() { cancel(errIdle) })
	defer idle.Stop()
	stopMoved := cancelOn(ctx, moved, func() { cancel(errMoved) })
	defer stopMoved()

	body, err := f.cfg.Open(ctx, req)
	if err != nil {
		return false, fmt.Errorf("changes: open stream: %w", cause(ctx, err))
	}
	// A body that ignores the context is closed under a pending Read.
	stopClose := context.AfterFunc(ctx, func() { body.Close() })
	defer func() {
		stopClose()
		body.Close()
	}()
	for {
		kind, payload, err := readFrame(body)
		if err != nil {
			return heard, fmt.Errorf("changes: read stream: %w", cause(ctx, err))
		}
		if err := f.frame(ctx, kind, payload); err != nil {
			return heard, cause(ctx, err)
		}
		if !heard {
			heard = true
			f.cfg.OnEvent(Event{Kind: Connected})
		}
		idle.Reset(f.cfg.Idle)
	}
}

// cancelOn calls stop when c is closed; the returned func ends the watch and waits for it.
func cancelOn(ctx context.Context, c <-chan struct{}, stop func()) func() {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-c:
			stop()
		case <-ctx.Done():
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// cause prefers the reason the stream was given up to the error that it led to.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

func (f *Follower) frame(ctx context.Context, kind frameKind, payload []byte) error {
	switch kind {
	case frameHeartbeat:
		return nil
	case frameNotice:
		n, err := decodeNotice(payload)
		if err != nil {
			return err
		}
		return f.notice(ctx, n)
	case frameBatch:
		return f.batch(ctx, payload)
	}
	return fmt.Errorf("%w: kind %d is unknown", errFrame, kind)
}

func (f *Follower) notice(ctx context.Context, n notice) error {
	switch n.Code {
	case noticeResync:
		return f.resync(ctx, n.Log, n.Epoch)
	case noticeRefused:
		f.cfg.OnEvent(Event{Kind: Refused, Log: n.Log, Err: errors.New(n.Detail)})
		return nil
	}
	return fmt.Errorf("%w: notice %.40q is unknown", errFrame, n.Code)
}

// resync begins a log again. A notice is not signed: whoever serves the stream
// may withhold anyway, and what replaces the log is verified like everything.
func (f *Follower) resync(ctx context.Context, log string, epoch uint64) error {
	l := f.followed(log)
	if l == nil || !l.started {
		return nil
	}
	f.cfg.OnEvent(Event{Kind: Resync, Log: log})
	return f.restart(ctx, l, epoch)
}

func (f *Follower) restart(ctx context.Context, l *followed, epoch uint64) error {
	if err := f.cfg.Sink.Reset(ctx, l.want.Log, epoch); err != nil {
		return fmt.Errorf("changes: reset %s: %w", l.want.Log, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l.want.Position, l.started = Position{}, false
	return nil
}

func (f *Follower) followed(log string) *followed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.logs[log]
}

// ErrOrder is in the error of a stream whose batches do not follow on one another.
var ErrOrder = errors.New("changes: a batch that does not continue the log")

func (f *Follower) batch(ctx context.Context, sealed []byte) error {
	payload, err := f.cfg.Verify(sealed)
	if err != nil {
		return fmt.Errorf("changes: verify batch: %w", err)
	}
	b, err := DecodeBatch(payload)
	if err != nil {
		return err
	}
	l := f.followed(b.Log)
	if l == nil {
		return nil // dropped meanwhile, or never asked for
	}
	if err := l.fits(b); err != nil {
		return err
	}
	if l.started && b.To <= l.want.Seq {
		return nil // had it
	}
	if l.started {
		b.skip(l.want.Seq)
	}
	return f.apply(ctx, l, b)
}

func (f *Follower) apply(ctx context.Context, l *followed, b *Batch) error {
	if err := f.cfg.Sink.Apply(ctx, b); err != nil {
		return fmt.Errorf("changes: apply %s up to %d: %w", b.Log, b.To, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l.want.Position, l.started = Position{Epoch: b.Epoch, Seq: b.To}, true
	return nil
}

// fits reports whether b may be applied at the log's position.
func (l *followed) fits(b *Batch) error {
	switch {
	case !l.started && (l.want.Tail || b.From == 0):
		return nil
	case !l.started:
		return fmt.Errorf("%w: %s begins at %d instead of 0", ErrOrder, b.Log, b.From)
	case b.Epoch != l.want.Epoch:
		return fmt.Errorf("%w: %s is of epoch %d, the position of %d", ErrOrder, b.Log, b.Epoch, l.want.Epoch)
	case b.From > l.want.Seq:
		return fmt.Errorf("%w: %s continues from %d, the position is %d", ErrOrder, b.Log, b.From, l.want.Seq)
	}
	return nil
}

// skip cuts off what lies at or before seq.
func (b *Batch) skip(seq uint64) {
	i := 0
	for i < len(b.Changes) && b.Changes[i].Seq <= seq {
		i++
	}
	b.Changes, b.From = b.Changes[i:], max(b.From, seq)
}
