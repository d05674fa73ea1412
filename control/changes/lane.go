package changes

import (
	"context"
	"errors"
	"time"
)

// lane is one stream after the other to one place. It ends when no log is followed there.
type lane struct {
	via   string        // a neighbour; "" is control
	moved chan struct{} // closed and replaced when the lane's logs change
	up    bool          // the stream brings something
	down  time.Time     // since when it does not
}

// poke ends the stream of the lane, which then opens one for the logs it has now. f.mu is held.
func (f *Follower) poke(via string) {
	if l := f.mu.lanes[via]; l != nil {
		close(l.moved)
		l.moved = make(chan struct{})
	}
}

// drive follows what is routed over l until that is nothing, or ctx is done.
func (f *Follower) drive(ctx context.Context, l *lane) {
	backoff := f.cfg.MinBackoff
	for ctx.Err() == nil {
		moved, req := f.plan(l)
		if len(req.Logs) == 0 {
			return
		}
		heard, err := f.follow(ctx, l, moved, req)
		if errors.Is(err, errMoved) || errors.Is(err, errRetry) || ctx.Err() != nil {
			backoff = f.cfg.MinBackoff
			continue
		}
		f.set(l, false)
		f.cfg.OnEvent(Event{Kind: Disconnected, From: l.via, Err: err})
		if f.abandon(l, err) {
			continue
		}
		if heard {
			backoff = f.cfg.MinBackoff
		}
		// Full jitter: a control node that comes back must not meet everyone at once.
		wait(ctx, moved, f.cfg.MinBackoff/2+time.Duration(f.cfg.Jitter()*float64(backoff)))
		backoff = min(2*backoff, f.cfg.MaxBackoff)
	}
}

// wait returns after d, when moved is closed, or when ctx is done.
func wait(ctx context.Context, moved <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-moved:
	case <-t.C:
	}
}

// plan returns the request for the lane's logs of now, and what is closed when
// they change. Where there are none the lane is taken off the map: it ends.
func (f *Follower) plan(l *lane) (moved <-chan struct{}, r Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.Reads = batchPage
	room := maxEvidenceSum
	for _, g := range f.mu.logs {
		if !g.at.placed || g.at.via != l.via {
			continue
		}
		w := g.want
		switch {
		case l.via != "":
			w.Proof = nil // it is control's to see
		case w.Proof == nil:
			w.Proof = f.cfg.Relay.evidence(w.Log, min(maxEvidence, room))
			room -= len(w.Proof)
		}
		r.Logs = append(r.Logs, w)
	}
	if len(r.Logs) == 0 {
		delete(f.mu.lanes, l.via)
	}
	return l.moved, r
}

// set notes whether the lane's stream brings something.
func (f *Follower) set(l *lane, up bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.up && !up {
		l.down = time.Now()
	}
	l.up = up
}
