package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// held is what a key holds; the zero value: nothing.
type held struct {
	there           bool
	value, metadata []byte
	revision        uint64
}

// holds reports whether a read gave what h says, at its revision if that is known.
func (h held) holds(a answer) bool {
	if !h.there || a.came != done {
		return !h.there && a.came == missing
	}
	return bytes.Equal(h.value, a.value) && bytes.Equal(h.metadata, a.metadata) && (h.revision == 0 || h.revision == a.revision)
}

// ledger is a writer that alone writes its keys, and knows what each must hold.
type ledger struct {
	name    string
	r       *rand.Rand
	keys    map[string]held
	names   []string        // of keys, in the order they came
	touched map[string]bool // in this round
	doubts  map[string]held // of keys whose last write had no answer: what they then hold, if not what they held
}

func newLedger(name string, r *rand.Rand) *ledger {
	return &ledger{name: name, r: r, keys: map[string]held{}, touched: map[string]bool{}, doubts: map[string]held{}}
}

// Sizes of values: most are small, some large, so that a kill meets both.
func (l *ledger) size() int {
	switch n := l.r.IntN(200); {
	case n == 0:
		return 1<<20 + l.r.IntN(1<<20)
	case n < 10:
		return l.r.IntN(256 << 10)
	default:
		return l.r.IntN(2048)
	}
}

func (l *ledger) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(l.r.Uint32())
	}
	return b
}

// pick is a new key, or one of those written lately that is in no doubt: a write without
// an answer may still be under way.
func (l *ledger) pick() string {
	if len(l.names) >= 5 && l.r.IntN(4) > 0 {
		key := l.names[len(l.names)-1-l.r.IntN(5)]
		if _, doubt := l.doubts[key]; !doubt {
			return key
		}
	}
	// Any bytes may be in a key.
	key := fmt.Sprintf("%s/%d \x00\xff%%", l.name, len(l.names))
	l.names = append(l.names, key)
	return key
}

// writeOne puts or deletes a key, notes what came of it, and tells what is known.
func (l *ledger) writeOne(ctx context.Context, kv *truth) (_ came, err error) {
	key := l.pick()
	was := l.keys[key]
	next := held{there: true, value: l.bytes(l.size()), metadata: l.bytes(l.r.IntN(3) * 10)}
	condition := hostcall.AnyRevision
	if l.r.IntN(3) == 0 {
		condition = int64(was.revision) // only this writer writes it: it is met
		if !was.there {
			condition = hostcall.AbsentRevision
		}
	}
	l.touched[key] = true
	var a answer
	if was.there && l.r.IntN(4) == 0 {
		next = held{}
		a, err = kv.remove(ctx, key, condition)
	} else {
		a, err = kv.put(ctx, key, next.value, next.metadata, condition)
	}
	switch {
	case err != nil || a.came == never:
		return never, err
	case a.came == done && !a.absent:
		next.revision = a.revision
		l.keys[key] = next
		return done, nil
	case a.came == maybe:
		l.doubts[key] = next
		return maybe, nil
	}
	return never, fmt.Errorf("%q: came to %+v, held at %d", key, a, was.revision)
}

// check reads the keys of this round and some of before, or all.
func (l *ledger) check(ctx context.Context, kv *truth, all bool) error {
	for _, key := range l.names {
		if !all && !l.touched[key] && l.r.IntN(len(l.names)) >= 5 {
			continue
		}
		a, err := certain(ctx, func() (answer, error) { return kv.get(ctx, key) })
		if err != nil {
			return err
		}
		want := l.keys[key]
		perhaps, doubt := l.doubts[key]
		if doubt && !want.holds(a) && perhaps.holds(a) {
			perhaps.revision = a.revision
			l.keys[key] = perhaps
		} else if !want.holds(a) {
			return fmt.Errorf("%q: acknowledged %d bytes at revision %d (there: %v); read came to %d, %d bytes at %d",
				key, len(want.value), want.revision, want.there, a.came, len(a.value), a.revision)
		}
	}
	clear(l.doubts)
	clear(l.touched)
	return nil
}

