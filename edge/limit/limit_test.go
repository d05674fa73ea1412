package limit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
)

var (
	a = function.ID{Project: "p", Name: "a"}
	b = function.ID{Project: "p", Name: "b"}
	c = function.ID{Project: "q", Name: "c"}
)

func kindOf(err error) fault.Kind {
	var e *fault.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Kind
}

// admit asks for a place with a deadline an hour away.
func admit(t testing.TB, l *Limiter, id function.ID, limits function.Limits) (Ticket, error) {
	return l.Admit(t.Context(), id, limits, time.Now().Add(time.Hour))
}

// held admits n exchanges that find room at once.
func held(t *testing.T, l *Limiter, id function.ID, limits function.Limits, n int) (all []Ticket) {
	t.Helper()
	for range n {
		ticket, err := admit(t, l, id, limits)
		if err != nil || ticket.Waited != 0 {
			t.Fatalf("%v, after %v", err, ticket.Waited)
		}
		all = append(all, ticket)
	}
	return all
}

// In a bubble: has one more exchange wait; its outcome goes to the channel.
func queue(t *testing.T, l *Limiter, id function.ID, limits function.Limits, out chan<- function.ID) {
	before := l.Stats().Waiting
	go func() {
		ticket, err := admit(t, l, id, limits)
		if err != nil {
			t.Error(err)
		}
		out <- id
		ticket.Release()
	}()
	synctest.Wait()
	if now := l.Stats().Waiting; now != before+1 {
		t.Fatalf("%d wait, want %d", now, before+1)
	}
}

func TestAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, two := New(Config{Node: 3, Queue: 4}), function.Limits{Concurrency: 2, Queue: 2}
		first := held(t, l, a, two, 2)
		held(t, l, b, two, 1)
		out := make(chan function.ID, 9)
		queue(t, l, a, two, out)
		queue(t, l, a, two, out)
		if _, err := admit(t, l, a, two); kindOf(err) != fault.Busy {
			t.Errorf("a third in a queue of two: %v, want busy", err)
		}
		if _, err := admit(t, l, b, two); kindOf(err) != fault.Capacity {
			t.Errorf("a project that has half of the queue wants more: %v, want capacity", err)
		}
		queue(t, l, c, two, out)
		if _, err := admit(t, l, c, two); kindOf(err) != fault.Capacity {
			t.Errorf("another, with a third of it: %v, want capacity", err)
		}
		if got, want := l.Stats(), (Stats{Running: 3, Waiting: 3, Functions: 2, Shed: Shed{Busy: 1, Capacity: 2}}); got != want {
			t.Errorf("stats %+v, want %+v", got, want)
		}
		first[0].Release()
		first[1].Release()
		synctest.Wait()
		if got := l.Stats(); len(out) != 3 || got.Waiting != 0 || got.Running != 1 {
			t.Errorf("%d came in, stats %+v", len(out), got)
		}
	})
}

// A full queue is answered at once, by counts alone: with hundreds who wait and
// with thousands it does the same, allocates the same, and touches no queue and no timer.
func TestShedAtOnce(t *testing.T) {
	var allocations [2]float64
	for i, depth := range []int{300, 4000} {
		synctest.Test(t, func(t *testing.T) {
			l, one := New(Config{Queue: 100_000}), function.Limits{Concurrency: 1, Queue: depth}
			running := held(t, l, a, one, 1)
			out := make(chan function.ID, depth)
			for range depth {
				queue(t, l, a, one, out)
			}
			begin, before := time.Now(), l.Stats()
			const asked = 100
			allocations[i] = testing.AllocsPerRun(asked, func() {
				if _, err := admit(t, l, a, one); kindOf(err) != fault.Busy {
					t.Errorf("got %v", err)
				}
			})
			before.Shed.Busy += asked + 1 // AllocsPerRun warms up
			if took := time.Since(begin); took != 0 || l.Stats() != before {
				t.Errorf("it waited %v; stats %+v, want %+v", took, l.Stats(), before)
			}
			running[0].Release()
			for range depth {
				<-out
			}
		})
	}
	if allocations[0] != allocations[1] || allocations[0] > 10 {
		t.Errorf("%v allocations with few who wait, %v with many", allocations[0], allocations[1])
	}
}

// Who waits is told so at its deadline, and leaves with its client; neither keeps a place.
func TestLeavingTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, one := New(Config{}), function.Limits{Concurrency: 1}
		running := held(t, l, a, one, 1)
		begin := time.Now()
		ticket, err := l.Admit(t.Context(), a, one, begin.Add(time.Second))
		if kindOf(err) != fault.Shed || time.Since(begin) != time.Second || ticket.Waited != time.Second {
			t.Errorf("%v after %v, which says %v", err, time.Since(begin), ticket.Waited)
		}
		ticket.Release() // nothing was admitted, nothing is given back
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(3*time.Second, leave)
		if _, err := l.Admit(ctx, a, one, time.Now().Add(time.Hour)); kindOf(err) != fault.Canceled || time.Since(begin) != 4*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if got, want := l.Stats(), (Stats{Running: 1, Functions: 1, Shed: Shed{Late: 1, Left: 1}}); got != want {
			t.Errorf("stats %+v, want %+v", got, want)
		}
		running[0].Release()
		held(t, l, a, one, 1)
	})
}

