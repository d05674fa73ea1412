package sched

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
)

func id(project, name string) function.ID { return function.ID{Project: project, Name: name} }

// However waiting ends, turns are neither lost nor made.
func TestTurns(t *testing.T) {
	const n, takers, rounds = 3, 16, 2000
	s := New(n)
	var inside, refused atomic.Int64
	var all sync.WaitGroup
	for i := range takers {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range rounds {
				var j Job
				s.Begin(&j, id(fmt.Sprint("p", i%3), fmt.Sprint("f", i%5)), 0)
				ctx, cancel := context.WithCancel(t.Context())
				if r.IntN(2) == 0 {
					go cancel()
				}
				for range 1 + r.IntN(3) {
					if s.Take(ctx, &j) != nil {
						refused.Add(1)
						break
					}
					if now := inside.Add(1); now > n {
						t.Errorf("%d turns of %d are taken", now, n)
					}
					runtime.Gosched()
					inside.Add(-1)
					s.Give(&j, time.Duration(r.IntN(1000)))
				}
				cancel()
				j.End()
			}
		})
	}
	all.Wait()
	if free := s.free.Load(); free != n || s.Waiting() != 0 || s.mu.queue.Projects() != 0 {
		t.Errorf("at the end %d turns are free, %d jobs wait, %d projects are queued", free, s.Waiting(), s.mu.queue.Projects())
	}
	t.Logf("%d left before their turn", refused.Load())
	var j Job
	s.Begin(&j, id("p", "f"), 0)
	for range n {
		if err := s.Take(t.Context(), &j); err != nil {
			t.Fatal(err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if s.Take(gone, &j) == nil {
		t.Error("a turn more than there are")
	}
}

// load is functions that compute without end, until it is ended.
type load struct {
	s      *Scheduler
	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

func newLoad(t *testing.T, n int) *load {
	l := &load{s: New(n)}
	l.ctx, l.cancel = context.WithCancel(t.Context())
	return l
}

func (l *load) end() {
	l.cancel()
	l.wait.Wait()
}

// compute has jobs of a function compute, in slices of a millisecond; it returns a
// count of those.
func (l *load) compute(f function.ID, jobs int) *atomic.Int64 { return l.weighed(f, jobs, 0) }

func (l *load) weighed(f function.ID, jobs, weight int) *atomic.Int64 {
	used := new(atomic.Int64)
	for range jobs {
		l.wait.Go(func() {
			var j Job
			l.s.Begin(&j, f, weight)
			defer j.End()
			for l.ctx.Err() == nil && l.s.Take(l.ctx, &j) == nil {
				time.Sleep(time.Millisecond)
				used.Add(1)
				l.s.Give(&j, time.Millisecond)
			}
		})
	}
	return used
}

// Projects share alike, whatever functions and jobs each has; in a project its
// functions do, and in a function its jobs.
func TestShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoad(t, 1)
		a1, a2, b1 := l.compute(id("a", "one"), 1), l.compute(id("a", "two"), 9), l.compute(id("b", "one"), 30)
		time.Sleep(900 * time.Millisecond)
		for name, c := range map[string][2]int64{"a's first": {a1.Load(), 225}, "a's second": {a2.Load(), 225}, "b": {b1.Load(), 450}} {
			if c[0] < c[1]-10 || c[0] > c[1]+10 {
				t.Errorf("%s had %d of 900 ms, want about %d", name, c[0], c[1])
			}
		}
		// Who comes late has no claim to what it did not use.
		before := a1.Load() + a2.Load() + b1.Load()
		c1 := l.compute(id("c", "one"), 1)
		time.Sleep(300 * time.Millisecond)
		if others := a1.Load() + a2.Load() + b1.Load() - before; c1.Load() < 90 || others < 190 {
			t.Errorf("the late one had %d, the others %d of 300 ms", c1.Load(), others)
		}
		l.end()
	})
}

// A function's weight counts against its project's others, not against other projects.
func TestWeights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoad(t, 1)
		light, heavy, other := l.compute(id("a", "light"), 5), l.weighed(id("a", "heavy"), 1, 30), l.weighed(id("b", "one"), 1, 100)
		time.Sleep(800 * time.Millisecond)
		for name, c := range map[string][2]int64{"light": {light.Load(), 100}, "heavy": {heavy.Load(), 300}, "the other project": {other.Load(), 400}} {
			if c[0] < c[1]-10 || c[0] > c[1]+10 {
				t.Errorf("%s had %d of 800 ms, want about %d", name, c[0], c[1])
			}
		}
		l.end()
	})
}

