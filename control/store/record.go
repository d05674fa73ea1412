package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// Bucket holds control's own records of one kind (tokens, reports, ...): keys are any bytes.
type Bucket struct {
	t    *table
	name string
}

// Bucket returns the records of a kind; name is 1 to 63 of a-z, 0-9 and -.
func (s *Store) Bucket(name string) *Bucket { return &Bucket{s.records, name} }

// Get returns a record; hostcall.ErrNotFound if there is none.
func (b *Bucket) Get(ctx context.Context, key string) (hostcall.Entry, error) {
	return b.t.get(ctx, b.name, key)
}

// Put writes a record; hostcall.ErrConflict if the expected revision differs.
func (b *Bucket) Put(ctx context.Context, key string, value []byte, o hostcall.PutOptions) (uint64, error) {
	return b.t.put(ctx, b.name, key, value, o)
}

// Delete removes a record. Of several who expect the same revision, one succeeds.
func (b *Bucket) Delete(ctx context.Context, key string, ifRevision int64) error {
	_, err := b.t.delete(ctx, b.name, key, ifRevision)
	return err
}

// All returns every record, in byte order of the keys.
func (b *Bucket) All(ctx context.Context) (map[string]hostcall.Entry, error) {
	out := make(map[string]hostcall.Entry)
	for cursor := ""; ; {
		keys, next, err := b.t.list(ctx, b.name, "", cursor, hostcall.MaxListKeys)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			e, err := b.Get(ctx, k.Key)
			if err == nil {
				out[k.Key] = e
			}
		}
		if next == "" {
			return out, nil
		}
		cursor = next
	}
}

// epoch is the store's, made at its birth.
type epoch struct {
	mu struct {
		sync.RWMutex
		n uint64
	}
}

const epochBucket, epochKey = "store", "epoch"

func (e *epoch) open(ctx context.Context, s *Store) error {
	b := s.Bucket(epochBucket)
	rec, err := b.Get(ctx, epochKey)
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("store: read the epoch: %w", err)
	}
	if err != nil {
		_, err := s.nextEpoch(ctx, 0, hostcall.AbsentRevision)
		if errors.Is(err, hostcall.ErrConflict) {
			return e.open(ctx, s) // another control node made the store at the same moment
		}
		return err
	}
	n, err := strconv.ParseUint(string(rec.Value), 10, 64)
	if err != nil {
		return fmt.Errorf("store: read the epoch: %w: %w", ErrCorrupt, err)
	}
	e.set(n)
	return nil
}

func (e *epoch) set(n uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.n = n
}

func (e *epoch) get() uint64 {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.mu.n
}

// Epoch returns the store's epoch: revisions compare only within one.
func (s *Store) Epoch() uint64 { return s.epoch.get() }

// NewEpoch begins another epoch, above the present one: every follower starts
// again. Call it after a restore, before anything is written.
func (s *Store) NewEpoch(ctx context.Context) (uint64, error) {
	return s.nextEpoch(ctx, s.Epoch(), hostcall.AnyRevision)
}

// nextEpoch is the time in milliseconds: above every epoch made before, on any
// disk, without having to know them.
func (s *Store) nextEpoch(ctx context.Context, above uint64, ifRevision int64) (uint64, error) {
	n := max(above+1, uint64(time.Now().UnixMilli()))
	_, err := s.Bucket(epochBucket).Put(ctx, epochKey, strconv.AppendUint(nil, n, 10), hostcall.PutOptions{IfRevision: ifRevision})
	if err != nil {
		return 0, fmt.Errorf("store: write the epoch: %w", err)
	}
	s.epoch.set(n)
	s.past.forget()
	return n, nil
}
