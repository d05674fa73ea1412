package pool

import (
	"context"
	"sync"
	"time"
)

// An errand has a blob come, or code compiled, that is not on this node: it may take
// minutes, so it is no part of a load, for which there is little room. A project's
// errands wait for that project's.
const (
	maxErrands        = 64 // at once; each may have a code in memory
	maxProjectErrands = 2
)

// errands bounds them.
type errands struct {
	room chan struct{}
	mu   struct {
		sync.Mutex
		desks map[string]*desk // of projects that have some, or wait for one
	}
}

type desk struct {
	room  chan struct{}
	users int // guarded by errands.mu
}

func newErrands() *errands {
	e := &errands{room: make(chan struct{}, maxErrands)}
	e.mu.desks = map[string]*desk{}
	return e
}

// run runs one errand of that project when there is room, or fails with ctx.
func (e *errands) run(ctx context.Context, project string, errand func() error) error {
	d := e.come(project)
	defer e.leave(project, d)
	for _, room := range []chan struct{}{d.room, e.room} { // the project's first: who waits for it keeps nobody else out
		select {
		case room <- struct{}{}:
			defer func() { <-room }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return errand()
}

func (e *errands) come(project string) *desk {
	e.mu.Lock()
	defer e.mu.Unlock()
	d := e.mu.desks[project]
	if d == nil {
		d = &desk{room: make(chan struct{}, maxProjectErrands)}
		e.mu.desks[project] = d
	}
	d.users++
	return d
}

func (e *errands) leave(project string, d *desk) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d.users--; d.users == 0 {
		delete(e.mu.desks, project)
	}
}

// failure is what came of the last load, while there was none since that succeeded.
type failure struct {
	err   error
	row   int // loads that failed, one after the other
	until time.Time
}

// maxPauseShift bounds how long a function is not loaded after it could not be: Config.Retry, doubled so often.
const maxPauseShift = 6

// pause is how long a load is not tried again after so many failures, 1 or more.
func pause(retry time.Duration, row int) time.Duration {
	return retry << min(row-1, maxPauseShift)
}

// note counts what came of a load; now is when.
func (f *failure) note(err error, retry time.Duration, now time.Time) {
	if err == nil {
		*f = failure{}
		return
	}
	f.err, f.row = err, f.row+1
	f.until = now.Add(pause(retry, f.row))
}
