package listen

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Exchanges keep a connection, however long they take; between them time runs anew.
func TestHeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late atomic.Bool
		h := newHeads(time.Minute, func() { late.Store(true) })
		wait := func(d time.Duration, want bool) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if late.Load() != want {
				t.Fatalf("late: %v", !want)
			}
		}
		wait(59*time.Second, false)
		h.begin()
		h.begin()
		wait(time.Hour, false)
		h.end()
		wait(time.Hour, false)
		h.end()
		wait(59*time.Second, false)
		h.begin()
		h.end()
		wait(59*time.Second, false)
		wait(time.Second, true)

		late.Store(false)
		h = newHeads(time.Minute, func() { late.Store(true) })
		h.begin()
		h.stop() // the connection ends before its exchanges do
		h.end()
		wait(time.Hour, false)
	})
}
