package kv

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// The store's clock is set an hour forward and back, and no stream says so: a value with a
// life is kept for as long as the store's answers mean, whatever this node's clock says.
func TestClockIsLearntFromAnswers(t *testing.T) {
	for name, ask := range map[string]func(s *Store) error{
		"get": func(s *Store) error { _, err := s.Get(ctx, ns, "k"); return err },
		"strong": func(s *Store) error {
			_, err := s.Read(ctx, ns, []string{"k"}, hostcall.ReadOptions{Strong: true})
			return err
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			o := newTruth()
			o.delay, o.tells = 100*time.Millisecond, true
			s := open(t, o, Config{})
			n := s.space(ns)
			kept := func() bool { _, _, ok := s.cached(n, "k", 0); return ok }
			for _, off := range []time.Duration{0, time.Hour, -time.Hour, 0, -3 * time.Hour} {
				o.ahead = off
				o.put(t, ns, "other", "v")
				o.set(ns, "k", hostcall.Entry{Value: []byte("v"), Revision: o.seq, Expires: time.Now().Add(off + time.Minute)})
				if err := ask(s); err != nil {
					t.Fatal(err)
				}
				s.entries.cache.Wait()
				time.Sleep(59 * time.Second)
				if !kept() {
					t.Errorf("%s at %v: gone too early", name, off)
				}
				time.Sleep(2 * time.Second)
				if kept() {
					t.Errorf("%s at %v: there too long", name, off)
				}
			}
		})
	}
}

// A neighbour's word on the store's time counts for nothing.
func TestClockIsNotANeighbours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, newTruth(), Config{Owner: func(hostcall.Namespace, string) Owner { return ahead{} }})
		if e, err := s.Get(ctx, ns, "k"); err != nil || string(e.Value) != "lent" {
			t.Fatalf("%q, %v", e.Value, err)
		}
		if now := time.Now(); !s.clock.store(now).Equal(now) {
			t.Errorf("the store's clock is thought %v ahead", s.clock.store(now).Sub(now))
		}
	})
}

// ahead is an owner with a false clock.
type ahead struct{}

func (ahead) Ask(context.Context, hostcall.Namespace, string, Question) (hostcall.Entry, error) {
	return hostcall.Entry{Value: []byte("lent"), Revision: 1, AsOf: 1, At: time.Now().Add(time.Hour)}, nil
}
