package guest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

type interrupter func()

func (f interrupter) Interrupt() { f() }

// A bound context says the same whether somebody waited on it or not.
func TestBound(t *testing.T) {
	for _, waited := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var interrupted atomic.Int32
			b := &bound{parent: t.Context(), deadline: time.Now().Add(time.Second), exchange: interrupter(func() { interrupted.Add(1) })}
			defer b.close()
			if waited {
				b.Done()
			}
			child, cancel := context.WithCancel(b)
			defer cancel()
			time.Sleep(999 * time.Millisecond)
			if b.Err() != nil || child.Err() != nil {
				t.Errorf("waited %v: over before its time: %v", waited, b.Err())
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if !errors.Is(b.Err(), context.DeadlineExceeded) || context.Cause(b) != errWall || context.Cause(child) != errWall {
				t.Errorf("waited %v: %v because of %v, its child of %v", waited, b.Err(), context.Cause(b), context.Cause(child))
			}
			synctest.Wait()
			if interrupted.Load() != 1 {
				t.Errorf("waited %v: interrupted %d times", waited, interrupted.Load())
			}
		})
	}
}

func TestBoundEndsWithTheClient(t *testing.T) {
	left := errors.New("the client left")
	for _, waited := range []bool{false, true} {
		parent, leave := context.WithCancelCause(t.Context())
		b := &bound{parent: parent, deadline: time.Now().Add(time.Hour), exchange: interrupter(func() {})}
		if waited {
			b.Done()
		}
		leave(left)
		if b.Err() == nil || context.Cause(b) != left {
			t.Errorf("waited %v: %v because of %v", waited, b.Err(), context.Cause(b))
		}
		b.close()
	}
}
