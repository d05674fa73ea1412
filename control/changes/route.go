package changes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
)

// Neighbourhood says from whom logs may be followed instead of control. In each PoP one
// node follows a log from control and the others follow that one: who it is, each
// works out for itself. A wrong answer costs a detour, never a change.
type Neighbourhood interface {
	// Parent names the neighbour to follow log from now; "" is control.
	Parent(log string) string
	// Open opens a stream on a neighbour.
	Open(ctx context.Context, name string, r Request) (io.ReadCloser, error)
	// Blame says that a neighbour failed, so that it is nobody's parent for a
	// while; see Lied for how long.
	Blame(name string, err error)
}

// alone is the neighbourhood of a node that follows control only.
type alone struct{}

func (alone) Parent(string) string { return "" }
func (alone) Blame(string, error)  {}
func (alone) Open(context.Context, string, Request) (io.ReadCloser, error) {
	return nil, errors.New("changes: no neighbours")
}

// ErrForged is in the error of a stream with a batch that no changes key of the fleet signed.
var ErrForged = errors.New("changes: a batch that control did not sign")

// Lied reports whether a stream ended because of what was sent on it, and not
// because the sender or the way to it failed.
func Lied(err error) bool {
	for _, lie := range []error{ErrForged, identity.ErrUntrusted, ErrBatch, ErrOrder, errFrame} {
		if errors.Is(err, lie) {
			return true
		}
	}
	return false
}

// errSink marks an error of this node's own: nobody is to blame for it.
var errSink = errors.New("changes: not applied")

// source is where a log is followed from, and what speaks for or against it.
type source struct {
	placed bool
	via    string    // a neighbour; "" is control
	since  time.Time // when it was placed there
	aside  time.Time // until then control is asked, whatever the neighbourhood says
	asides int       // how often in a row: each time for longer
	signed time.Time // when control signed the newest batch, on its clock
	fresh  time.Time // when signed last moved, on ours
	heard  Position  // the newest head the fleet told of
	told   time.Time // since when there is one that the log is short of
	short  time.Time // since when the log is short of it; zero if it is not
	untrue Position  // a head that control says there never was, and
	until  time.Time // until when neither it nor what is above it is believed
}

const (
	asideFirst = 3 * time.Second
	asideMost  = time.Minute
	// steady is how long a neighbour has to do well for its past to be forgotten.
	steady = time.Minute
	// afterwards is how much later than a head was heard of control must have signed that
	// the log does not go so far: the change may have been made meanwhile.
	afterwards = time.Second
	// disbelief is how long no head is believed that is not below a false one.
	disbelief = 10 * time.Minute
	// grace is how long a node whose stream from control broke still serves its neighbours.
	grace = 2 * time.Second
)

// route gives each log its place, and returns the lanes that have to be started for it.
func (f *Follower) route() (started []*lane) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	touched := map[string]bool{}
	for log, l := range f.mu.logs {
		f.review(log, l, now)
		via := ""
		if !now.Before(l.at.aside) {
			via = f.cfg.Neighbours.Parent(log)
		}
		if l.at.placed && l.at.via == via {
			continue
		}
		if l.at.placed {
			touched[l.at.via] = true
		}
		touched[via] = true
		l.at.placed, l.at.via, l.at.since, l.at.fresh, l.at.short = true, via, now, now, time.Time{}
		if l.want.before(l.at.heard) {
			l.at.short = now
		}
	}
	for via := range touched {
		if f.mu.lanes[via] != nil {
			f.poke(via)
			continue
		}
		l := &lane{via: via, moved: make(chan struct{}), down: now}
		f.mu.lanes[via] = l
		started = append(started, l)
	}
	return started
}

// review sets a neighbour aside that withholds: it is behind a head that was
// heard of, or brings nothing newly signed. f.mu is held.
func (f *Follower) review(log string, l *followed, now time.Time) {
	if !l.at.placed || l.at.via == "" {
		return
	}
	switch {
	case !l.at.short.IsZero() && now.Sub(l.at.short) >= f.cfg.Behind:
		f.putAside(log, l, fmt.Sprintf("it is behind %d/%d for %v", l.at.heard.Epoch, l.at.heard.Seq, f.cfg.Behind))
	case now.Sub(l.at.fresh) >= f.cfg.Stale:
		f.putAside(log, l, fmt.Sprintf("it brought nothing newly signed for %v", f.cfg.Stale))
	case now.Sub(l.at.since) >= steady:
		l.at.asides = 0
	}
}

