package engine

import (
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine/cshim"
)

// Threads are threads of the operating system, none of Go's, for guests that
// compute long. The kernel runs them after all others, so that nobody who has a
// request to serve waits behind such a guest. They are safe for concurrent use.
type Threads struct {
	free  chan *cshim.Thread
	begin sync.Once
}

// NewThreads returns n threads, which start when one is first wanted: then they
// are in the server's jail.
func NewThreads(n int) *Threads { return &Threads{free: make(chan *cshim.Thread, n)} }

// take waits for a thread that is free.
func (t *Threads) take() *cshim.Thread {
	t.begin.Do(func() {
		for range cap(t.free) {
			one, err := cshim.OpenThread()
			if err != nil {
				one = nil // the machine has no more: the work is done where it is asked for
			}
			t.free <- one
		}
	})
	return <-t.free
}

// Poll is as Instance.Poll, but comes back for a tick only once the instance has
// used more processor time than most.
func (t *Threads) Poll(i *Instance, most time.Duration) Event {
	one := t.take()
	defer func() { t.free <- one }()
	if one == nil || i.closed {
		return i.Poll()
	}
	return i.event(one.Poll(i.in, uint64(most)))
}

// CloseInstance is as Instance.Close.
func (t *Threads) CloseInstance(i *Instance) {
	one := t.take()
	defer func() { t.free <- one }()
	if one != nil && !i.Ended() && i.pins.Load() == 1 { // it was not lent: nobody can make that more
		one.End(i.in)
	}
	i.Close()
}

// Close ends the threads. Nobody uses them any more.
func (t *Threads) Close() {
	t.begin.Do(func() { close(t.free) })
	for range cap(t.free) {
		if one := <-t.free; one != nil {
			one.Close()
		}
	}
}
