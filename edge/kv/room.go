package kv

import (
	"context"
	"errors"
	"fmt"

	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/quota"
)

// shares is how many projects may each have all that one may of the room, at once.
const shares = 4

// ErrRoom is that a value could not be received in time because others were, which
// is no fault of who sends it.
var ErrRoom = errors.New("kv: too many bytes of values are being received")

// smallValue is as much of a value as needs no room to be written, in bytes: who writes large ones
// must not hold up the others.
const smallValue = 64 << 10

// send waits until there is room to write a value of n bytes; done gives it back. Without room in
// time the value was not written.
func (s *Store) send(ctx context.Context, project string, n int) (done func(), err error) {
	if n <= smallValue {
		return func() {}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout/2) // what is sent has all of its own
	defer cancel()
	share, err := s.sending.Take(ctx, project, int64(n))
	if err != nil {
		return nil, fmt.Errorf("%w: %w: %w", hostcall.ErrUnsent, errSending, err)
	}
	return share.Release, nil
}

var errSending = errors.New("too many bytes of values are being written")

// newRoom is the bytes of values that are being received, or written, by project; most is at least
// shares times the largest value.
func newRoom(most int64) *quota.Pool { return quota.New(most, most/shares) }

// receiver is what a question carries: the room for its answer.
type receiver struct {
	room    *quota.Pool
	project string
}

type receiverKey struct{}

// within returns the context of a question of that project.
func (s *Store) within(ctx context.Context, project string) context.Context {
	return context.WithValue(ctx, receiverKey{}, receiver{s.room, project})
}

// Receive waits until the store that asks, if one does, has room for a value of n bytes
// that is about to be read into memory, of as many as one project may have at most. An Origin and an
// Owner call it before they do, with the context that they were given, and call done
// once the value is there. It fails with ErrRoom, and the cause of ctx's end.
func Receive(ctx context.Context, n int64) (done func(), err error) {
	r, ok := ctx.Value(receiverKey{}).(receiver)
	if !ok {
		return func() {}, nil
	}
	share, err := r.room.Take(ctx, r.project, n)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoom, err)
	}
	return share.Release, nil
}
