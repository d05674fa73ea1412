// Package sched decides which guest runs next, and for how long: so many at once
// and no more, one slice of the engine's tick at a time.
//
// A turn that is free is taken and given back without a lock. Where more want to
// run than may, turns go by weighted fair queueing (Demers, Keshav and Shenker,
// 1989, in the start-time form of Goyal, Vin and Cheng, 1996), in three steps: to
// the project that has had least processor time for its weight, in it to the
// function that has, and in that to the invocation that has had least itself.
// Whoever comes back after having wanted nothing begins where the others are: idle
// time is not saved up, and what was used while nobody waited is remembered a little only. So a short invocation of a quiet function waits for the end of
// one slice, however many others compute.
package sched

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
)

// Scheduler hands out turns. It is safe for concurrent use.
type Scheduler struct {
	free    atomic.Int64 // turns nobody has
	waiting atomic.Int64 // jobs in the queue; changed under the lock
	mu      struct {
		sync.Mutex
		root     group // of projects
		projects map[string]*group
		known    int    // functions
		order    uint64 // of the last job that came
	}
	accounts sync.Map // function.ID to *Account
}

// New returns a scheduler of n turns.
func New(n int) *Scheduler {
	s := &Scheduler{}
	s.free.Store(int64(n))
	s.mu.projects = map[string]*group{}
	return s
}

// maxIdle is how many functions without a job are kept accounts of: an account
// that was dropped begins anew, where the others are.
const maxIdle = 20_000

// Account is what one function has used. It belongs to the scheduler.
type Account struct {
	s     *Scheduler
	group              // of its jobs
	spent atomic.Int64 // ns not yet in the queue's books
	alive atomic.Int64 // jobs
}

// Job is one invocation. Its zero value is ready; it must not be copied.
type Job struct {
	account *Account
	used    time.Duration
	order   uint64 // of those that have used as much, who came first
	place   int    // in its function's queue, -1 when it is not there
	granted chan struct{}
}

// Begin enters a job of a function. End it.
func (s *Scheduler) Begin(j *Job, id function.ID) {
	v, ok := s.accounts.Load(id)
	if !ok {
		v = s.open(id)
	}
	j.account, j.place = v.(*Account), -1
	j.account.alive.Add(1)
}

// End leaves. The job has no turn.
func (j *Job) End() { j.account.alive.Add(-1) }

// open makes the account of a function.
func (s *Scheduler) open(id function.ID) *Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.accounts.Load(id); ok {
		return v.(*Account)
	}
	if s.mu.known >= maxIdle {
		s.sweep()
	}
	p := s.mu.projects[id.Project]
	if p == nil {
		p = &group{parent: &s.mu.root, weight: 1, at: -1}
		s.mu.projects[id.Project] = p
	}
	a := &Account{s: s, group: group{parent: p, weight: 1, at: -1}}
	s.accounts.Store(id, a)
	s.mu.known++
	return a
}

// sweep drops the accounts of functions that have no job. The lock is held.
func (s *Scheduler) sweep() {
	used := map[*group]bool{}
	s.accounts.Range(func(id, v any) bool {
		a := v.(*Account)
		if a.alive.Load() == 0 && a.at < 0 {
			s.accounts.Delete(id)
			s.mu.known--
		} else {
			used[a.parent] = true
		}
		return true
	})
	for name, p := range s.mu.projects {
		if !used[p] {
			delete(s.mu.projects, name)
		}
	}
}

// Take waits for a turn, or until ctx ends and returns its error. Give it back.
func (s *Scheduler) Take(ctx context.Context, j *Job) error {
	if s.waiting.Load() == 0 && s.grab() {
		return nil
	}
	s.enqueue(j)
	select {
	case <-j.granted:
		return nil
	case <-ctx.Done():
	}
	if s.withdraw(j) {
		return ctx.Err()
	}
	<-j.granted // it was given one at this moment
	s.Give(j, 0)
	return ctx.Err()
}

// Give gives the job's turn back, after so much processor time.
func (s *Scheduler) Give(j *Job, used time.Duration) {
	j.charge(used)
	s.free.Add(1)
	if s.waiting.Load() > 0 { // after Add: one who waits has seen the turn, or is seen here
		s.mu.Lock()
		defer s.mu.Unlock()
		j.account.settle()
		s.dispatch()
	}
}

// Waiting returns how many jobs wait for a turn.
func (s *Scheduler) Waiting() int { return int(s.waiting.Load()) }

func (j *Job) charge(used time.Duration) {
	if used > 0 {
		j.used += used
		j.account.spent.Add(int64(used))
	}
}

// grab takes a turn that nobody has.
func (s *Scheduler) grab() bool {
	for n := s.free.Load(); n > 0; n = s.free.Load() {
		if s.free.CompareAndSwap(n, n-1) {
			return true
		}
	}
	return false
}

func (s *Scheduler) enqueue(j *Job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.granted == nil {
		j.granted = make(chan struct{}, 1)
	}
	j.account.settle()
	s.mu.order++
	j.order = s.mu.order
	j.account.push(j)
	s.waiting.Add(1)
	s.dispatch() // a turn may have come free before it was seen that someone waits
}

// withdraw takes a job out of the queue; false if it is no longer there.
func (s *Scheduler) withdraw(j *Job) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.place < 0 {
		return false
	}
	j.account.remove(j)
	s.waiting.Add(-1)
	return true
}

// dispatch gives the turns that are free to those whose turn it is. The lock is held.
func (s *Scheduler) dispatch() {
	for s.waiting.Load() > 0 && s.grab() {
		j := s.mu.root.next()
		s.waiting.Add(-1)
		j.granted <- struct{}{} // there is room: it waits once
	}
}
