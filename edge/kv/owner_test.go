package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// pop is three nodes of which the last looks after every key.
type pop struct {
	nodes [3]*Store
	asked int
	away  error
	mu    sync.Mutex
}

func newPop(t *testing.T, o hostcall.KV) *pop {
	t.Helper()
	p := &pop{}
	for i := range p.nodes {
		c := Config{}
		if i < 2 {
			c.Owner = func(hostcall.Namespace, string) Owner { return p }
		}
		p.nodes[i] = open(t, o, c)
	}
	return p
}

func (p *pop) Ask(ctx context.Context, ns hostcall.Namespace, key string, q Question) (hostcall.Entry, error) {
	p.mu.Lock()
	p.asked++
	away := p.away
	p.mu.Unlock()
	if away != nil {
		return hostcall.Entry{}, away
	}
	return p.nodes[2].Own(ctx, ns, key, q)
}

// Ten thousand who miss one key at once, on three nodes, are one question to the origin.
func TestThunderingHerd(t *testing.T) {
	for _, there := range []bool{true, false} {
		t.Run(fmt.Sprint("there ", there), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newTruth()
				o.delay = 100 * time.Millisecond
				if there {
					o.set(ns, "k", hostcall.Entry{Value: []byte("v"), Revision: 1})
				}
				p := newPop(t, o)
				var all sync.WaitGroup
				for i := range 10_000 {
					all.Go(func() {
						e, err := p.nodes[i%3].Get(ctx, ns, "k")
						if there && (err != nil || string(e.Value) != "v") || !there && !errors.Is(err, hostcall.ErrNotFound) {
							t.Errorf("%q, %v", e.Value, err)
						}
					})
				}
				all.Wait()
				if o.asked != 1 || p.asked != 2 {
					t.Errorf("the origin was asked %d times, the owner %d times", o.asked, p.asked)
				}
				for i, n := range p.nodes {
					if u := n.Usage(); len(u) != 1 || u[0].Misses != 1 || u[0].Owner+u[0].Origin != 1 || (u[0].Origin == 1) != (i == 2) {
						t.Errorf("node %d counts %+v", i, u)
					}
				}
			})
		})
	}
}

func TestOwnerThatFailsIsNotNeeded(t *testing.T) {
	o := newTruth()
	o.set(ns, "k", hostcall.Entry{Value: []byte("v"), Revision: 1})
	p := newPop(t, o)
	p.away = hostcall.ErrUnavailable
	if e, err := p.nodes[0].Get(ctx, ns, "k"); err != nil || string(e.Value) != "v" || p.asked != 1 || o.asked != 1 {
		t.Errorf("%q, %v; owner %d, origin %d", e.Value, err, p.asked, o.asked)
	}
}

// With the origin away, what one node of the PoP has is there for all.
func TestOwnerAnswersWithoutTheOrigin(t *testing.T) {
	o := newTruth()
	o.set(ns, "k", hostcall.Entry{Value: []byte("v"), Metadata: []byte("m"), Revision: 1})
	p := newPop(t, o)
	if _, err := p.nodes[2].Get(ctx, ns, "k"); err != nil {
		t.Fatal(err)
	}
	p.nodes[2].entries.cache.Wait()
	o.away = hostcall.ErrUnavailable
	if e, err := p.nodes[0].Get(ctx, ns, "k"); err != nil || string(e.Value) != "v" || string(e.Metadata) != "m" || e.Revision != 1 {
		t.Errorf("%+v, %v", e, err)
	}
}

// An owner whose stream is behind what the asker knows asks the origin.
func TestOwnerBehindTheAsker(t *testing.T) {
	o := newTruth()
	p := newPop(t, o)
	if _, err := p.nodes[0].Put(ctx, ns, "k", []byte("1"), anyTo); err != nil {
		t.Fatal(err)
	}
	if _, err := p.nodes[2].Get(ctx, ns, "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.nodes[1].Put(ctx, ns, "k", []byte("2"), anyTo); err != nil {
		t.Fatal(err)
	}
	p.nodes[1].entries.drop(p.nodes[1].space(ns).generation(), "k")
	if e, err := p.nodes[1].Get(ctx, ns, "k"); err != nil || string(e.Value) != "2" {
		t.Errorf("its own write reads as %q, %v", e.Value, err)
	}
}

func TestOwnNeedsTheSameEpoch(t *testing.T) {
	s := open(t, newTruth(), Config{})
	for _, epoch := range []uint64{0, 2} {
		if _, err := s.Own(ctx, ns, "k", Question{Epoch: epoch}); !errors.Is(err, ErrNoOwner) {
			t.Errorf("epoch %d: %v", epoch, err)
		}
	}
}

// A false revision far ahead, from a neighbour, is gone within a moment, and no value is kept by it.
func TestFalseRevisionOfANeighbourPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		o.set(ns, "k", hostcall.Entry{Value: []byte("true"), Revision: 1})
		s := open(t, o, Config{Owner: func(hostcall.Namespace, string) Owner { return liar{} }})
		if e, err := s.Get(ctx, ns, "k"); err != nil || string(e.Value) != "false" {
			t.Fatalf("%q, %v", e.Value, err)
		}
		if _, err := s.Get(ctx, ns, "absent"); !errors.Is(err, hostcall.ErrNotFound) || o.asked != 1 {
			t.Errorf("a false absence: %v, the truth was asked %d times", err, o.asked)
		}
		time.Sleep(31 * time.Second)
		s.config.Owner = nil
		if e, err := s.Get(ctx, ns, "k"); err != nil || string(e.Value) != "true" {
			t.Errorf("then: %q, %v", e.Value, err)
		}
	})
}

