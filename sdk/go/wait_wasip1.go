package edge

import (
	"context"
	"encoding/binary"
	"runtime"
	"time"
	"unsafe"
)

// What can be waited for, and how; see sdk/abi.
const (
	waitExchange = 0 // the handle of the request and its response
	waitRead     = 1
	waitWrite    = 2
	waitHead     = 4

	maxWaits  = 256
	waitSize  = 8
	waitBytes = 32 << 10
)

// A waiter is a goroutine that waits for the host.
type waiter struct {
	handle int32
	events uint32
	ready  bool
}

// waiting are those there are. There is one thread: whichever of them runs waits
// for all, so that none for whom something has come lies there.
var waiting []*waiter

// idle is how many goroutines there are when a request's handler begins.
var idle int

// Slices of waiting while there are goroutines that wait for something else:
// they may have timers, which the host does not know.
const (
	firstSlice = time.Millisecond
	lastSlice  = 16 * time.Millisecond
)

// alone reports whether the host may hold up this goroutine for as long as it
// takes, as there is no other and ctx has no time limit. The call itself waits then.
func alone(ctx context.Context) bool {
	if runtime.NumGoroutine() > idle {
		return false
	}
	_, limited := ctx.Deadline()
	return !limited
}

// await returns when a call for one of events would not wait, or ctx is over.
func await(ctx context.Context, handle int32, events uint32) error {
	w := &waiter{handle: handle, events: events}
	waiting = append(waiting, w)
	defer w.leave()
	for slice := firstSlice; ; slice = min(2*slice, lastSlice) {
		runtime.Gosched() // others may begin to wait, or take what has come, before this one waits for all
		if w.ready {
			return nil
		}
		if anyReady() {
			continue // it has not run yet
		}
		limit, err := patience(ctx, slice)
		if err != nil {
			return err
		}
		w.wait(limit)
	}
}

func anyReady() bool {
	for _, w := range waiting {
		if w.ready {
			return true
		}
	}
	return false
}

// waits is what wait passes.
var waits [maxWaits * waitSize]byte

// wait waits for one of those waiting, w among them, and notes which it was.
func (w *waiter) wait(limit time.Duration) {
	var list [maxWaits]*waiter
	n := 0
	add := func(w *waiter) {
		list[n] = w
		binary.LittleEndian.PutUint32(waits[waitSize*n:], uint32(w.handle))
		binary.LittleEndian.PutUint32(waits[waitSize*n+4:], w.events)
		n++
	}
	add(w)
	for _, other := range waiting {
		if other != w && n < len(list) {
			add(other)
		}
	}
	if i := hostWait(unsafe.Pointer(&waits), uint32(n), int64(limit)); i >= 0 && int(i) < n {
		list[i].ready = true
	}
}

// patience is how long all goroutines may be held up; below 0: nobody minds.
func patience(ctx context.Context, slice time.Duration) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	limit := time.Duration(-1)
	if runtime.NumGoroutine() >= idle+len(waiting) { // idle counts the handler's own
		limit = slice
	}
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		if left <= 0 {
			return 0, context.DeadlineExceeded
		}
		if limit < 0 || left < limit {
			limit = left
		}
	}
	return limit, nil
}

// leave takes w off the list.
func (w *waiter) leave() {
	for i, other := range waiting {
		if other == w {
			waiting = append(waiting[:i], waiting[i+1:]...)
			return
		}
	}
}
