package limit

import (
	"container/list"
	"context"
	"time"

	"github.com/selvage-edge/selvage/runtime/fair"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
)

// count is what one function has, guarded by the limiter.
type count struct {
	fair.Member[*count] // it waits while it could have another place
	project             string
	running, most       int
	queue               list.List // of *waiter, who came first in front
}

// waiter is one exchange in its function's queue.
type waiter struct {
	limiter *Limiter
	of      *count
	place   *list.Element // nil once it is out
	granted chan struct{} // closed when it has a place
}

// enqueueLocked has one more wait for the function.
func (l *Limiter) enqueueLocked(f *count, weight int) *waiter {
	w := &waiter{limiter: l, of: f, granted: make(chan struct{})}
	w.place = f.queue.PushBack(w)
	l.mu.waiting++
	l.mu.projects[f.project]++
	f.SetWeight(weight)
	f.offer()
	l.dispatchLocked() // there may be room: another version of the function had fewer places
	return w
}

// offer has the function wait for a place if it can use one, and else not.
func (f *count) offer() {
	if f.queue.Len() > 0 && f.running < f.most {
		f.Wait()
	} else {
		f.Withdraw()
	}
}

// removeLocked takes one who waits out of the queue.
func (l *Limiter) removeLocked(w *waiter) {
	f := w.of
	f.queue.Remove(w.place)
	w.place = nil
	l.mu.waiting--
	if l.mu.projects[f.project]--; l.mu.projects[f.project] == 0 {
		delete(l.mu.projects, f.project)
	}
	f.offer()
}

// dispatchLocked gives the places that are free to those whose turn it is.
func (l *Limiter) dispatchLocked() {
	for l.mu.running < l.cfg.Node {
		f, ok := l.mu.queue.Next()
		if !ok {
			return
		}
		f.Charge(admission)
		l.takeLocked(f)
		w := f.queue.Front().Value.(*waiter)
		l.removeLocked(w)
		close(w.granted)
	}
}

// admission is what one counts in the queue: enough to be divided by every weight.
const admission = 1 << 20

// wait waits for a place, until then or until the client leaves.
func (w *waiter) wait(ctx context.Context, by time.Time, limits function.Limits) (Ticket, error) {
	begin := time.Now()
	timer := time.NewTimer(time.Until(by))
	defer timer.Stop()
	var err error
	select {
	case <-w.granted:
	case <-timer.C:
		err = w.leave(&w.limiter.mu.shed.Late, &fault.Error{Kind: fault.Shed, Limit: limits.QueueWait.String(), Knob: fault.Shed.Knob()})
	case <-ctx.Done():
		err = w.leave(&w.limiter.mu.shed.Left, fault.New(fault.Canceled, "while it waited to be started", context.Cause(ctx)))
	}
	t := Ticket{Waited: time.Since(begin)}
	if err == nil {
		t.limiter, t.of = w.limiter, w.of
	}
	return t, err
}

// leave counts one out; if it was given a place at this very moment, it has that.
func (w *waiter) leave(counted *uint64, why error) error {
	w.limiter.mu.Lock()
	defer w.limiter.mu.Unlock()
	if w.place == nil {
		return nil
	}
	w.limiter.removeLocked(w)
	*counted++
	return why
}
