package api

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A project that deploys without end holds up nobody but itself, and leaves
// nothing behind.
func TestAFloodOfDeploysWaitsForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const took = time.Minute
		s := newPreparing(2)
		prepared := make(chan string, 100)
		deploy := func(project string) {
			seat, err := s.Take(t.Context(), project, 1)
			if err != nil {
				t.Error(err)
				return
			}
			time.Sleep(took)
			seat.Release()
			prepared <- project
		}
		for range 20 {
			go deploy("flood")
		}
		synctest.Wait()
		begun := time.Now()
		for range 2 {
			deploy("other")
		}
		if waited := time.Since(begun); waited != 2*took {
			t.Errorf("two deploys of another project took %s, alone %s", waited, 2*took)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := s.Take(ctx, "flood", 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one more of the flood: %v", err)
		}
		for range 22 {
			<-prepared
		}
		synctest.Wait()
		if took20 := time.Since(begun); took20 != 20*took || s.Owners() != 0 {
			t.Errorf("the flood took %s, and %d projects are remembered", took20, s.Owners())
		}
	})
}
