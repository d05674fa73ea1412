package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"
)

// shares is how many projects may each have all that one may of the room, at once.
const shares = 4

// ErrRoom is that a value could not be received in time because others were, which
// is no fault of who sends it.
var ErrRoom = errors.New("kv: too many bytes of values are being received")

// room bounds the bytes of values that are being received: those of a project wait
// for that project's, so that it keeps nobody else out.
type room struct {
	each int64 // of one project
	all  *semaphore.Weighted
	mu   struct {
		sync.Mutex
		desks map[string]*desk // of projects that receive something, or wait
	}
}

// desk is a project's part of the room.
type desk struct {
	room  *semaphore.Weighted
	users int // guarded by room.mu
}

// newRoom needs most to be at least shares times the largest value.
func newRoom(most int64) *room {
	r := &room{each: most / shares, all: semaphore.NewWeighted(most)}
	r.mu.desks = map[string]*desk{}
	return r
}

// receive waits for room for n bytes of that project, which its result gives back.
func (r *room) receive(ctx context.Context, project string, n int64) (done func(), err error) {
	d := r.come(project)
	if err := d.room.Acquire(ctx, n); err != nil {
		r.leave(project, d)
		return nil, fmt.Errorf("%w: %w", ErrRoom, context.Cause(ctx))
	}
	if err := r.all.Acquire(ctx, n); err != nil {
		d.room.Release(n)
		r.leave(project, d)
		return nil, fmt.Errorf("%w: %w", ErrRoom, context.Cause(ctx))
	}
	return func() {
		r.all.Release(n)
		d.room.Release(n)
		r.leave(project, d)
	}, nil
}

func (r *room) come(project string) *desk {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.mu.desks[project]
	if d == nil {
		d = &desk{room: semaphore.NewWeighted(r.each)}
		r.mu.desks[project] = d
	}
	d.users++
	return d
}

func (r *room) leave(project string, d *desk) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d.users--; d.users == 0 {
		delete(r.mu.desks, project)
	}
}

// receiver is what a question carries: the room for its answer.
type receiver struct {
	room    *room
	project string
}

type receiverKey struct{}

// within returns the context of a question of that project.
func (r *room) within(ctx context.Context, project string) context.Context {
	return context.WithValue(ctx, receiverKey{}, receiver{r, project})
}

// Receive waits until the store that asks, if one does, has room for a value of n bytes
// that is about to be read into memory; 0 to hostcall.MaxValueBytes. An Origin and an
// Owner call it before they do, with the context that they were given, and call done
// once the value is there. It fails with ErrRoom, and the cause of ctx's end.
func Receive(ctx context.Context, n int64) (done func(), err error) {
	r, ok := ctx.Value(receiverKey{}).(receiver)
	if !ok {
		return func() {}, nil
	}
	return r.room.receive(ctx, r.project, n)
}
