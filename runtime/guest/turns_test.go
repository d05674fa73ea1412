package guest

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// However waiting ends, turns are neither lost nor made.
func TestTurns(t *testing.T) {
	const n, takers, rounds = 3, 16, 2000
	turns := newTurns(n)
	var inside, refused atomic.Int64
	var all sync.WaitGroup
	for i := range takers {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range rounds {
				ctx, cancel := context.WithCancel(t.Context())
				if r.IntN(2) == 0 {
					go cancel()
				}
				if turns.take(ctx) == nil {
					if now := inside.Add(1); now > n {
						t.Errorf("%d turns of %d are taken", now, n)
					}
					runtime.Gosched()
					inside.Add(-1)
					turns.give()
				} else {
					refused.Add(1)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if free := turns.free.Load(); free != n || len(turns.granted) != 0 {
		t.Errorf("at the end %d turns are free and %d granted", free, len(turns.granted))
	}
	t.Logf("%d takers left before their turn", refused.Load())
	for range n {
		if err := turns.take(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if turns.take(gone) == nil {
		t.Error("a turn more than there are")
	}
}
