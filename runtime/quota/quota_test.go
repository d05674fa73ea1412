package quota

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Units are bounded for each and in all; who finds none waits, and may give up.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = 5 * time.Second
		p := New(400, 100)
		take := func(name string, n int64, want error) *Share {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			began := time.Now()
			s, err := p.Take(ctx, name, n)
			if !errors.Is(err, want) || want != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("%s: %v, want %v", name, err, want)
			}
			if waited := time.Since(began); (want != nil) != (waited == patience) {
				t.Errorf("%s: after %v", name, waited)
			}
			return s
		}
		whole := take("one", 1000, nil) // as much as one may hold
		if take("one", 1, ErrOwn); whole.Units() != 100 {
			t.Errorf("%d units", whole.Units())
		}
		whole.Keep(60)
		whole.Keep(90)
		part := take("one", 40, nil)
		take("one", 1, ErrOwn)
		for _, other := range []string{"two", "three", "four"} {
			s := take(other, 100, nil)
			defer s.Release()
		}
		take("five", 1, ErrAll)
		time.AfterFunc(time.Second, part.Release)
		s, err := p.Take(t.Context(), "five", 40)
		if err != nil {
			t.Fatal(err)
		}
		s.Release()
		s.Release() // gives nothing back twice
		whole.Release()
		(*Share)(nil).Keep(1)
		(*Share)(nil).Release()
		if p.Owners() != 3 {
			t.Errorf("%d hold some", p.Owners())
		}
	})
}

// Of those that hold or wait there are so many of one's at most; one more need not wait to be told.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(400, 100)
		p.Crowd(2)
		whole, err := p.Take(t.Context(), "one", 100)
		if err != nil {
			t.Fatal(err)
		}
		next := make(chan error, 1)
		go func() {
			s, err := p.Take(t.Context(), "one", 1)
			s.Release()
			next <- err
		}()
		synctest.Wait()
		if _, err := p.Take(t.Context(), "one", 1); !errors.Is(err, ErrOwn) {
			t.Errorf("a third: %v", err)
		}
		other, err := p.Take(t.Context(), "two", 100)
		if err != nil {
			t.Error(err)
		}
		other.Release()
		whole.Release()
		if err := <-next; err != nil || p.Owners() != 0 {
			t.Errorf("the second: %v, %d hold some", err, p.Owners())
		}
	})
}

// One who wants without end holds up nobody but itself, and leaves nothing behind.
func TestAFloodWaitsForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const took = time.Minute
		p := New(2, 1)
		over := make(chan string, 100)
		hold := func(name string) {
			s, err := p.Take(t.Context(), name, 1)
			if err != nil {
				t.Error(err)
				return
			}
			time.Sleep(took)
			s.Release()
			over <- name
		}
		for range 20 {
			go hold("flood")
		}
		synctest.Wait()
		begun := time.Now()
		for range 2 {
			hold("other")
		}
		if waited := time.Since(begun); waited != 2*took {
			t.Errorf("two of another took %s, alone %s", waited, 2*took)
		}
		for range 22 {
			<-over
		}
		if all := time.Since(begun); all != 20*took || p.Owners() != 0 {
			t.Errorf("the flood took %s, and %d are remembered", all, p.Owners())
		}
	})
}
