package fleet

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
)

// EventKind says what happened to a member.
type EventKind uint8

// What can happen.
const (
	Joined   EventKind = iota + 1
	Changed            // its metadata
	Gone               // it failed or left; Member.Health says which
	Conflict           // two live nodes have its name; the first keeps it here
)

// String returns the kind's name.
func (k EventKind) String() string {
	switch k {
	case Joined:
		return "joined"
	case Changed:
		return "changed"
	case Gone:
		return "gone"
	case Conflict:
		return "conflict"
	}
	return "none"
}

// Event is one change of the membership.
type Event struct {
	Kind   EventKind
	Member Member
	Other  netip.AddrPort // Conflict: the address of the one refused
}

// maxEvents bounds the events waiting for a slow listener.
const maxEvents = 1024

// queue carries what memberlist's callbacks saw to one goroutine: callbacks
// run under memberlist's lock and inside its receive loop, so they only add here.
type queue struct {
	dropped atomic.Uint64
	wake    chan struct{}
	mu      struct {
		sync.Mutex
		events []Event
		heads  map[string]Head // the newest of each log; bounded by MaxHeads
	}
}

func newQueue() *queue {
	q := &queue{wake: make(chan struct{}, 1)}
	q.mu.heads = map[string]Head{}
	return q
}

func (q *queue) event(e Event) {
	q.mu.Lock()
	if len(q.mu.events) < maxEvents {
		q.mu.events = append(q.mu.events, e)
	} else {
		q.dropped.Add(1)
	}
	q.mu.Unlock()
	q.ring()
}

func (q *queue) news(hs []Head) {
	if len(hs) == 0 {
		return
	}
	q.mu.Lock()
	for _, h := range hs {
		q.mu.heads[h.Log] = h
	}
	q.mu.Unlock()
	q.ring()
}

func (q *queue) ring() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run delivers until ctx ends.
func (q *queue) run(ctx context.Context, deliver func(Event, []Head)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		}
		events, heads := q.take()
		deliver(Event{}, heads)
		for _, e := range events {
			deliver(e, nil)
		}
	}
}

func (q *queue) take() ([]Event, []Head) {
	q.mu.Lock()
	defer q.mu.Unlock()
	events, heads := q.mu.events, make([]Head, 0, len(q.mu.heads))
	for _, h := range q.mu.heads {
		heads = append(heads, h)
	}
	q.mu.events = nil
	clear(q.mu.heads)
	return events, heads
}
