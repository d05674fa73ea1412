package kv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// errFenced means that an answer came which is older than what was told meanwhile.
var errFenced = errors.New("kv: fenced")

// keyFlights are the questions under way for one key. Whoever comes joins the
// last one, unless something was told of the key since it began.
type keyFlights struct {
	join *flight
	all  []*flight
}

// ask says what a question's answer has to be.
type ask struct {
	direct  bool   // the origin's own, not an owner's: for an owner, and where an owner's was too old
	owner   Owner  // who is asked; nil if direct
	atLeast uint64 // it reflects every change up to this, which somebody knows of
}

// flight is one question for all who wait for it.
type flight struct {
	ask
	done    chan struct{} // closed when e and err are set
	e       *entry
	err     error
	cancel  context.CancelFunc
	began   uint64    // what the namespace had seen
	at      time.Time // when that was
	epoch   uint64
	waiters int  // guarded by the space
	voided  bool // guarded by the space: its answer counts for nothing
	lent    bool // an owner answered it
}

// serves reports whether the answer is one to q too. What f was asked to reflect was
// there before it began, so everybody who knows of no more may have it.
func (f *flight) serves(q ask) bool {
	return (f.direct || !q.direct) && q.atLeast <= max(f.began, f.atLeast)
}

// flights bounds the questions of all namespaces and waits for them at the end.
type flights struct {
	room chan struct{}
	ctx  context.Context
	stop context.CancelFunc
	mu   struct {
		sync.Mutex
		closed bool
		wg     sync.WaitGroup
	}
}

func newFlights(most int) *flights {
	f := &flights{room: make(chan struct{}, most)}
	f.ctx, f.stop = context.WithCancel(context.Background())
	return f
}

func (f *flights) run(work func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.mu.closed {
		f.mu.wg.Go(work)
	}
	return !f.mu.closed
}

func (f *flights) close() {
	f.mu.Lock()
	f.mu.closed = true
	f.mu.Unlock()
	f.stop()
	f.mu.wg.Wait()
}

// fetch asks for key, together with whoever asks for it now.
func (s *Store) fetch(ctx context.Context, n *space, key string, q ask) (*entry, error) {
	// What an owner says has no proof, so nothing of a copy's namespace rests on it.
	if !q.direct && s.config.Owner != nil && !n.replicated() {
		q.owner = s.config.Owner(n.name, key)
	}
	f, err := s.join(n, key, q)
	if err != nil {
		return nil, err
	}
	select {
	case <-f.done:
		return f.e, f.err
	case <-ctx.Done():
		n.leave(key, f)
		return nil, context.Cause(ctx)
	}
}

func (s *Store) join(n *space, key string, q ask) (*flight, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := n.mu.flights[key]
	if k == nil {
		k = &keyFlights{}
	}
	q.direct = q.direct || q.owner == nil
	if k.join == nil || !k.join.serves(q) {
		ctx, cancel := context.WithTimeout(s.flights.ctx, s.config.Timeout)
		q.atLeast = max(q.atLeast, n.mu.seen, n.mu.served)
		f := &flight{ask: q, done: make(chan struct{}), cancel: cancel, began: n.mu.seen, at: time.Now(), epoch: n.mu.epoch}
		if !s.flights.run(func() { s.fly(ctx, n, key, f) }) {
			cancel()
			return nil, fmt.Errorf("%w: closed", hostcall.ErrUnavailable)
		}
		k.join, k.all = f, append(k.all, f)
		n.mu.flights[key] = k
		s.counts.misses.Add(1)
		n.counts.misses.Add(1)
	} else {
		s.counts.joined.Add(1)
		n.counts.joined.Add(1)
	}
	k.join.waiters++
	return k.join, nil
}

// leave ends a question that nobody waits for any more.
func (n *space) leave(key string, f *flight) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f.waiters--; f.waiters > 0 {
		return
	}
	f.cancel()
	if k := n.mu.flights[key]; k != nil && k.join == f {
		k.join = nil
	}
}

func (s *Store) fly(ctx context.Context, n *space, key string, f *flight) {
	defer f.cancel()
	ctx = s.within(ctx, n.name.Project)
	got, err := s.askOwner(ctx, n.name, key, f)
	if f.lent {
		n.counts.owner.Add(1)
	} else {
		got, err = s.askOrigin(ctx, n.name, key)
		n.counts.origin.Add(1)
	}
	s.land(n, key, f, got, err)
}

