package pool

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A project's errands wait for each other and not for another project's, nor keep it waiting.
func TestErrandsOfAProjectWaitForItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, end := newErrands(), make(chan struct{})
		began := map[string]int{}
		run := func(project string) {
			go func() {
				_ = e.run(t.Context(), project, func() error {
					began[project]++ // in turn: who looks waits for all to stand still
					<-end
					return nil
				})
			}()
			synctest.Wait()
		}
		for range maxErrands {
			run("greedy")
		}
		run("modest")
		if began["greedy"] != maxProjectErrands || began["modest"] != 1 {
			t.Errorf("under way: %v", began)
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		if err := e.run(gone, "greedy", func() error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("for nobody: %v", err)
		}
		for range maxErrands { // one after the other, so that each counts alone
			select {
			case end <- struct{}{}:
			default:
			}
			synctest.Wait()
		}
		close(end)
		synctest.Wait()
		if began["greedy"] != maxErrands || len(e.mu.desks) != 0 || len(e.room) != 0 {
			t.Errorf("in the end: %v, %d desks, %d in the room", began, len(e.mu.desks), len(e.room))
		}
	})
}

func TestPausesGrowUpToABound(t *testing.T) {
	var f failure
	now, bad := time.Unix(0, 0), errors.New("bad")
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 64, 64} {
		f.note(bad, time.Second, now)
		if got := f.until.Sub(now); got != want*time.Second || f.err != bad {
			t.Errorf("failure %d: a pause of %v, want %v; %v", i+1, got, want*time.Second, f.err)
		}
	}
	if f.note(nil, time.Second, now); f != (failure{}) {
		t.Errorf("after a success: %+v", f)
	}
	f.note(bad, time.Second, now)
	if got := f.until.Sub(now); got != time.Second {
		t.Errorf("the first again: %v", got)
	}
}
