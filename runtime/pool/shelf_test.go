package pool

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// book counts how often it was closed.
type book struct{ closed atomic.Int32 }

func (b *book) Close()       { b.closed.Add(1) }
func (b *book) Bytes() int64 { return 7 }

func TestShelfLoadsOnceAndClosesWithTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shelf[*book]
		var loads atomic.Int32
		b := &book{}
		load := func(context.Context) (*book, error) {
			loads.Add(1)
			time.Sleep(time.Second)
			return b, nil
		}
		holds := make([]*hold[*book], 8)
		var all sync.WaitGroup
		for i := range holds {
			all.Go(func() {
				h, err := s.take(t.Context(), "d", load)
				if err != nil {
					t.Error(err)
				}
				holds[i] = h
			})
		}
		all.Wait()
		if loads.Load() != 1 || lenOf(&s) != 1 {
			t.Fatalf("%d loads, %d held", loads.Load(), lenOf(&s))
		}
		for i, h := range holds {
			if b.closed.Load() != 0 {
				t.Fatalf("closed with %d users left", len(holds)-i)
			}
			h.release()
		}
		if b.closed.Load() != 1 || lenOf(&s) != 0 {
			t.Errorf("closed %d times, %d held", b.closed.Load(), lenOf(&s))
		}
	})
}

func TestShelfTriesAnewAfterAFailure(t *testing.T) {
	var s shelf[*book]
	bad := errors.New("no compiler")
	if _, err := s.take(t.Context(), "d", func(context.Context) (*book, error) { return nil, bad }); err != bad {
		t.Fatalf("got %v", err)
	}
	h, err := s.take(t.Context(), "d", func(context.Context) (*book, error) { return &book{}, nil })
	if err != nil {
		t.Fatal(err)
	}
	h.release()
}

func TestShelfGoesOnWhenTheLoaderGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shelf[*book]
		load := func(ctx context.Context) (*book, error) {
			select {
			case <-time.After(10 * time.Second):
				return &book{}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := s.take(short, "d", load); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the first: %v", err)
			}
		})
		synctest.Wait()
		all.Go(func() {
			h, err := s.take(t.Context(), "d", load)
			if err != nil {
				t.Errorf("the second: %v", err)
				return
			}
			h.release()
		})
		all.Wait()
		if lenOf(&s) != 0 {
			t.Errorf("%d held", lenOf(&s))
		}
	})
}

func lenOf(s *shelf[*book]) int {
	n, bytes := s.size()
	if bytes != int64(7*n) {
		panic("a shelf weighs other than what it holds")
	}
	return n
}
