package guest

import (
	"context"
	"sync/atomic"
)

// turns lets so many guests compute at once. Those that wait go first come,
// first served: a guest that yielded comes after them. A turn that is free
// costs one addition; a channel's lock would be fought over by all processors.
type turns struct {
	free    atomic.Int64  // below zero: so many wait
	granted chan struct{} // turns given to those who wait
}

func newTurns(n int) *turns {
	t := &turns{granted: make(chan struct{}, n)}
	t.free.Store(int64(n))
	return t
}

// take waits for a turn, or until ctx ends.
func (t *turns) take(ctx context.Context) error {
	if t.free.Add(-1) >= 0 {
		return nil
	}
	select {
	case <-t.granted:
		return nil
	case <-ctx.Done():
	}
	if !t.leave() {
		<-t.granted // it is on its way
		t.give()
	}
	return ctx.Err()
}

// leave takes one who waits out of the count; false if a turn was already given
// to each of those who wait.
func (t *turns) leave() bool {
	for {
		n := t.free.Load()
		if n >= 0 {
			return false
		}
		if t.free.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (t *turns) give() {
	if t.free.Add(1) <= 0 {
		t.granted <- struct{}{} // there is room: at most n turns exist
	}
}
