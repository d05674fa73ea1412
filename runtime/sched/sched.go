// Package sched decides which guest runs next, and for how long: so many at once
// and no more, one slice of the engine's tick at a time.
//
// A turn that is free is taken and given back without a lock. Where more want to
// run than may, turns go (runtime/fair) to the project that has had least processor
// time, in it to the function that has had least for its weight, and in that to the
// invocation that has had least itself. So a short invocation of a quiet function
// waits for the end of one slice, however many others compute.
package sched

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/runtime/fair"
	"github.com/selvage-edge/selvage/runtime/function"
)

// Scheduler hands out turns. It is safe for concurrent use.
type Scheduler struct {
	free    atomic.Int64 // turns nobody has
	waiting atomic.Int64 // jobs in the queue; changed under the lock
	mu      struct {
		sync.Mutex
		queue fair.Queue[*Account]
		known int    // functions
		order uint64 // of the last job that came
	}
	accounts sync.Map // function.ID to *Account
}

// New returns a scheduler of n turns.
func New(n int) *Scheduler {
	s := &Scheduler{}
	s.free.Store(int64(n))
	s.mu.queue.Memory = memory
	return s
}

// maxIdle is how many functions without a job are kept accounts of: an account
// that was dropped begins anew, where the others are.
const maxIdle = 20_000

// Account is what one function has used. It belongs to the scheduler.
type Account struct {
	fair.Member[*Account]
	jobs   jobHeap      // those that wait
	weight atomic.Int64 // of the version that came last
	spent  atomic.Int64 // ns not yet in the queue's books
	alive  atomic.Int64 // jobs
}

// Job is one invocation. Its zero value is ready; it must not be copied.
type Job struct {
	account *Account
	used    time.Duration
	order   uint64 // of those that have used as much, who came first
	place   int    // in its function's queue, -1 when it is not there
	granted chan struct{}
}

// Begin enters a job of a function, whose weight among its project's functions is
// that (0: the default). End it.
func (s *Scheduler) Begin(j *Job, id function.ID, weight int) {
	v, ok := s.accounts.Load(id)
	if !ok {
		v = s.open(id)
	}
	j.account, j.place = v.(*Account), -1
	if w := int64(weight); j.account.weight.Load() != w {
		j.account.weight.Store(w)
	}
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
	a := &Account{}
	s.mu.queue.Join(&a.Member, id.Project, a)
	s.accounts.Store(id, a)
	s.mu.known++
	return a
}

// sweep drops the accounts of functions that have no job. The lock is held.
func (s *Scheduler) sweep() {
	s.accounts.Range(func(id, v any) bool {
		if a := v.(*Account); a.alive.Load() == 0 && !a.Waiting() {
			s.accounts.Delete(id)
			a.Quit()
			s.mu.known--
		}
		return true
	})
}

// ErrLate says that a job did not have a turn by when it wanted it.
var ErrLate = errors.New("no turn in time")

// Take waits for a turn, or until ctx ends and returns its error. Give it back.
func (s *Scheduler) Take(ctx context.Context, j *Job) error { return s.TakeBy(ctx, j, time.Time{}) }

// TakeBy is Take that waits no longer than until then, and fails with ErrLate; the
// zero time is no such bound. A turn that is free is had however late it is.
func (s *Scheduler) TakeBy(ctx context.Context, j *Job, by time.Time) error {
	if s.waiting.Load() == 0 && s.grab() {
		return nil
	}
	s.enqueue(j)
	var late <-chan time.Time
	if !by.IsZero() {
		timer := time.NewTimer(time.Until(by))
		defer timer.Stop()
		late = timer.C
	}
	var err error
	select {
	case <-j.granted:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-late:
		err = ErrLate
	}
	if s.withdraw(j) {
		return err
	}
	<-j.granted // it was given one at this moment
	if err == ErrLate {
		return nil
	}
	s.Give(j, 0)
	return err
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

// Waited reports whether the job ever found no turn free.
func (j *Job) Waited() bool { return j.order > 0 }

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
		a, _ := s.mu.queue.Next() // somebody waits
		j := a.pop()
		s.waiting.Add(-1)
		j.granted <- struct{}{} // there is room: it waits once
	}
}