// tally counts one key up together with others.
type tally struct {
	key string
	mu  struct {
		sync.Mutex
		acked, perhaps int64
		sums           map[int64]bool
	}
}

func (c *tally) countOne(ctx context.Context, kv *truth, by int64) (came, error) {
	a, err := kv.increment(ctx, c.key, by)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil || a.came == never:
		return never, err
	case a.came == maybe:
		c.mu.perhaps += by
		return maybe, nil
	case a.came != done || c.mu.sums[a.sum]:
		return never, fmt.Errorf("%s: came to %+v; answered before: %v", c.key, a, c.mu.sums[a.sum])
	}
	c.mu.acked += by
	c.mu.sums[a.sum] = true
	return done, nil
}

// check has the number be what was acknowledged, and some of what nobody knows of.
func (c *tally) check(ctx context.Context, kv *truth) error {
	a, err := certain(ctx, func() (answer, error) { return kv.increment(ctx, c.key, 0) })
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.came != done || a.sum < c.mu.acked || a.sum > c.mu.acked+c.mu.perhaps {
		return fmt.Errorf("%s is %d (came to %d): acknowledged %d, perhaps %d more", c.key, a.sum, a.came, c.mu.acked, c.mu.perhaps)
	}
	c.mu.acked, c.mu.perhaps = a.sum, 0
	return nil
}

// Control is killed on the spot, again and again, while many write: puts, deletions
// and increments that were acknowledged are there, byte for byte, after each.
// SELVAGE_KV_ROUNDS is how many times, SELVAGE_KV_SEED=N replays what is written.
func TestAcknowledgedWritesOutliveKills(t *testing.T) {
	w := openWorld(t, "127.0.8.10")
	rounds, seed := int(setting(t, "SELVAGE_KV_ROUNDS", 20)), setting(t, "SELVAGE_KV_SEED", rand.Uint64())
	t.Logf("SELVAGE_KV_SEED=%d replays this", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	w.selvage(t, "kv", "create", "kept").expect(t, exitOK)
	w.end(w.Layout.Edges[0]) // nobody follows: control is all that is tried
	kv := w.truth(t, "kept")
	var writers []*ledger
	for i := range 6 {
		writers = append(writers, newLedger(fmt.Sprint("w", i), rand.New(rand.NewPCG(seed, uint64(i+1)))))
	}
	count := &tally{key: "count"}
	count.mu.sums = map[int64]bool{}
	total := 0
	for round := range rounds {
		total += w.writeUntilKilled(t, kv, writers, count, r, 1+r.IntN(150))
		w.restartControl(t)
		if err := count.check(t.Context(), kv); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		var all sync.WaitGroup
		for _, l := range writers {
			all.Go(func() {
				if err := l.check(t.Context(), kv, round == rounds-1); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		if all.Wait(); t.Failed() {
			return
		}
	}
	t.Logf("%d writes were acknowledged over %d kills", total, rounds)
}

// writeUntilKilled has all write until nobody takes it, kills control a moment after so many writes were
// acknowledged, and returns how many were when all had noticed.
func (w *world) writeUntilKilled(t *testing.T, kv *truth, writers []*ledger, count *tally, r *rand.Rand, after int) int {
	t.Helper()
	acked := make(chan struct{}, 1<<16)
	var all sync.WaitGroup
	work := func(one func() (came, error)) {
		all.Go(func() {
			for {
				came, err := one()
				if err != nil {
					t.Error(err)
				}
				switch came {
				case never:
					return
				case done:
					acked <- struct{}{}
				}
			}
		})
	}
	for _, l := range writers {
		work(func() (came, error) { return l.writeOne(t.Context(), kv) })
	}
	for range 2 {
		by := 1 + r.Int64N(9)
		work(func() (came, error) { return count.countOne(t.Context(), kv, by) })
	}
	stopped := make(chan struct{})
	go func() { all.Wait(); close(stopped) }()
	for range after {
		select {
		case <-acked:
		case <-stopped:
			t.Fatal("all writers stopped before control was killed")
		}
	}
	time.Sleep(time.Duration(r.IntN(5000)) * time.Microsecond) // any moment of a write, not only its end
	kill9(t, w.Control.PID())
	<-stopped
	return after + len(acked)
}
