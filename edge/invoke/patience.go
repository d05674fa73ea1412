package invoke

import (
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
)

// How long a client is waited for while its body is read: BodyGrace, spent by
// waiting and earned back by BodyRate bytes a second. It ends when the answer
// begins: from then on the two sides may be waiting for one another, and the
// wall limit alone counts.
const (
	BodyGrace = 10 * time.Second
	BodyRate  = 1 << 10
)

// patience is one exchange's, guarded by the exchange's mutex. Its timer is not
// touched by a read that ends in time: it looks by itself what has become of the
// read that it was set for.
type patience struct {
	left  time.Duration
	since time.Time   // when the read under way began
	timer *time.Timer // nil before the first read
	set   bool        // the timer runs
	late  bool        // the read under way was ended by it
}

// beginRead marks a wait for the body, which Interrupt may cut short, with the
// clock running.
func (x *exchange) beginRead() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.interruptedLocked(); err != nil {
		return err
	}
	if x.mu.reading = true; x.committed.Load() {
		return nil
	}
	p := &x.mu.patience
	p.since = time.Now()
	switch {
	case p.timer == nil:
		p.left = BodyGrace
		p.timer, p.set = time.AfterFunc(p.left, x.lookAtRead), true
	case !p.set:
		p.timer.Reset(max(p.left, 0))
		p.set = true
	}
	return nil
}

// endRead counts what was waited and what came.
func (x *exchange) endRead(n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mu.reading = false
	p := &x.mu.patience
	if x.committed.Load() || p.timer == nil {
		return
	}
	p.left = min(p.left-time.Since(p.since)+time.Duration(n)*(time.Second/BodyRate), BodyGrace)
	if x.bodyEnd.Load() {
		p.timer.Stop()
	}
}

// lookAtRead ends the read under way if it is late, or comes back when it will be.
func (x *exchange) lookAtRead() {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := &x.mu.patience
	p.set = false
	if !x.mu.reading || x.mu.interrupted || x.committed.Load() {
		return
	}
	if left := p.left - time.Since(p.since); left > 0 {
		p.timer.Reset(left)
		p.set = true
		return
	}
	p.late = true
	_ = x.control().SetReadDeadline(longPast)
}

// late reports whether the client was not waited for any longer.
func (x *exchange) late() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.mu.patience.late
}

// slow is the fault of a client that was not waited for any longer.
func (x *exchange) slow(cause error) *fault.Error {
	x.hangUp()
	return &fault.Error{Kind: fault.BodySlow, Limit: fault.BodySlow.Fixed(), Cause: cause}
}

// forget lets the timer go. Nothing of the exchange is read after it.
func (x *exchange) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.mu.patience.timer != nil {
		x.mu.patience.timer.Stop()
	}
}
