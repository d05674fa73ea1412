package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// ErrAway is in the error of a Reach's request that failed because the peer is away.
// Unsent says whether it was sent before that was known.
var ErrAway = errors.New("the peer does not answer")

// Line is what a Reach sends by; *Client is one.
type Line interface {
	Do(*http.Request) (*http.Response, error)
	// Sign returns nil once the peer has given a sign of life, however it answers.
	Sign(ctx context.Context) error
	// Heard is when anything came from the peer last; the zero time: never.
	Heard() time.Time
	// Drop ends the connections that were made before a time.
	Drop(before time.Time)
}

var _ Line = (*Client)(nil)

// ReachConfig says how long silence may be.
type ReachConfig struct {
	Line     Line          // required
	Patience time.Duration // silence during a request before a sign of life is asked for; default 1 s
	Quiet    time.Duration // silence before a request that has to be preceded by one; default 12 s, more than two beats of a change stream
	Sign     time.Duration // for a sign of life to come; default 2 s
	Again    time.Duration // between signs asked for of a peer that is away; each may take twice as long; default 500 ms
	// OnChange is told when the peer is taken to be away, and when it is back; in order; it must not block. May be nil.
	OnChange func(away bool)
}

func (c *ReachConfig) defaults() {
	setDefault(&c.Patience, time.Second)
	setDefault(&c.Quiet, 12*time.Second)
	setDefault(&c.Sign, 2*time.Second)
	setDefault(&c.Again, 500*time.Millisecond)
	if c.OnChange == nil {
		c.OnChange = func(bool) {}
	}
}

func setDefault(d *time.Duration, def time.Duration) {
	if *d <= 0 {
		*d = def
	}
}

// Reach sends requests while the peer answers, and fails them at once while it is known to
// be away. A request without an answer says nothing by itself: the peer may be slow.
// So where nothing at all was heard of the peer for a while it is asked for a sign of life,
// by one request for all who wait. If that gets none either the peer is away: what is under way
// fails, what comes fails before it is sent, and a sign is asked for until one is given.
// A peer that refuses connections is not away: that fails at once by itself.
type Reach struct {
	cfg     ReachConfig
	ctx     context.Context
	stop    context.CancelFunc
	work    sync.WaitGroup
	refused atomic.Uint64
	mu      struct {
		sync.Mutex
		closed   bool
		watching bool      // watch runs
		away     time.Time // since when nothing was heard of a peer that is away; zero: it is not
		signing  *sign     // what is asked for now
		calls    map[*reached]struct{}
	}
}

// sign is one question for a sign of life.
type sign struct{ done chan struct{} }

// reached is one request under way.
type reached struct {
	began  time.Time
	cancel context.CancelCauseFunc
}

// NewReach returns one that takes the peer to be there. Close ends it.
func NewReach(c ReachConfig) *Reach {
	c.defaults()
	r := &Reach{cfg: c}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.mu.calls = map[*reached]struct{}{}
	return r
}

// Close fails what is under way and waits for the questions after the peer.
func (r *Reach) Close() {
	r.mu.Lock()
	r.mu.closed = true
	r.cancelAll(ErrClosed)
	r.mu.Unlock()
	r.stop()
	r.work.Wait()
}

// ReachStats are a Reach's.
type ReachStats struct {
	Away    bool
	Refused uint64 // requests that were not sent because of that
}

// Stats returns them.
func (r *Reach) Stats() ReachStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return ReachStats{Away: !r.mu.away.IsZero(), Refused: r.refused.Load()}
}

// Do sends q as Client.Do does.
func (r *Reach) Do(q *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(q.Context())
	c, err := r.begin(ctx, cancel)
	if err != nil {
		cancel(nil)
		r.refused.Add(1)
		return nil, &errDial{fmt.Errorf("%s %s: %w", q.Method, q.URL.Path, err)}
	}
	end := func() { r.end(c); cancel(nil) }
	resp, err := r.cfg.Line.Do(q.WithContext(ctx))
	if err != nil {
		end()
		return nil, err
	}
	resp.Body = &body{&reachedBody{resp.Body, ctx}, end}
	return resp, nil
}

// reachedBody says why it ended.
type reachedBody struct {
	io.ReadCloser
	ctx context.Context
}