// putAside has control asked for the log for a while. f.mu is held.
func (f *Follower) putAside(log string, l *followed, why string) {
	hold := min(asideFirst<<min(l.at.asides, 10), asideMost)
	l.at.asides++
	l.at.aside = time.Now().Add(hold/2 + time.Duration(f.cfg.Jitter()*float64(hold)))
	f.cfg.OnEvent(Event{Kind: Aside, Log: log, From: l.at.via, Why: why})
}

// aside is putAside for a lane that was told so, and routes anew.
func (f *Follower) aside(log, via, why string) {
	f.mu.Lock()
	if l := f.mu.logs[log]; l != nil && l.at.via == via {
		f.putAside(log, l, why)
	}
	f.mu.Unlock()
	f.wake()
}

// abandon takes the logs off a neighbour whose stream failed; false for control,
// and for what is no neighbour's fault. One that had declined every log is not blamed.
func (f *Follower) abandon(l *lane, err error) bool {
	if l.via == "" || errors.Is(err, errSink) {
		return false
	}
	if f.unplace(l.via) || Lied(err) {
		f.cfg.Neighbours.Blame(l.via, err)
	}
	f.wake()
	return true
}

// unplace takes the logs of a neighbour's lane off it, and reports whether one was served there.
func (f *Follower) unplace(via string) (served bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for _, l := range f.mu.logs {
		if l.at.placed && l.at.via == via {
			l.at.placed = false
			served = served || !now.Before(l.at.aside)
		}
	}
	return served
}

// Heard takes a head that the fleet told of, a hint: a neighbour that does not get
// there is set aside. Anyone may claim one; where control then says that the log does not go so far,
// the claim is forgotten and not believed again for a while. It reports whether the log is short of it.
func (f *Follower) Heard(log string, p Position) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.mu.logs[log]
	if l == nil {
		return false
	}
	now := time.Now()
	if now.Before(l.at.until) && !p.before(l.at.untrue) {
		return false
	}
	if !l.want.before(l.at.heard) {
		l.at.told = now
	}
	if l.at.heard.before(p) {
		l.at.heard = p
	}
	short := l.want.before(l.at.heard)
	if short && l.at.short.IsZero() {
		l.at.short = now
	}
	return short
}

// note takes what an applied batch says of its source; moves says that it brought the log further.
func (f *Follower) note(l *followed, b *Batch, moves bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	// Control is the truth, also of its own clock; a neighbour may send again what is old.
	switch {
	case b.Head > 0: // a page: it says nothing of when, and there is more to wait for, but for one that comes again
		if moves {
			l.at.fresh = now
		}
	case l.at.via == "" || b.At.After(l.at.signed):
		l.at.signed, l.at.fresh = b.At, now
	}
	// Control's own statement that nothing follows.
	if l.at.via == "" && b.Ends() && l.want.before(l.at.heard) && now.Sub(l.at.told) >= afterwards {
		l.at.untrue, l.at.until = l.at.heard, now.Add(disbelief)
		l.at.heard = l.want.Position
	}
	if !l.want.before(l.at.heard) {
		l.at.short = time.Time{}
	}
	if !l.want.before(l.at.untrue) {
		l.at.until = time.Time{} // the log has come to it
	}
}

func (p Position) before(q Position) bool {
	return p.Epoch < q.Epoch || p.Epoch == q.Epoch && p.Seq < q.Seq
}

// Leads returns nil where this node is the one of its PoP that follows log from
// control, and does: then it serves its neighbours. Who is not would only pass on
// what it is passed, and two such could wait for each other.
func (f *Follower) Leads(log string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.mu.logs[log]
	if l == nil {
		return errors.New("changes: this node does not follow it")
	}
	if parent := f.cfg.Neighbours.Parent(log); parent != "" {
		return fmt.Errorf("changes: %s follows it here", parent)
	}
	lane := f.mu.lanes[""]
	if lane == nil || !lane.up && time.Since(lane.down) > grace {
		return errors.New("changes: this node has no stream from control now")
	}
	return nil
}

// Sources returns how many logs are followed from control and from neighbours.
func (f *Follower) Sources() (control, neighbours int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.mu.logs {
		if l.at.via == "" {
			control++
		} else {
			neighbours++
		}
	}
	return control, neighbours
}
