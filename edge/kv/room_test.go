package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// sender is a truth whose values take their time to come, when there is room for them.
type sender struct {
	*truth
	takes time.Duration
	each  map[string]int // bytes of each project that are coming; guarded by truth.mu
	most  map[string]int // and were at once, "" for all
}

func newSender(takes time.Duration) *sender {
	return &sender{truth: newTruth(), takes: takes, each: map[string]int{}, most: map[string]int{}}
}

func (s *sender) Get(ctx context.Context, ns hostcall.Namespace, key string) (hostcall.Entry, error) {
	e, err := s.truth.Get(ctx, ns, key)
	if err != nil {
		return e, err
	}
	done, err := Receive(ctx, int64(len(e.Value)))
	if err != nil {
		return hostcall.Entry{}, err
	}
	defer done()
	s.comes(ns.Project, len(e.Value))
	defer s.comes(ns.Project, -len(e.Value))
	select {
	case <-time.After(s.takes):
		return e, nil
	case <-ctx.Done():
		return hostcall.Entry{}, ctx.Err()
	}
}

func (s *sender) comes(project string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range []string{project, ""} {
		s.each[of] += n
		s.most[of] = max(s.most[of], s.each[of])
	}
}

// large puts n keys of the largest value into a namespace of that project.
func (s *sender) large(project string, n int) (ns hostcall.Namespace, keys []string) {
	ns = hostcall.Namespace{Project: project, Name: "n"}
	s.mu.Lock()
	defer s.mu.Unlock()
	value := make([]byte, hostcall.MaxValueBytes)
	for i := range n {
		key := fmt.Sprint("k", i)
		s.seq++
		s.set(ns, key, hostcall.Entry{Value: value, Revision: s.seq})
		keys = append(keys, key)
	}
	return ns, keys
}

// Reads of many large values, by many projects, have no more on its way than there is
// room for, each project no more than its part.
func TestValuesComeWhereThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newSender(time.Millisecond)
		s := open(t, o, Config{})
		var all sync.WaitGroup
		for p := range 2 * shares {
			ns, keys := o.large(fmt.Sprint("p", p), maxAsking)
			all.Go(func() {
				if _, err := s.Read(ctx, ns, keys, hostcall.ReadOptions{}); !errors.Is(err, hostcall.ErrTooLarge) {
					t.Errorf("%s: %v", ns.Project, err)
				}
			})
		}
		all.Wait()
		synctest.Wait()
		for project, most := range o.most {
			room := 256 << 20 / shares
			if project == "" {
				room = 256 << 20
			}
			if most > room || most+hostcall.MaxValueBytes <= room && project != "" {
				t.Errorf("%q: %d bytes were coming at once, want what %d have room for", project, most, room)
			}
		}
		if left := s.room.Owners(); left != 0 {
			t.Errorf("left: %d", left)
		}
	})
}

// Who finds no room waits as long as for an answer, and goes when the caller does; others'
// projects are not kept waiting.
func TestNoRoomForAValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newSender(time.Hour)
		s := open(t, o, Config{Timeout: time.Minute})
		ns, keys := o.large("large", 4)
		var all sync.WaitGroup
		for _, key := range keys[:2] {
			all.Go(func() {
				if _, err := s.Get(ctx, ns, key); !errors.Is(err, hostcall.ErrUnavailable) || errors.Is(err, ErrRoom) {
					t.Errorf("%s: %v", key, err)
				}
			})
			synctest.Wait()
		}
		leaves, leave := context.WithCancel(ctx)
		all.Go(func() {
			if _, err := s.Get(leaves, ns, keys[2]); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", keys[2], err)
			}
		})
		synctest.Wait()
		began := time.Now()
		leave()
		short, end := context.WithTimeout(ctx, time.Second)
		defer end()
		if _, err := s.Get(short, ns, keys[3]); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("%s: %v after %v", keys[3], err, time.Since(began))
		}
		other, more := o.large("other", 1)
		o.takes = 0
		if _, err := s.Get(ctx, other, more[0]); err != nil || time.Since(began) != time.Second {
			t.Errorf("another project: %v after %v", err, time.Since(began))
		}
		all.Wait()
		synctest.Wait()
		if left := s.room.Owners(); left != 0 {
			t.Errorf("left: %d", left)
		}
	})
}

// Large values that are written wait for room, a project's for its own; what finds none in time was not written.
func TestWritesWaitForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		o.delay = 8 * time.Second
		s := open(t, o, Config{Outgoing: shares * hostcall.MaxValueBytes, Timeout: 10 * time.Second})
		value := make([]byte, hostcall.MaxValueBytes)
		other := hostcall.Namespace{Project: "other", Name: "n"}
		var all sync.WaitGroup
		var wrote, refused atomic.Int64
		put := func(ns hostcall.Namespace, value []byte) {
			all.Go(func() {
				switch _, err := s.Put(ctx, ns, fmt.Sprint("k", len(value)), value, anyTo); {
				case err == nil:
					wrote.Add(1)
				case errors.Is(err, hostcall.ErrUnsent):
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		put(ns, value)
		put(ns, value)      // its project has no more room within its time
		put(other, value)   // another has
		put(ns, value[:10]) // and what is small needs none
		all.Wait()
		if wrote.Load() != 3 || refused.Load() != 1 {
			t.Errorf("%d were written, %d had no room", wrote.Load(), refused.Load())
		}
		if _, err := s.Put(ctx, ns, "k", value, anyTo); err != nil {
			t.Errorf("once there is room: %v", err)
		}
	})
}