// A node's places go to projects in turn, and in a project by weight, however many wait.
func TestPlacesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Node: 1, Queue: 1000})
		running := held(t, l, a, function.Limits{}, 1)
		out := make(chan function.ID)
		for range 90 {
			queue(t, l, a, function.Limits{Weight: 10}, out)
			queue(t, l, b, function.Limits{Weight: 20}, out)
		}
		for range 30 {
			queue(t, l, c, function.Limits{}, out)
		}
		running[0].Release()
		had := map[function.ID]int{}
		for range 60 {
			had[<-out]++
		}
		for id, want := range map[function.ID]int{a: 10, b: 20, c: 30} {
			if d := had[id] - want; d < -1 || d > 1 {
				t.Errorf("%s had %d of 60 places, want %d", id, had[id], want)
			}
		}
		for range 150 {
			<-out
		}
		synctest.Wait()
		if got := l.Stats(); got.Running != 0 || got.Waiting != 0 {
			t.Errorf("stats %+v", got)
		}
	})
}

// A new version with more places lets in who waited for the old one's.
func TestAVersionWithMorePlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, out := New(Config{}), make(chan function.ID, 2)
		running := held(t, l, a, function.Limits{Concurrency: 1}, 1)
		queue(t, l, a, function.Limits{Concurrency: 1}, out)
		ticket, err := admit(t, l, a, function.Limits{Concurrency: 3})
		if err != nil || <-out != a {
			t.Error(err)
		}
		ticket.Release()
		running[0].Release()
	})
}

// However waiting ends, places are neither lost nor made.
func TestPlaces(t *testing.T) {
	const node, takers, rounds = 5, 24, 500
	l := New(Config{Node: node})
	var inside, refused atomic.Int64
	var all sync.WaitGroup
	for i := range takers {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			id := function.ID{Project: fmt.Sprint("p", i%3), Name: fmt.Sprint("f", i%5)}
			for range rounds {
				ctx, cancel := context.WithCancel(t.Context())
				if r.IntN(2) == 0 {
					go cancel()
				}
				ticket, err := l.Admit(ctx, id, function.Limits{Concurrency: 2, Queue: 3, Weight: 1 + r.IntN(100)}, time.Now().Add(time.Duration(r.IntN(300))*time.Microsecond))
				if err != nil {
					refused.Add(1)
				} else {
					if now := inside.Add(1); now > node {
						t.Errorf("%d run on a node of %d", now, node)
					}
					inside.Add(-1)
				}
				ticket.Release()
				cancel()
			}
		})
	}
	all.Wait()
	s := l.Stats()
	if s.Running != 0 || s.Waiting != 0 || s.Functions != 0 || len(l.mu.projects) != 0 || l.mu.queue.Projects() != 0 {
		t.Errorf("stats %+v; %d projects wait", s, len(l.mu.projects))
	}
	if sum := s.Shed.Busy + s.Shed.Capacity + s.Shed.Late + s.Shed.Left; sum != uint64(refused.Load()) {
		t.Errorf("%d were refused, %+v counted", refused.Load(), s.Shed)
	}
}

func TestIdleFunctionsAreForgotten(t *testing.T) {
	l := New(Config{})
	kept := held(t, l, a, function.Limits{}, 1)
	for i := range 3 * maxIdle {
		held(t, l, function.ID{Project: fmt.Sprint(i), Name: "f"}, function.Limits{}, 1)[0].Release()
	}
	if n := len(l.mu.functions); n > maxIdle+1 || l.mu.queue.Known() != n || l.mu.functions[a] == nil {
		t.Errorf("%d functions, %d projects; a is known: %t", n, l.mu.queue.Known(), l.mu.functions[a] != nil)
	}
	kept[0].Release()
}

func TestRetryAfterIsJittered(t *testing.T) {
	for n := range int64(5) {
		l := New(Config{Rand: func(limit int64) int64 {
			if limit != 5 {
				t.Fatalf("a number below %d, want 5", limit)
			}
			return n
		}})
		if got := l.RetryAfter(); got != time.Duration(1+n)*time.Second {
			t.Errorf("got %v for %d", got, n)
		}
	}
}

func BenchmarkAdmit(b *testing.B) {
	l := New(Config{})
	b.ReportAllocs()
	for b.Loop() {
		ticket, err := admit(b, l, a, function.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		ticket.Release()
	}
}