// askOwner sets f.lent if there is an owner and it answered.
func (s *Store) askOwner(ctx context.Context, ns hostcall.Namespace, key string, f *flight) (got hostcall.Entry, err error) {
	// Without an epoch, the stream has not begun and there is nothing to compare by.
	if f.direct || f.epoch == 0 {
		return got, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout/2)
	defer cancel()
	got, err = f.owner.Ask(ctx, ns, key, Question{Epoch: f.epoch, AtLeast: f.atLeast})
	f.lent = err == nil || errors.Is(err, hostcall.ErrNotFound)
	return got, err
}

func (s *Store) askOrigin(ctx context.Context, ns hostcall.Namespace, key string) (hostcall.Entry, error) {
	select {
	case s.flights.room <- struct{}{}:
		defer func() { <-s.flights.room }()
	case <-ctx.Done():
		return hostcall.Entry{}, context.Cause(ctx)
	}
	asked := time.Now()
	got, err := s.config.Origin.Get(ctx, ns, key)
	s.clock.answered(got.At, asked, time.Now())
	return got, err
}

// land decides what an answer is worth, and tells those who wait.
func (s *Store) land(n *space, key string, f *flight, got hostcall.Entry, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer close(f.done)
	others := n.remove(key, f)
	if err != nil && !errors.Is(err, hostcall.ErrNotFound) {
		s.counts.failures.Add(1)
		f.err = err
		return
	}
	e := f.entry(key, got, err == nil)
	if f.voided || !n.mu.fences.passes(e) {
		s.counts.fenced.Add(1)
		f.err = errFenced
		return
	}
	if f.lent && n.mu.copied.from != nil {
		f.err = errFenced // it was asked for before there was a copy: nothing of it rests on a neighbour's word
		return
	}
	if f.lent && !e.found && got.AsOf > n.mu.at {
		// Nothing here tells a true revision that is ahead from a false one, and "not
		// found" has to fence what came before it: the truth is asked.
		f.err = errFenced
		return
	}
	f.e = e
	if others {
		n.order(key, e, f.lent)
	}
	if !e.found && !f.lent {
		n.mu.fences.raise(key, got.AsOf)
		f.began = max(f.began, got.AsOf)
	}
	n.mu.served = max(n.mu.served, got.AsOf, e.revision)
	n.mu.answered = max(n.mu.answered, got.AsOf, e.revision)
	if !f.lent {
		n.mu.doubts.settle(key, f.at)
	}
	if n.mu.copied.from != nil && e.found {
		n.mu.fences.raise(key, e.revision) // the copy may be behind what was just served
	}
	if f.lent && e.found && e.revision > n.mu.at {
		// This node's stream has not come to the revision that a neighbour named, so a
		// false one, which no change would ever pass, must not stay.
		e.until = time.Now().Add(s.config.Negative)
	}
	if known := s.entries.get(n.mu.id, key); known == nil || !e.found || !known.newer(e.revision) {
		s.keep(n, key, *e, f.began)
	}
}

func (f *flight) entry(key string, got hostcall.Entry, found bool) *entry {
	e := &entry{key: key, found: found, value: got.Value, metadata: got.Metadata, revision: got.Revision, expires: got.Expires, began: f.began, at: f.at}
	if !found {
		e.revision = 0
	}
	if f.lent {
		e.at = f.at.Add(-max(got.Stale, 0))
	}
	return e
}

// order makes sure that answers still under way, which may have been read at
// the origin before e was, are not served after it.
func (n *space) order(key string, e *entry, lent bool) {
	if e.found && !lent {
		n.mu.fences.raise(key, e.revision)
		n.mu.seen = max(n.mu.seen, e.revision)
		return
	}
	n.supersede(key)
	n.void(key)
}

// supersede lets nobody join the questions under way. n.mu is held.
func (n *space) supersede(key string) {
	if k := n.mu.flights[key]; k != nil {
		k.join = nil
	}
}

// void makes the answers under way count for nothing. n.mu is held.
func (n *space) void(key string) {
	if k := n.mu.flights[key]; k != nil {
		for _, f := range k.all {
			f.voided = true
		}
	}
}

// remove takes a landed flight out and reports whether others are under way. n.mu is held.
func (n *space) remove(key string, f *flight) (others bool) {
	k := n.mu.flights[key]
	if k.join == f {
		k.join = nil
	}
	k.all = slices.DeleteFunc(k.all, func(o *flight) bool { return o == f })
	if len(k.all) == 0 {
		delete(n.mu.flights, key)
		return false
	}
	return true
}