type liar struct{}

func (liar) Ask(_ context.Context, _ hostcall.Namespace, key string, _ Question) (hostcall.Entry, error) {
	if key == "absent" {
		return hostcall.Entry{AsOf: 1 << 62}, hostcall.ErrNotFound
	}
	return hostcall.Entry{Value: []byte("false"), Revision: 1 << 62, AsOf: 1 << 62}, nil
}

func TestStrongAndAtLeast(t *testing.T) {
	o := newTruth()
	s := open(t, o, Config{})
	rev, err := s.Put(ctx, ns, "k", []byte("1"), anyTo)
	if err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	o.seq++
	beyond := o.seq
	o.set(ns, "k", hostcall.Entry{Value: []byte("2"), Revision: beyond})
	o.mu.Unlock()
	read := func(keys []string, opt hostcall.ReadOptions) string {
		t.Helper()
		s.entries.cache.Wait()
		got, err := s.Read(ctx, ns, keys, opt)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s %v", got[0].Value, got[0].Stale >= 0)
	}
	asked := o.asked
	for _, c := range []struct {
		opt   hostcall.ReadOptions
		want  string
		asked int
	}{
		{hostcall.ReadOptions{}, "1 true", 0},
		{hostcall.ReadOptions{AtLeast: rev}, "1 true", 0},
		{hostcall.ReadOptions{AtLeast: beyond}, "2 true", 1},
		{hostcall.ReadOptions{AtLeast: beyond}, "2 true", 1},
		{hostcall.ReadOptions{}, "2 true", 1}, // never back
		{hostcall.ReadOptions{Strong: true}, "2 true", 2},
	} {
		if got := read([]string{"k"}, c.opt); got != c.want || o.asked-asked != c.asked {
			t.Errorf("%+v: %s after %d questions, want %s after %d", c.opt, got, o.asked-asked, c.want, c.asked)
		}
	}
	got, err := s.Read(ctx, ns, []string{"k", "none", "k"}, hostcall.ReadOptions{})
	if err != nil || string(got[2].Value) != "2" || !errors.Is(got[1].Err, hostcall.ErrNotFound) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.Read(ctx, ns, make([]string, 101), hostcall.ReadOptions{}); !errors.Is(err, hostcall.ErrInvalid) {
		t.Errorf("101 keys: %v", err)
	}
}

// How old an answer may be is counted from what the stream said last, and over the
// namespace's limit nothing is answered without the origin.
func TestStalenessIsKnownAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		o.set(ns, "k", hostcall.Entry{Value: []byte("v"), Revision: 1})
		s := open(t, o, Config{})
		s.Limit(ns, 20*time.Second)
		apart := 3 * time.Hour // the store's clock is ahead: that must not matter
		mark := func() { s.Apply(ns, Changes{Epoch: 1, To: 1, At: time.Now().Add(apart)}) }
		mark()
		if _, err := s.Get(ctx, ns, "k"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if e, err := s.Get(ctx, ns, "k"); err != nil || e.Stale < 10*time.Second || e.Stale > 11*time.Second {
			t.Errorf("after 10 s: %v, %v", e.Stale, err)
		}
		mark()
		if e, err := s.Get(ctx, ns, "k"); err != nil || e.Stale > 100*time.Millisecond {
			t.Errorf("after a watermark: %v, %v", e.Stale, err)
		}
		o.away = hostcall.ErrUnavailable
		time.Sleep(19 * time.Second)
		if _, err := s.Get(ctx, ns, "k"); err != nil {
			t.Errorf("within the limit: %v", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := s.Get(ctx, ns, "k"); !errors.Is(err, hostcall.ErrUnavailable) {
			t.Errorf("over the limit: %v", err)
		}
		u := s.Usage()[0]
		if u.Refused != 1 || u.Hits != 3 || u.Stale[4] != 1 || u.Stale[5] != 1 {
			t.Errorf("counted %+v", u)
		}
		s.Limit(ns, 0)
		if e, err := s.Get(ctx, ns, "k"); err != nil || e.Stale < 21*time.Second {
			t.Errorf("without a limit: %v, %v", e.Stale, err)
		}
	})
}

// Time to live counts on the store's clock, whatever this node's says.
func TestExpiryIsOnTheStoresClock(t *testing.T) {
	for _, apart := range []time.Duration{-3 * time.Hour, 3 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := open(t, newTruth(), Config{})
			s.Apply(ns, Changes{Epoch: 1, At: time.Now().Add(apart)})
			if _, err := s.Put(ctx, ns, "own", []byte("v"), hostcall.PutOptions{TTL: time.Minute, IfRevision: hostcall.AnyRevision}); err != nil {
				t.Fatal(err)
			}
			s.entries.cache.Wait()
			e, err := s.Get(ctx, ns, "own")
			if left := e.Expires.Sub(time.Now().Add(apart)); err != nil || left > time.Minute || left < time.Minute-time.Second {
				t.Errorf("clocks %v apart: it has %v left, %v", apart, left, err)
			}
			n := s.space(ns)
			time.Sleep(59 * time.Second)
			if _, _, ok := s.cached(n, "own", 0); !ok {
				t.Errorf("clocks %v apart: gone too early", apart)
			}
			time.Sleep(2 * time.Second)
			if _, _, ok := s.cached(n, "own", 0); ok {
				t.Errorf("clocks %v apart: there too long", apart)
			}
		})
	}
}
