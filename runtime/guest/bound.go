package guest

import (
	"context"
	"sync"
	"time"
)

// bound is an invocation's context: the client's, and the wall time. Most
// invocations end within one poll and wait for nothing, so the timer, and the
// watch that interrupts the exchange, are set by the first who asks for Done:
// together they would cost as much as the instance itself.
type bound struct {
	parent   context.Context
	deadline time.Time
	exchange interface{ Interrupt() }
	mu       struct {
		sync.Mutex
		armed   context.Context // nil until somebody waits
		cancel  context.CancelFunc
		unwatch func() bool
	}
}

var _ context.Context = (*bound)(nil)

// arm sets the timer, once.
func (b *bound) arm() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.armed == nil {
		b.mu.armed, b.mu.cancel = context.WithDeadlineCause(b.parent, b.deadline, errWall)
		b.mu.unwatch = context.AfterFunc(b.mu.armed, b.exchange.Interrupt)
	}
	return b.mu.armed
}

// current is the context that was armed, or the client's.
func (b *bound) current() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.armed != nil {
		return b.mu.armed
	}
	return b.parent
}

// close stops the timer and the watch.
func (b *bound) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.armed != nil {
		b.mu.unwatch()
		b.mu.cancel()
	}
}

// Deadline implements context.Context.
func (b *bound) Deadline() (time.Time, bool) {
	if d, ok := b.parent.Deadline(); ok && d.Before(b.deadline) {
		return d, true
	}
	return b.deadline, true
}

// Done implements context.Context.
func (b *bound) Done() <-chan struct{} { return b.arm().Done() }

// Err implements context.Context.
func (b *bound) Err() error {
	if err := b.current().Err(); err != nil || time.Now().Before(b.deadline) {
		return err
	}
	return b.arm().Err()
}

// Value implements context.Context. context.Cause asks it too, so it must be
// the armed one's where there is one.
func (b *bound) Value(key any) any { return b.current().Value(key) }
