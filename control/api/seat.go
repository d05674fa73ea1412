package api

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// seats bound the modules that are prepared at once, of all projects and of each:
// a project that deploys without end waits for itself, and leaves a seat to others.
type seats struct {
	all  *semaphore.Weighted
	each int64
	mu   struct {
		sync.Mutex
		projects map[string]*projectSeats
	}
}

// projectSeats are those of one project, while somebody has or wants one.
type projectSeats struct {
	*semaphore.Weighted
	users int
}

func newSeats(n int) *seats {
	s := &seats{all: semaphore.NewWeighted(int64(n)), each: max(1, int64(n)-1)}
	s.mu.projects = map[string]*projectSeats{}
	return s
}

// take waits for a seat, the project's turn first; give it back. The error is ctx's.
func (s *seats) take(ctx context.Context, project string) (give func(), err error) {
	own := s.enter(project)
	if err := own.Acquire(ctx, 1); err != nil {
		s.leave(project, own)
		return nil, err
	}
	if err := s.all.Acquire(ctx, 1); err != nil {
		own.Release(1)
		s.leave(project, own)
		return nil, err
	}
	return func() {
		s.all.Release(1)
		own.Release(1)
		s.leave(project, own)
	}, nil
}

func (s *seats) enter(project string) *projectSeats {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.mu.projects[project]
	if own == nil {
		own = &projectSeats{Weighted: semaphore.NewWeighted(s.each)}
		s.mu.projects[project] = own
	}
	own.users++
	return own
}

func (s *seats) leave(project string, own *projectSeats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own.users--; own.users == 0 {
		delete(s.mu.projects, project)
	}
}