func (b *reachedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && errors.Is(context.Cause(b.ctx), ErrAway) {
		err = context.Cause(b.ctx)
	}
	return n, err
}

// begin notes a request that may be sent, after a sign of life if nothing was heard for long.
func (r *Reach) begin(ctx context.Context, cancel context.CancelCauseFunc) (*reached, error) {
	if err := r.quiet(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.refuse(); err != nil {
		return nil, err
	}
	c := &reached{began: time.Now(), cancel: cancel}
	r.mu.calls[c] = struct{}{}
	r.watched()
	return c, nil
}

func (r *Reach) end(c *reached) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.calls, c)
}

// refuse says why nothing is sent now. r.mu is held.
func (r *Reach) refuse() error {
	if r.mu.closed {
		return ErrClosed
	}
	if !r.mu.away.IsZero() {
		return fmt.Errorf("%w: nothing was heard of it for %v", ErrAway, time.Since(r.mu.away).Round(time.Second))
	}
	return nil
}

// quiet waits for a sign of life where the peer was silent for so long that it may be away.
func (r *Reach) quiet(ctx context.Context) error {
	heard := r.cfg.Line.Heard()
	if heard.IsZero() || time.Since(heard) < r.cfg.Quiet {
		return nil
	}
	r.mu.Lock()
	if err := r.refuse(); err != nil {
		r.mu.Unlock()
		return err
	}
	s := r.ask(r.cfg.Sign)
	r.mu.Unlock()
	select {
	case <-s.done:
		return nil // begin sees what came of it
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ask asks for a sign of life, unless one is asked for already. r.mu is held, and r is not closed.
func (r *Reach) ask(limit time.Duration) *sign {
	if s := r.mu.signing; s != nil {
		return s
	}
	s := &sign{make(chan struct{})}
	r.mu.signing = s
	r.work.Go(func() {
		defer close(s.done)
		began := time.Now()
		ctx, cancel := context.WithTimeout(r.ctx, limit)
		defer cancel()
		err := r.cfg.Line.Sign(ctx)
		r.answered(began, err == nil || r.cfg.Line.Heard().After(began))
	})
	return s
}

// answered takes what came of a question for a sign of life.
func (r *Reach) answered(began time.Time, lives bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.signing = nil
	if r.mu.closed {
		return
	}
	was := !r.mu.away.IsZero()
	if lives {
		r.mu.away = time.Time{}
	} else {
		// What stood before said nothing of it either: the way may be open again long before TCP tries.
		r.cfg.Line.Drop(began)
		if !was {
			r.mu.away = began
			if heard := r.cfg.Line.Heard(); !heard.IsZero() {
				r.mu.away = heard
			}
			r.cancelAll(r.refuse())
			r.watched()
		}
	}
	if was == lives {
		r.cfg.OnChange(!lives)
	}
}

// cancelAll ends what is under way. r.mu is held.
func (r *Reach) cancelAll(cause error) {
	for c := range r.mu.calls {
		c.cancel(cause)
	}
}

// watched has watch run. r.mu is held, and r is not closed.
func (r *Reach) watched() {
	if !r.mu.watching {
		r.mu.watching = true
		r.work.Go(r.watch)
	}
}

// watch looks after what is under way, and after a peer that is away until it is back;
// it ends when there is neither.
func (r *Reach) watch() {
	for {
		wait, s := r.look()
		switch {
		case s != nil:
			<-s.done
		case wait < 0:
			return
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-r.ctx.Done():
			t.Stop()
		}
	}
}

// look says when to look again, below 0 if there is nothing to look after, and what is to be waited for first.
func (r *Reach) look() (time.Duration, *sign) {
	r.mu.Lock()
	defer r.mu.Unlock()
	away := !r.mu.away.IsZero()
	if r.mu.closed || len(r.mu.calls) == 0 && !away {
		r.mu.watching = false
		return -1, nil
	}
	if away {
		return r.cfg.Again, r.ask(2 * r.cfg.Again)
	}
	last := r.cfg.Line.Heard()
	oldest := time.Now()
	for c := range r.mu.calls {
		if c.began.Before(oldest) {
			oldest = c.began
		}
	}
	if oldest.After(last) {
		last = oldest
	}
	if left := r.cfg.Patience - time.Since(last); left > 0 {
		return left, nil
	}
	return 0, r.ask(r.cfg.Sign)
}
