package kv

import (
	"context"
	"errors"
	"fmt"

	"github.com/selvage-edge/selvage/runtime/quota"
)

// shares is how many projects may each have all that one may of the room, at once.
const shares = 4

// ErrRoom is that a value could not be received in time because others were, which
// is no fault of who sends it.
var ErrRoom = errors.New("kv: too many bytes of values are being received")

// newRoom is the bytes of values that are being received, by project; most is at least
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
// that is about to be read into memory; 0 to hostcall.MaxValueBytes. An Origin and an
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
