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

// fill puts n keys of that value, which they share, and returns the keys.
func (o *truth) fill(n int, value []byte) (keys []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range n {
		key := fmt.Sprint("k", i)
		o.seq++
		o.set(ns, key, hostcall.Entry{Value: value, Revision: o.seq})
		keys = append(keys, key)
	}
	return keys
}

// A read of more than one may have asks for no more than is under way when that shows.
func TestReadOfTooMuchStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		o.delay = time.Millisecond
		s := open(t, o, Config{})
		keys := o.fill(hostcall.MaxReadKeys, make([]byte, hostcall.MaxValueBytes))
		if _, err := s.Read(ctx, ns, keys, hostcall.ReadOptions{}); !errors.Is(err, hostcall.ErrTooLarge) {
			t.Errorf("got %v", err)
		}
		if o.asked > maxAsking {
			t.Errorf("asked %d times", o.asked)
		}
	})
}

// What memory has counts too, and what fits is read to the end.
func TestReadOfManyCountsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		o.delay = time.Millisecond
		s := open(t, o, Config{})
		keys := o.fill(hostcall.MaxReadKeys, make([]byte, hostcall.MaxReadBytes/hostcall.MaxReadKeys))
		for range 2 {
			got, err := s.Read(ctx, ns, keys, hostcall.ReadOptions{})
			if err != nil || len(got) != len(keys) {
				t.Fatalf("%d answers, %v", len(got), err)
			}
			for i, r := range got {
				if r.Err != nil || len(r.Value) != hostcall.MaxReadBytes/hostcall.MaxReadKeys {
					t.Errorf("%s: %d bytes, %v", keys[i], len(r.Value), r.Err)
				}
			}
			synctest.Wait()
		}
		o.put(t, ns, "one more", string(make([]byte, 1<<10)))
		many := append(keys[1:], "one more")
		if _, err := s.Read(ctx, ns, many, hostcall.ReadOptions{}); err != nil {
			t.Errorf("a smaller one instead of one of those: %v", err)
		}
		o.put(t, ns, "a large one", string(make([]byte, 1<<20)))
		many[0] = "a large one"
		if _, err := s.Read(ctx, ns, many, hostcall.ReadOptions{}); !errors.Is(err, hostcall.ErrTooLarge) {
			t.Errorf("a larger one: %v", err)
		}
	})
}

func TestReadOfManyFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		o.delay, o.away = time.Millisecond, errors.New("away")
		s := open(t, o, Config{})
		keys := o.fill(hostcall.MaxReadKeys, nil)
		if _, err := s.Read(ctx, ns, keys, hostcall.ReadOptions{}); !errors.Is(err, o.away) {
			t.Errorf("got %v", err)
		}
		if o.asked > maxAsking {
			t.Errorf("asked %d times", o.asked)
		}
	})
}

// tardy holds its answers to Read back until the gate opens.
type tardy struct {
	*truth
	gate chan struct{}
	once sync.Once
}

func (h *tardy) Read(ctx context.Context, ns hostcall.Namespace, keys []string, o hostcall.ReadOptions) (out []hostcall.Result, err error) {
	out, err = h.truth.Read(ctx, ns, keys, o)
	h.once.Do(func() { <-h.gate })
	return out, err
}

// A strong read's "not found" says what was at its revision: a value that came since,
// by the stream or by this node's own write, stays, and is not asked for again.
func TestNotFoundDoesNotHideWhatIsNewer(t *testing.T) {
	for name, write := range map[string]func(*testing.T, *truth, *Store){
		"told": func(t *testing.T, o *truth, s *Store) {
			rev := o.put(t, ns, "k", "new")
			s.Apply(ns, Changes{Epoch: 1, From: 0, To: rev, List: []Change{{Key: "k", Revision: rev, Value: []byte("new")}}})
		},
		"written here": func(t *testing.T, _ *truth, s *Store) {
			if _, err := s.Put(ctx, ns, "k", []byte("new"), anyTo); err != nil {
				t.Fatal(err)
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := &tardy{truth: newTruth(), gate: make(chan struct{})}
			h.put(t, ns, "other", "1") // so that the answer is as of a revision
			s := open(t, h, Config{})
			want(t, s, ns, "k", "") // the key is one that the stream keeps
			synctest.Wait()
			read := make(chan error)
			go func() {
				out, err := s.Read(ctx, ns, []string{"k"}, hostcall.ReadOptions{Strong: true})
				if err == nil {
					err = out[0].Err
				}
				read <- err
			}()
			synctest.Wait() // the origin has found nothing, and holds the answer back
			write(t, h.truth, s)
			synctest.Wait()
			close(h.gate)
			if err := <-read; !errors.Is(err, hostcall.ErrNotFound) {
				t.Errorf("%s: the strong read: %v", name, err)
			}
			synctest.Wait()
			asked := h.asked
			want(t, s, ns, "k", "new")
			if h.asked != asked {
				t.Errorf("%s: the value was given up", name)
			}
		})
	}
}

// And one that is newer than what is kept hides it.
func TestNotFoundHidesWhatIsOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		s := open(t, o, Config{})
		o.put(t, ns, "k", "old")
		want(t, s, ns, "k", "old")
		synctest.Wait()
		if _, err := o.Delete(ctx, ns, "k", hostcall.AnyRevision); err != nil { // the stream has yet to say so
			t.Fatal(err)
		}
		out, err := s.Read(ctx, ns, []string{"k"}, hostcall.ReadOptions{Strong: true})
		if err != nil || !errors.Is(out[0].Err, hostcall.ErrNotFound) {
			t.Errorf("the strong read: %+v, %v", out, err)
		}
		synctest.Wait()
		want(t, s, ns, "k", "")
	})
}
