package kv

import (
	"sync"
	"time"
)

// clock is what this node knows of the store's clock. Each batch of changes says when,
// by the store's clock, it was complete, and each answer of the origin when it was given;
// neither can come before that. What came soonest after its time therefore tells how far the
// two clocks are apart, but for the time it was under way. Only the monotonic clock is read here, so a step of the
// node's wall clock changes nothing.
type clock struct {
	base time.Time
	mu   *clockState
}

type clockState struct {
	sync.RWMutex
	known bool
	apart time.Duration // this clock less the store's, at most
	since time.Time     // when apart was learnt
}

// drift is how fast two clocks may run apart: apart may grow by it.
const drift = 1.0 / 10_000

func newClock() clock { return clock{base: time.Now(), mu: &clockState{}} }

// steady is now by the monotonic clock, as a time that compares with others'.
func (c clock) steady(now time.Time) time.Time { return c.base.Round(0).Add(now.Sub(c.base)) }

// observe takes that at now something arrived which the store said at its time at.
func (c clock) observe(at, now time.Time) {
	d := c.steady(now).Sub(at)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.known || d < c.mu.apart+c.mu.drifted(now) {
		c.mu.known, c.mu.apart, c.mu.since = true, d, now
	}
}

// answered takes what the origin itself said, at its time at, between asked and now. That
// is how an hour is noticed by which the store's clock was set back: before, it was not
// that far behind when the question left. at is in milliseconds, rounded down. Zero: it did not say.
func (c clock) answered(at, asked, now time.Time) {
	if at.IsZero() {
		return
	}
	least := c.steady(asked).Sub(at.Add(time.Millisecond))
	c.mu.Lock()
	if c.mu.known && least > c.mu.apart+c.mu.drifted(now) {
		c.mu.known = false
	}
	c.mu.Unlock()
	c.observe(at, now)
}

func (s *clockState) drifted(now time.Time) time.Duration {
	return time.Duration(float64(now.Sub(s.since)) * drift)
}

// store is the store's time at now; the node's own as long as nothing is known of it.
func (c clock) store(now time.Time) time.Time {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.mu.known {
		return now
	}
	return c.steady(now).Add(-c.mu.apart)
}

// local is the time on this node's clock when the store's was at; not after now.
func (c clock) local(at, now time.Time) time.Time {
	if ago := c.store(now).Sub(at); ago > 0 {
		return now.Add(-ago)
	}
	return now
}
