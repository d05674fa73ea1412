package geodns

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
)

// rateSlots is how many streams of answers are told apart; a power of two.
const rateSlots = 1 << 16

// limiter bounds how many answers a network gets over UDP in a second, so
// that a forged sender is not flooded with them (response rate limiting). Two streams that share a slot share its rate.
type limiter struct {
	every time.Duration // between two answers at the rate; 0: no limit
	begin time.Time
	seed  maphash.Seed
	over  atomic.Uint64
	slots [rateSlots]atomic.Int64 // when the stream's next answer is due, since begin (GCRA)
}

func newLimiter(perSecond int) *limiter {
	l := &limiter{begin: time.Now(), seed: maphash.MakeSeed()}
	if perSecond > 0 {
		l.every = time.Second / time.Duration(perSecond)
	}
	return l
}

// verdict is what becomes of an answer.
type verdict uint8

const (
	send verdict = iota
	slip         // send it empty and truncated: a real client comes back over TCP
	drop
)

// stream names what counts together: one network's answers of one kind. Names
// are no part of it: whoever forges a sender would ask for another each time.
type stream struct {
	network netip.Prefix
	rcode   int
	found   bool
}

// allow counts one answer. A second's worth may come at once.
func (l *limiter) allow(s stream) verdict {
	if l.every == 0 {
		return send
	}
	slot := &l.slots[maphash.Comparable(l.seed, s)%rateSlots]
	now := int64(time.Since(l.begin))
	for {
		due := slot.Load()
		next := max(due, now) + int64(l.every)
		if next-now > int64(time.Second) {
			if l.over.Add(1)%2 == 0 {
				return slip
			}
			return drop
		}
		if slot.CompareAndSwap(due, next) {
			return send
		}
	}
}
