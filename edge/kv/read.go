package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// Read answers for several keys: from memory what is there and fresh enough, the rest
// by asking.
func (s *Store) Read(ctx context.Context, ns hostcall.Namespace, keys []string, o hostcall.ReadOptions) ([]hostcall.Result, error) {
	if err := checkKeys(keys); err != nil {
		return nil, fmt.Errorf("kv read: %w", err)
	}
	n, out := s.space(ns), make([]hostcall.Result, len(keys))
	var rest []int // places of what memory does not answer
	for i, key := range keys {
		var ok bool
		if !o.Strong {
			out[i].Entry, out[i].Err, ok = s.cached(n, key, o.AtLeast)
		}
		if !ok {
			rest = append(rest, i)
		}
	}
	var err error
	switch {
	case len(rest) == 0:
	case o.Strong || o.AtLeast > 0:
		err = s.readOrigin(ctx, n, keys, rest, o, out)
	default:
		err = s.readMissed(ctx, n, keys, rest, out)
	}
	if err == nil && sizeOf(out) > hostcall.MaxReadBytes {
		err = tooLarge(len(keys))
	}
	if err != nil {
		return nil, fmt.Errorf("kv read: %w", err)
	}
	return out, nil
}

func checkKeys(keys []string) error {
	if len(keys) == 0 || len(keys) > hostcall.MaxReadKeys {
		return fmt.Errorf("%w: %d keys, want 1 to %d", hostcall.ErrInvalid, len(keys), hostcall.MaxReadKeys)
	}
	var faults []error
	for _, key := range keys {
		faults = append(faults, checkKey(key))
	}
	return errors.Join(faults...)
}

func sizeOf(list []hostcall.Result) (size int) {
	for i := range list {
		size += len(list[i].Value) + len(list[i].Metadata)
	}
	return size
}

func tooLarge(keys int) error {
	return fmt.Errorf("%w: %d keys have over %d bytes, as many as may be read at once: ask for fewer", hostcall.ErrTooLarge, keys, hostcall.MaxReadBytes)
}

// maxAsking is how many keys of one read are asked for at once: how large an answer is
// shows only when it is here.
const maxAsking = 16

// readMissed asks as Get does, for several at once, until all have answered, one has
// failed, or what there is is more than one read may have.
func (s *Store) readMissed(ctx context.Context, n *space, keys []string, rest []int, out []hostcall.Result) error {
	asking, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var (
		workers sync.WaitGroup
		next    atomic.Int64
		size    atomic.Int64
	)
	size.Store(int64(sizeOf(out)))
	for range min(maxAsking, len(rest)) {
		workers.Go(func() {
			for asking.Err() == nil {
				at := int(next.Add(1)) - 1
				if at >= len(rest) {
					return
				}
				r := &out[rest[at]]
				r.Entry, r.Err = s.miss(asking, n, keys[rest[at]])
				if r.Err != nil && !errors.Is(r.Err, hostcall.ErrNotFound) {
					stop(r.Err)
				} else if size.Add(int64(len(r.Value)+len(r.Metadata))) > hostcall.MaxReadBytes {
					stop(tooLarge(len(keys)))
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(asking)
}

// readOrigin asks the truth in one question, which nobody shares: it has to begin after
// its caller did.
func (s *Store) readOrigin(ctx context.Context, n *space, keys []string, rest []int, o hostcall.ReadOptions, out []hostcall.Result) error {
	wanted := make([]string, len(rest))
	for i, place := range rest {
		wanted[i] = keys[place]
	}
	asked, generation := time.Now(), n.generation()
	asking, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	got, err := s.config.Origin.Read(s.within(asking, n.name.Project), n.name, wanted, o)
	if err != nil {
		s.counts.failures.Add(1)
		return s.explain(n, unavailable(ctx, err))
	}
	if len(got) != len(wanted) {
		return fmt.Errorf("%w: %d answers for %d keys", hostcall.ErrUnavailable, len(got), len(wanted))
	}
	s.clock.answered(got[0].At, asked, time.Now())
	for i, place := range rest {
		out[place] = got[i]
		out[place].Stale = max(time.Since(asked), 0)
		s.learn(n, wanted[i], generation, got[i], asked)
		n.counts.read(len(got[i].Value), out[place].Stale)
	}
	n.counts.origin.Add(uint64(len(rest)))
	return nil
}

// learn takes what the truth said of a key, so that what is read here next is not older.
func (s *Store) learn(n *space, key string, generation uint64, r hostcall.Result, at time.Time) {
	e := entry{space: generation, found: r.Err == nil, value: r.Value, metadata: r.Metadata, revision: r.Revision, expires: r.Expires, at: at}
	if e.found {
		if !s.entries.fits(len(e.value)) {
			e.value, e.partial = nil, true
		}
		s.told(n, key, e, true)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.id != generation {
		return
	}
	e.key, e.began = key, r.AsOf
	if !n.mu.fences.passes(&e) {
		return // what came meanwhile is newer
	}
	n.supersede(key)
	n.void(key)
	s.entries.drop(n.mu.id, key)
	n.mu.fences.raise(key, r.AsOf)
	n.mu.doubts.settle(key, at)
	n.mu.served = max(n.mu.served, r.AsOf)
	n.mu.answered = max(n.mu.answered, r.AsOf)
	s.keep(n, key, e, r.AsOf) // not as of the stream's place: it may have passed changes that this does not reflect
}

// Own answers another node of the PoP, which takes this one for the key's owner: from
// memory, or from the origin, asked once for all; never from a third node. ErrNoOwner:
// this node follows no stream in q's epoch.
func (s *Store) Own(ctx context.Context, ns hostcall.Namespace, key string, q Question) (hostcall.Entry, error) {
	if err := checkKey(key); err != nil {
		return hostcall.Entry{}, fmt.Errorf("kv own: %w", err)
	}
	n := s.space(ns)
	if !n.follows(q.Epoch) {
		return hostcall.Entry{}, ErrNoOwner
	}
	for range 8 {
		if out, err, ok := s.cached(n, key, q.AtLeast); ok {
			return out, err
		}
		e, err := s.fetch(ctx, n, key, ask{direct: true, atLeast: q.AtLeast})
		if err == nil {
			return s.answer(n, e)
		}
		if !errors.Is(err, errFenced) {
			return hostcall.Entry{}, fmt.Errorf("kv own: %w", unavailable(ctx, err))
		}
	}
	return hostcall.Entry{}, fmt.Errorf("kv own: %w: the key changes faster than the origin answers", hostcall.ErrUnavailable)
}

func (n *space) follows(epoch uint64) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mu.kept && n.mu.epoch == epoch
}
