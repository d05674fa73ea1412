package forward

import (
	"sync"
	"sync/atomic"
	"time"
)

// budget lets a share of the exchanges of each second overflow, so that a PoP which
// has too many does not bring down the next.
type budget struct {
	share float64
	now   func() time.Time
	seen  atomic.Int64
	mu    struct {
		sync.Mutex
		since time.Time
		base  int64 // seen by then
		used  int64
	}
}

func (b *budget) take() bool {
	if b.share == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := b.seen.Load()
	if now := b.now(); b.mu.since.IsZero() || now.Sub(b.mu.since) >= time.Second {
		b.mu.since, b.mu.base, b.mu.used = now, seen-1, 0 // the one that asks is seen
	}
	if float64(b.mu.used) >= b.share*float64(seen-b.mu.base) {
		return false
	}
	b.mu.used++
	return true
}
