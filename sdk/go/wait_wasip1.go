package edge

import (
	"context"
	"runtime"
	"time"
	"unsafe"
)

// waiting are the subrequests whose heads are waited for. There is one thread:
// whichever of them runs waits for all, so that none that has come lies there.
var waiting []subrequest

// idle is how many goroutines there are when a request's handler begins.
var idle int

// maxWaits is how many subrequests one fetch_wait may name.
const maxWaits = 64

// Slices of waiting while there are other goroutines, which may have timers of
// their own that the host does not know.
const (
	firstSlice = time.Millisecond
	lastSlice  = 16 * time.Millisecond
)

// await returns when the head of h has come, or ctx is over.
func (h subrequest) await(ctx context.Context) error {
	waiting = append(waiting, h)
	defer h.arrived()
	for slice := firstSlice; ; slice = min(2*slice, lastSlice) {
		runtime.Gosched() // others may start theirs, or take what has come, before this one waits
		limit, err := h.patience(ctx, slice)
		if err != nil {
			return err
		}
		if h.wait(limit) == 0 {
			return nil
		}
	}
}

// wait waits for one of those waiting; 0 is h itself.
func (h subrequest) wait(limit time.Duration) int32 {
	var list [maxWaits]subrequest
	list[0] = h
	n := 1
	for _, other := range waiting {
		if other != h && n < len(list) {
			list[n] = other
			n++
		}
	}
	return hostFetchWait(unsafe.Pointer(&list), uint32(n), int64(limit))
}

// patience is how long all goroutines may be held up; below 0: nobody minds.
func (h subrequest) patience(ctx context.Context, slice time.Duration) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	limit := time.Duration(-1)
	if runtime.NumGoroutine() > idle {
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

// arrived takes h off the list.
func (h subrequest) arrived() {
	for i, other := range waiting {
		if other == h {
			waiting = append(waiting[:i], waiting[i+1:]...)
			return
		}
	}
}
