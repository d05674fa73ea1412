package store

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// turns has those who change one key by its value take turns, so that within one
// process none of them reads what another is about to replace.
type turns struct {
	seed  maphash.Seed
	locks [256]chan struct{}
	once  sync.Once
}

// take waits for the turn of subj and returns what ends it.
func (u *turns) take(ctx context.Context, subj string) (func(), error) {
	u.once.Do(func() {
		u.seed = maphash.MakeSeed()
		for i := range u.locks {
			u.locks[i] = make(chan struct{}, 1)
		}
	})
	lock := u.locks[maphash.String(u.seed, subj)%uint64(len(u.locks))]
	select {
	case lock <- struct{}{}:
		return func() { <-lock }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("store: wait for others who increment: %w: %w", hostcall.ErrUnavailable, ctx.Err())
	}
}

// Increment implements hostcall.KV. It reads and writes at the revision read until nobody
// came between, so it is one step to all who look on.
func (k *KV) Increment(ctx context.Context, ns hostcall.Namespace, key string, delta int64) (int64, uint64, error) {
	if err := checkNamespace(ns); err != nil {
		return 0, 0, err
	}
	subj, err := subject(k.t.prefix, space(ns), key)
	if err != nil {
		return 0, 0, err
	}
	done, err := k.t.store.turns.take(ctx, subj)
	if err != nil {
		return 0, 0, err
	}
	defer done()
	for {
		value, rev, err := k.t.incrementOnce(ctx, subj, delta)
		if !errors.Is(err, hostcall.ErrConflict) {
			return value, rev, err
		}
		if ctx.Err() != nil {
			return 0, 0, fmt.Errorf("store: increment: %w: others write the key all the time", hostcall.ErrUnavailable)
		}
	}
}

func (t *table) incrementOnce(ctx context.Context, subj string, delta int64) (int64, uint64, error) {
	var e hostcall.Entry
	var last uint64
	msg, err := t.stream.GetLastMsgForSubject(ctx, subj)
	switch {
	case err == nil:
		last = msg.Sequence // also a deletion's, or an ended value's
		e, err = t.entry(msg)
	case errors.Is(err, jetstream.ErrMsgNotFound):
		err = hostcall.ErrNotFound
	default:
		return 0, 0, readFailed("increment", err)
	}
	if err != nil && !errors.Is(err, hostcall.ErrNotFound) {
		return 0, 0, err
	}
	sum, err := add(e.Value, err == nil, delta)
	if err != nil {
		return 0, 0, err
	}
	next := message(subj, strconv.AppendInt(nil, sum, 10))
	setMetadata(next, e.Metadata)
	if err := t.keepTTL(next, e); err != nil {
		return 0, 0, err
	}
	if err := t.mayWrite(len(next.Data)); err != nil {
		return 0, 0, err
	}
	rev, err := t.publish(ctx, next, jetstream.WithExpectLastSequencePerSubject(last))
	return sum, rev, err
}

// keepTTL has next end when e does.
func (t *table) keepTTL(next *nats.Msg, e hostcall.Entry) error {
	if e.Expires.IsZero() {
		return nil
	}
	left := e.Expires.Sub(t.store.cfg.Now())
	if err := t.setTTL(next, max(left, minTTL)); err != nil {
		return err
	}
	next.Header.Set(hdrExpires, strconv.FormatInt(e.Expires.UnixMilli(), 10)) // exactly as it was
	return nil
}

// add returns the number in value, 0 if there is none, and delta together.
func add(value []byte, there bool, delta int64) (int64, error) {
	var n int64
	if there {
		var err error
		if n, err = strconv.ParseInt(string(value), 10, 64); err != nil {
			return 0, fmt.Errorf("store: increment a value of %d bytes: %w", len(value), hostcall.ErrNotNumber)
		}
	}
	if delta > 0 && n > math.MaxInt64-delta || delta < 0 && n < math.MinInt64-delta {
		return 0, fmt.Errorf("store: %d and %d: %w", n, delta, hostcall.ErrOverflow)
	}
	return n + delta, nil
}