// Who has no turn by when it wanted one leaves, and is not in anybody's way.
func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(1)
		var running, waits Job
		s.Begin(&running, id("p", "f"), 0)
		s.Begin(&waits, id("p", "f"), 0)
		if err := s.TakeBy(t.Context(), &running, time.Now().Add(-time.Hour)); err != nil {
			t.Fatalf("a turn that was free: %v", err)
		}
		begin := time.Now()
		if err := s.TakeBy(t.Context(), &waits, begin.Add(time.Second)); err != ErrLate || time.Since(begin) != time.Second {
			t.Errorf("%v after %v, want %v after a second", err, time.Since(begin), ErrLate)
		}
		if s.Waiting() != 0 {
			t.Errorf("%d wait", s.Waiting())
		}
		s.Give(&running, 0)
		if err := s.TakeBy(t.Context(), &waits, time.Now().Add(time.Second)); err != nil {
			t.Error(err)
		}
	})
}

// A short job of a quiet function waits for the end of one slice, behind however many others.
func TestAQuietFunctionIsNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoad(t, 2)
		for i := range 20 {
			l.compute(id("loud", fmt.Sprint(i)), 10)
		}
		for i := range 50 {
			time.Sleep(17*time.Millisecond + time.Duration(i)*time.Microsecond)
			var j Job
			begin := time.Now()
			l.s.Begin(&j, id("quiet", "one"), 0)
			if err := l.s.Take(t.Context(), &j); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(begin); waited > time.Millisecond {
				t.Errorf("it waited %v", waited)
			}
			l.s.Give(&j, 50*time.Microsecond)
			j.End()
		}
		l.end()
	})
}

// In a function, a new invocation goes before those that have computed long.
func TestShortBeforeLong(t *testing.T) {
	s := New(1)
	var running Job
	s.Begin(&running, id("p", "f"), 0)
	if err := s.Take(t.Context(), &running); err != nil {
		t.Fatal(err)
	}
	order := make(chan string, 3)
	var all sync.WaitGroup
	for i, name := range []string{"long", "longer", "new"} {
		j := &Job{}
		s.Begin(j, id("p", "f"), 0)
		j.used = []time.Duration{5, 9, 0}[i]
		all.Go(func() {
			if s.Take(t.Context(), j) == nil {
				order <- name
				s.Give(j, 0)
			}
		})
		for s.Waiting() != i+1 {
			runtime.Gosched()
		}
	}
	s.Give(&running, 0)
	all.Wait()
	if got := <-order + " " + <-order + " " + <-order; got != "new long longer" {
		t.Errorf("served: %s", got)
	}
}

// What was used while nobody else wanted to run is not held against a function for long.
func TestAPastAloneIsForgiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoad(t, 1)
		var j Job
		l.s.Begin(&j, id("old", "f"), 0)
		for range 10_000 { // ten seconds
			if err := l.s.Take(t.Context(), &j); err != nil {
				t.Fatal(err)
			}
			l.s.Give(&j, time.Millisecond)
		}
		j.End()
		old, fresh := l.compute(id("old", "f"), 1), l.compute(id("new", "f"), 1)
		time.Sleep(400 * time.Millisecond)
		if old.Load() < 150 {
			t.Errorf("it had %d, the other %d of 400 ms", old.Load(), fresh.Load())
		}
		l.end()
	})
}

// Accounts of functions that are gone do not pile up, and one that is in use stays.
func TestAccountsAreBounded(t *testing.T) {
	s := New(1)
	var stays Job
	s.Begin(&stays, id("stays", "f"), 0)
	for i := range 3 * maxIdle {
		var j Job
		s.Begin(&j, id(fmt.Sprint("p", i), "f"), 0)
		j.End()
	}
	if s.mu.known > maxIdle || s.mu.queue.Known() > maxIdle {
		t.Errorf("%d functions, %d projects", s.mu.known, s.mu.queue.Known())
	}
	if v, ok := s.accounts.Load(id("stays", "f")); !ok || v != stays.account {
		t.Error("the account of a job was dropped")
	}
}

func BenchmarkFreeTurn(b *testing.B) {
	s := New(runtime.GOMAXPROCS(0))
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			var j Job
			s.Begin(&j, id("p", "f"), 0)
			if s.Take(b.Context(), &j) != nil {
				b.Error("no turn")
			}
			s.Give(&j, time.Microsecond)
			j.End()
		}
	})
}
