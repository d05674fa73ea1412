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
	handle   int32
	events   uint32
	deadline time.Time // zero: none
	ready    bool
}

// waiting are those there are. There is one thread: whichever of them runs waits
// for all, so that none for whom something has come lies there.
var waiting []*waiter

// idle is how many goroutines there are when a request's handler begins.
var idle int

// Slices of waiting, for there may be timers, which the host does not know: short
// ones while a goroutine waits for something else, longer ones if nobody does.
const (
	firstSlice = time.Millisecond
	lastSlice  = 16 * time.Millisecond
	quietSlice = 256 * time.Millisecond
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
	w.deadline, _ = ctx.Deadline()
	waiting = append(waiting, w)
	defer w.leave()
	for slice := firstSlice; ; slice = min(2*slice, quietSlice) {
		runtime.Gosched() // others may begin to wait, or take what has come, before this one waits for all
		switch err := ctx.Err(); {
		case w.ready:
			return nil
		case err != nil:
			return err
		case anyReady():
			slice = firstSlice // it has not run yet
		default:
			w.wait(patience(slice))
		}
		if !w.ready && !w.deadline.IsZero() && !time.Now().Before(w.deadline) {
			return context.DeadlineExceeded // whose timer has not run yet
		}
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

// patience is how long all goroutines may be held up: slice at most, and not
// beyond the time that one of those waiting has.
func patience(slice time.Duration) time.Duration {
	limit := slice
	if runtime.NumGoroutine() >= idle+len(waiting) { // idle counts the handler's own
		limit = min(slice, lastSlice)
	}
	for _, w := range waiting {
		if !w.deadline.IsZero() {
			limit = min(limit, max(time.Until(w.deadline), 0))
		}
	}
	return limit
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
