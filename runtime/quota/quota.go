// Package quota bounds what is held at once, in all and by each who holds some: who
// wants without end waits for itself, and keeps nobody else out.
package quota

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"
)

// What was not to be had before the context ended.
var (
	ErrOwn = errors.New("one's own part is taken") // others may find room
	ErrAll = errors.New("there is no room left")
)

// Pool is so many units: bytes, say, or places. It is safe for use by many.
type Pool struct {
	all  *semaphore.Weighted
	each int64
	most int // see Crowd; 0: any
	mu   struct {
		sync.Mutex
		owners map[string]*owner // of those that hold or want some
	}
}

// owner is the part of the pool that one may hold.
type owner struct {
	part  *semaphore.Weighted
	users int // guarded by Pool.mu
}

// New returns a pool of all units, of which one may hold each; both are 1 or more.
func New(all, each int64) *Pool {
	p := &Pool{all: semaphore.NewWeighted(all), each: min(all, each)}
	p.mu.owners = map[string]*owner{}
	return p
}

// Crowd bounds how many of one's Takes hold or wait for units; one more fails at once, as ErrOwn. Call it before the first.
func (p *Pool) Crowd(most int) { p.most = most }

// errCrowd is why a Take did not wait.
var errCrowd = errors.New("as many as may be are held or waited for")

// Share is what one holds of a pool. Nil holds nothing. It is for one goroutine at a time.
type Share struct {
	pool  *Pool
	name  string
	owner *owner
	n     int64
}

// Take waits for n units, at most as many as one may hold: for those of name first, so
// that it is in nobody's way while it waits for itself. Release them. The error is
// ErrOwn or ErrAll, with the cause of the end of ctx.
func (p *Pool) Take(ctx context.Context, name string, n int64) (*Share, error) {
	o := p.enter(name)
	if o == nil {
		return nil, fmt.Errorf("%w: %w", ErrOwn, errCrowd)
	}
	s := &Share{pool: p, name: name, owner: o, n: min(n, p.each)}
	if s.owner.part.Acquire(ctx, s.n) != nil {
		p.leave(name, s.owner)
		return nil, fmt.Errorf("%w: %w", ErrOwn, context.Cause(ctx))
	}
	if p.all.Acquire(ctx, s.n) != nil {
		s.owner.part.Release(s.n)
		p.leave(name, s.owner)
		return nil, fmt.Errorf("%w: %w", ErrAll, context.Cause(ctx))
	}
	return s, nil
}

// Owners is how many hold some, or wait for it.
func (p *Pool) Owners() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.mu.owners)
}

// enter is nil for one too many.
func (p *Pool) enter(name string) *owner {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.mu.owners[name]
	if o == nil {
		o = &owner{part: semaphore.NewWeighted(p.each)}
		p.mu.owners[name] = o
	}
	if p.most > 0 && o.users >= p.most {
		return nil
	}
	o.users++
	return o
}

func (p *Pool) leave(name string, o *owner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o.users--; o.users == 0 {
		delete(p.mu.owners, name)
	}
}

// Units is how many are held.
func (s *Share) Units() int64 {
	if s == nil {
		return 0
	}
	return s.n
}

// Keep gives back what is over n units.
func (s *Share) Keep(n int64) {
	if s == nil || n >= s.n {
		return
	}
	s.owner.part.Release(s.n - n)
	s.pool.all.Release(s.n - n)
	s.n = n
}

// Release gives all back, once.
func (s *Share) Release() {
	if s == nil || s.owner == nil {
		return
	}
	s.Keep(0)
	s.pool.leave(s.name, s.owner)
	s.owner = nil
}
