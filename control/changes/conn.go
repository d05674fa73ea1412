package changes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// conn is one stream of a follower.
type conn struct {
	f      *Follower
	lane   *lane
	quiet  time.Duration
	cancel context.CancelCauseFunc
	idle   *time.Timer
	retry  *time.Timer // runs once a log was refused
	body   io.ReadCloser
}

var (
	errMoved = errors.New("changes: the logs to follow changed")
	errIdle  = errors.New("changes: the stream went silent")
	errRetry = errors.New("changes: a refused log is asked for again")
)

// ErrOrder is in the error of a stream whose batches do not follow on one another.
var ErrOrder = errors.New("changes: a batch that does not continue the log")

// follow follows one stream to its end. heard says that something valid came.
func (f *Follower) follow(ctx context.Context, l *lane, moved <-chan struct{}, req Request) (heard bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &conn{f: f, lane: l, quiet: f.cfg.Idle, cancel: cancel}
	if l.via != "" {
		c.quiet = f.cfg.Quiet
	}
	c.idle = time.AfterFunc(c.quiet, func() { cancel(errIdle) })
	defer c.idle.Stop()
	defer cancelOn(ctx, moved, func() { cancel(errMoved) })()
	defer func() {
		if c.retry != nil {
			c.retry.Stop()
		}
	}()
	if c.body, err = f.open(ctx, l.via, req); err != nil {
		return false, fmt.Errorf("changes: open stream: %w", cause(ctx, err))
	}
	defer c.body.Close()
	// A body that ignores the context is closed under a pending Read.
	defer context.AfterFunc(ctx, func() { c.body.Close() })()
	for {
		if err := c.step(ctx); err != nil {
			return heard, cause(ctx, err)
		}
		if !heard {
			heard = true
			f.set(l, true)
			f.cfg.OnEvent(Event{Kind: Connected, From: l.via})
		}
	}
}

func (f *Follower) open(ctx context.Context, via string, req Request) (io.ReadCloser, error) {
	if via == "" {
		return f.cfg.Open(ctx, req)
	}
	return f.cfg.Neighbours.Open(ctx, via, req)
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

// step takes one frame.
func (c *conn) step(ctx context.Context) error {
	kind, payload, err := readFrame(c.body)
	if err != nil {
		return fmt.Errorf("changes: read stream: %w", err)
	}
	// Applying may take longer than the stream may be silent.
	c.idle.Stop()
	defer c.idle.Reset(c.quiet)
	switch kind {
	case frameHeartbeat:
		return nil
	case frameNotice:
		return c.notice(ctx, payload)
	case frameBatch:
		return c.batch(ctx, payload)
	}
	return fmt.Errorf("%w: kind %d is unknown", errFrame, kind)
}

func (c *conn) notice(ctx context.Context, payload []byte) error {
	n, err := decodeNotice(payload)
	if err != nil {
		return err
	}
	if c.lane.via != "" {
		return c.declined(n)
	}
	c.f.applied.Lock()
	defer c.f.applied.Unlock()
	l := c.f.take(n.Log, "")
	if l == nil {
		return nil
	}
	switch n.Code {
	case noticeResync:
		return c.resync(ctx, l, n.Epoch)
	case noticeRefused:
		c.refused(l, n)
		return nil
	}
	return fmt.Errorf("%w: notice %.40q is unknown", errFrame, n.Code)
}

// declined asks control for the log instead. That a log begins again is for control alone to say.
func (c *conn) declined(n notice) error {
	switch n.Code {
	case noticeResync, noticeRefused, noticeBelow:
		c.f.aside(n.Log, c.lane.via, n.Code+": "+n.Detail)
		return nil
	}
	return fmt.Errorf("%w: notice %.40q is unknown", errFrame, n.Code)
}

// resync begins a log again. A notice is not signed: whoever serves the stream
// may withhold anyway, and what replaces the log is verified like everything.
func (c *conn) resync(ctx context.Context, l *followed, epoch uint64) error {
	if !l.started {
		return nil
	}
	c.f.cfg.OnEvent(Event{Kind: Resync, Log: l.want.Log})
	if err := c.f.cfg.Sink.Reset(ctx, l.want.Log, epoch); err != nil {
		return fmt.Errorf("%w: reset %s: %w", errSink, l.want.Log, err)
	}
	c.f.cfg.Relay.forget(l.want.Log)
	c.f.move(l, Position{}, false)
	return nil
}

// refused asks again for everything after a while: the log may be allowed by
// then. A control node whose log is below the position is shown, soon, that it once was above.
func (c *conn) refused(l *followed, n notice) {
	c.f.cfg.OnEvent(Event{Kind: Refused, Log: l.want.Log, Err: errors.New(n.Detail)})
	after := c.f.cfg.MaxBackoff
	if n.Epoch != 0 && c.f.prove(l, Position{Epoch: n.Epoch, Seq: n.Seq}) {
		after = min(after, proveAfter)
	}
	if c.retry == nil {
		c.retry = time.AfterFunc(after, func() { c.cancel(errRetry) })
	}
}

// proveAfter is how soon a proof is sent.
const proveAfter = time.Second

// prove adds to the log's next request what shows that its head was above this one;
// false if there is nothing, or it was sent before.
func (f *Follower) prove(l *followed, head Position) bool {
	proof := f.cfg.Relay.above(l.want.Log, head)
	f.mu.Lock()
	defer f.mu.Unlock()
	first := proof != nil && l.want.Proof == nil
	l.want.Proof = proof
	return first
}

func (c *conn) batch(ctx context.Context, sealed []byte) error {
	payload, err := c.f.cfg.Verify(sealed)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrForged, err)
	}
	b, err := DecodeBatch(payload)
	if err != nil {
		return err
	}
	c.f.applied.Lock()
	defer c.f.applied.Unlock()
	l := c.f.take(b.Log, c.lane.via)
	if l == nil {
		return nil // dropped or moved meanwhile, or never asked for
	}
	if err := l.fits(b); err != nil {
		return err
	}
	whole, moves := *b, !l.started || b.To > l.want.Seq
	if l.started {
		if b.To < l.want.Seq {
			return nil // had it
		}
		b.skip(l.want.Seq)
	}
	if err := c.f.cfg.Sink.Apply(ctx, b); err != nil {
		return fmt.Errorf("%w: %s up to %d: %w", errSink, b.Log, b.To, err)
	}
	c.f.move(l, Position{Epoch: b.Epoch, Seq: b.To}, true)
	c.f.note(l, &whole, moves)
	c.f.cfg.Relay.keep(&whole, sealed)
	return nil
}

// fits reports whether b may be applied at the log's position.
func (l *followed) fits(b *Batch) error {
	switch {
	case b.Epoch < l.floor:
		return fmt.Errorf("%w: %s is of epoch %d, after %d", ErrOrder, b.Log, b.Epoch, l.floor)
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
	b.Changes, b.From, b.cut = b.Changes[i:], max(b.From, seq), b.cut || i > 0
}
