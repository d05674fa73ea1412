package kv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

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

// flight is one question to the origin for all who wait for it.
type flight struct {
	done    chan struct{} // closed when e and err are set
	e       *entry
	err     error
	cancel  context.CancelFunc
	began   uint64 // what the namespace had seen
	waiters int    // guarded by the space
	voided  bool   // guarded by the space: its answer counts for nothing
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

// fetch asks the origin, together with whoever asks for the same key now.
func (s *Store) fetch(ctx context.Context, n *space, key string) (*entry, error) {
	f, err := s.join(n, key)
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

func (s *Store) join(n *space, key string) (*flight, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := n.mu.flights[key]
	if k == nil {
		k = &keyFlights{}
	}
	if k.join == nil {
		ctx, cancel := context.WithTimeout(s.flights.ctx, s.config.Timeout)
		f := &flight{done: make(chan struct{}), cancel: cancel, began: n.mu.seen}
		if !s.flights.run(func() { s.fly(ctx, n, key, f) }) {
			cancel()
			return nil, fmt.Errorf("%w: closed", hostcall.ErrUnavailable)
		}
		k.join, k.all = f, append(k.all, f)
		n.mu.flights[key] = k
		s.counts.misses.Add(1)
	} else {
		s.counts.joined.Add(1)
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
	got, err := s.ask(ctx, n.name, key)
	s.land(n, key, f, got, err)
}

func (s *Store) ask(ctx context.Context, ns hostcall.Namespace, key string) (hostcall.Entry, error) {
	select {
	case s.flights.room <- struct{}{}:
		defer func() { <-s.flights.room }()
	case <-ctx.Done():
		return hostcall.Entry{}, context.Cause(ctx)
	}
	return s.config.Origin.Get(ctx, ns, key)
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
	e := &entry{key: key, found: err == nil, value: got.Value, revision: got.Revision, expires: got.Expires, began: f.began}
	if f.voided || !n.mu.fences.passes(e) {
		s.counts.fenced.Add(1)
		f.err = errFenced
		return
	}
	f.e = e
	if others {
		n.order(key, e)
	}
	if known := s.entries.get(n.mu.id, key); known == nil || !e.found || !known.newer(e.revision) {
		s.keep(n, key, *e, f.began)
	}
}

// order makes sure that answers still under way, which may have been read at
// the origin before e was, are not served after it.
func (n *space) order(key string, e *entry) {
	if e.found {
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
