// Package kv is KV on a node: what was read is kept in memory, made fresh by
// each namespace's change stream, and never older than what the node was told.
//
// # Fences
//
// An answer of the origin may be on its way while the node learns, from the
// change stream or by its own write, that the key has changed since. So each
// key that changed has a fence, the newest revision told of it, and no value
// below it is stored or served, wherever it comes from. The table of fences is
// bounded; when one is given up, its revision goes into the namespace's floor,
// and what was asked for before the floor was known counts as too old.
//
// # Copies
//
// A namespace may have a copy on this node's disk (edge/replica), which its change stream
// keeps. It stands behind memory and before the origin, and its answers pass the same
// fences: a copy that is behind what this node has served, written or been told is not asked.
package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/quota"
)

// Config says how much is kept and where the rest is.
type Config struct {
	// Origin is the truth. A read of it sees every write that it acknowledged
	// before the read began. Its Get and its Read call Receive. Required.
	Origin hostcall.KV
	// Owner returns the other node of the PoP that looks after a key now, which is asked
	// before the origin; nil if that is this one. It is called at each miss. nil: there is only this node.
	Owner func(ns hostcall.Namespace, key string) Owner

	Bytes    int64         // memory for entries; default 256 MiB
	Negative time.Duration // how long "not found" is kept; default 30 s
	Timeout  time.Duration // of one question to the origin; default 10 s, half of it to the owner
	Flights  int           // questions to the origin at once; default 512
	Incoming int64         // bytes of values that may be on their way into memory, a quarter of them of one project; default 256 MiB
	Outgoing int64         // the same of values that are being written; default 256 MiB
	Fences   int           // changed keys remembered, of each namespace; default 32,768
}

func (c Config) withDefaults() Config {
	def := func(field *int, d int) {
		if *field == 0 {
			*field = d
		}
	}
	def(&c.Flights, 512)
	def(&c.Fences, 32768)
	if c.Bytes == 0 {
		c.Bytes = 256 << 20
	}
	if c.Incoming == 0 {
		c.Incoming = 256 << 20
	}
	if c.Outgoing == 0 {
		c.Outgoing = 256 << 20
	}
	if c.Negative == 0 {
		c.Negative = 30 * time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	return c
}

// Validate reports every fault of c.
func (c Config) Validate() error {
	var faults []error
	if c.Origin == nil {
		faults = append(faults, errors.New("kv: no origin"))
	}
	if c.Bytes < 1<<20 {
		faults = append(faults, fmt.Errorf("kv bytes %d: want at least 1 MiB", c.Bytes))
	}
	if c.Incoming < shares*hostcall.MaxValueBytes {
		faults = append(faults, fmt.Errorf("kv incoming %d: want at least %d MiB, %d of the largest values", c.Incoming, shares*hostcall.MaxValueBytes>>20, shares))
	}
	if c.Outgoing < shares*hostcall.MaxValueBytes {
		faults = append(faults, fmt.Errorf("kv outgoing %d: want at least %d MiB, %d of the largest values", c.Outgoing, shares*hostcall.MaxValueBytes>>20, shares))
	}
	if c.Negative < 0 || c.Timeout < 0 || c.Flights < 0 || c.Fences < 0 {
		faults = append(faults, fmt.Errorf("kv negative %v, timeout %v, flights %d, fences %d: want none below 0",
			c.Negative, c.Timeout, c.Flights, c.Fences))
	}
	return errors.Join(faults...)
}

// Owner is another node's Store.Own. After an error, but ErrNotFound, the origin is asked.
type Owner interface {
	Ask(ctx context.Context, ns hostcall.Namespace, key string, q Question) (hostcall.Entry, error)
}

// ErrNoOwner is Own's answer from a node that cannot be an owner now.
var ErrNoOwner = errors.New("kv: this node does not follow the namespace in that epoch: ask the origin")

// Question says what an owner's answer has to reflect.
type Question struct {
	Epoch   uint64 // revisions are of this one
	AtLeast uint64 // every change up to it
}

// Store is a node's KV. Its methods may be called from many goroutines, but
// Apply, Reset and Forget of one namespace by one at a time.
type Store struct {
	config  Config
	entries *entries
	flights *flights
	room    *quota.Pool // of values being received
	sending *quota.Pool // of values being written
	clock   clock
	counts  counts
	mu      struct {
		sync.RWMutex
		spaces map[hostcall.Namespace]*space
	}
}

var _ hostcall.KV = (*Store)(nil)

// New returns an empty store. Close ends it.
func New(c Config) (*Store, error) {
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("open kv: %w", err)
	}
	e, err := newEntries(c.Bytes)
	if err != nil {
		return nil, fmt.Errorf("open kv: %w", err)
	}
	s := &Store{config: c, entries: e, flights: newFlights(c.Flights), room: newRoom(c.Incoming), sending: newRoom(c.Outgoing), clock: newClock()}
	s.mu.spaces = map[hostcall.Namespace]*space{}
	return s, nil
}

// Close cancels what is asked of the origin, waits for it, and frees the
// memory. Reads after it fail with ErrUnavailable.
func (s *Store) Close() {
	s.flights.close()
	s.entries.close()
}

// Get returns the entry: from memory if it is there, else from the key's owner in the
// PoP or the origin, asked once for all who want the key at the moment.
func (s *Store) Get(ctx context.Context, ns hostcall.Namespace, key string) (hostcall.Entry, error) {
	if err := checkKey(key); err != nil {
		return hostcall.Entry{}, fmt.Errorf("kv get: %w", err)
	}
	n := s.space(ns)
	if out, err, ok := s.cached(n, key, 0); ok {
		return out, err
	}
	return s.miss(ctx, n, key)
}

// miss asks for a key that memory does not have.
func (s *Store) miss(ctx context.Context, n *space, key string) (hostcall.Entry, error) {
	// What is answered may be fenced by a change that came meanwhile; what is asked
	// of the origin after the change is not.
	for try := range 8 {
		e, err := s.fetch(ctx, n, key, ask{direct: try > 0})
		if err == nil {
			return s.answer(n, e)
		}
		if !errors.Is(err, errFenced) {
			err = unavailable(ctx, err)
			if errors.Is(err, hostcall.ErrUnavailable) && n.replicated() {
				// Whether a write has happened is still in doubt: what was before it is no lie.
				if out, missing, ok := s.copied(n, key, 0, true); ok {
					return out, missing
				}
			}
			return hostcall.Entry{}, fmt.Errorf("kv get: %w", s.explain(n, err))
		}
		if out, err, ok := s.cached(n, key, 0); ok {
			return out, err
		}
	}
	return hostcall.Entry{}, fmt.Errorf("kv get: %w: the key changes faster than the origin answers", hostcall.ErrUnavailable)
}

// Put writes through to the origin; this node reads the value from then on.
func (s *Store) Put(ctx context.Context, ns hostcall.Namespace, key string, value []byte, o hostcall.PutOptions) (uint64, error) {
	if err := errors.Join(checkKey(key), checkPut(value, o)); err != nil {
		return 0, fmt.Errorf("kv put: %w", err)
	}
	n := s.space(ns)
	sent, err := s.send(ctx, ns.Project, len(value))
	if err != nil {
		return 0, fmt.Errorf("kv put: %w", s.unwritten(ctx, n, key, err))
	}
	defer sent()
	// A copy, since value is lent: an origin that is cancelled may go on reading it for a moment.
	value = append([]byte{}, value...)
	o.Metadata = append([]byte(nil), o.Metadata...)
	now := time.Now()
	e := entry{space: n.generation(), found: true, at: now, metadata: o.Metadata}
	if o.TTL > 0 {
		// The store counts from when it has the value, which is later: this
		// node never serves the value for longer than the store does.
		e.expires = s.clock.store(now).Add(o.TTL)
	}
	asking, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	rev, err := s.config.Origin.Put(asking, ns, key, value, o)
	if err != nil {
		return 0, fmt.Errorf("kv put: %w", s.unwritten(ctx, n, key, err))
	}
	n.counts.wrote(len(value))
	e.revision = rev
	if s.entries.fits(len(value)) {
		e.value = value
	} else {
		e.partial = true
	}
	s.told(n, key, e, true)
	return rev, nil
}

// Delete writes through to the origin.
func (s *Store) Delete(ctx context.Context, ns hostcall.Namespace, key string, ifRevision int64) (uint64, error) {
	if err := errors.Join(checkKey(key), checkRevision(ifRevision)); err != nil {
		return 0, fmt.Errorf("kv delete: %w", err)
	}
	n := s.space(ns)
	e := entry{space: n.generation(), at: time.Now()}
	asking, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	rev, err := s.config.Origin.Delete(asking, ns, key, ifRevision)
	if err != nil {
		return 0, fmt.Errorf("kv delete: %w", s.unwritten(ctx, n, key, err))
	}
	n.counts.wrote(0)
	e.revision = rev
	s.told(n, key, e, true)
	return rev, nil
}

// Increment writes through to the origin. Expiry and metadata of what was there
// are the origin's to know, so the key is read there next.
func (s *Store) Increment(ctx context.Context, ns hostcall.Namespace, key string, delta int64) (int64, uint64, error) {
	if err := checkKey(key); err != nil {
		return 0, 0, fmt.Errorf("kv increment: %w", err)
	}
	n := s.space(ns)
	e := entry{space: n.generation(), found: true, partial: true, at: time.Now()}
	asking, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	value, rev, err := s.config.Origin.Increment(asking, ns, key, delta)
	if err != nil {
		return 0, 0, fmt.Errorf("kv increment: %w", s.unwritten(ctx, n, key, err))
	}
	n.counts.wrote(0)
	e.revision = rev
	s.told(n, key, e, true)
	return value, rev, nil
}

// List answers from the namespace's copy, if there is one that has all that this node knows
// of; else it asks the origin: listings are not kept.
func (s *Store) List(ctx context.Context, ns hostcall.Namespace, prefix, cursor string, limit int) ([]hostcall.KeyInfo, string, error) {
	if len(prefix) > hostcall.MaxKeyBytes || limit < 1 {
		return nil, "", fmt.Errorf("kv list: %w: want a prefix of at most %d bytes and a limit of at least 1", hostcall.ErrInvalid, hostcall.MaxKeyBytes)
	}
	if keys, next, ok := s.listed(s.space(ns), prefix, cursor, min(limit, hostcall.MaxListKeys)); ok {
		return keys, next, nil
	}
	asking, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	keys, next, err := s.config.Origin.List(asking, ns, prefix, cursor, min(limit, hostcall.MaxListKeys))
	if err != nil {
		return nil, "", fmt.Errorf("kv list: %w", unavailable(ctx, err))
	}
	return keys, next, nil
}

func checkKey(key string) error {
	if len(key) == 0 || len(key) > hostcall.MaxKeyBytes {
		return fmt.Errorf("%w: key of %d bytes, want 1 to %d", hostcall.ErrInvalid, len(key), hostcall.MaxKeyBytes)
	}
	return nil
}

func checkPut(value []byte, o hostcall.PutOptions) error {
	if len(value) > hostcall.MaxValueBytes {
		return fmt.Errorf("%w: value of %d bytes, at most %d", hostcall.ErrTooLarge, len(value), hostcall.MaxValueBytes)
	}
	if len(o.Metadata) > hostcall.MaxMetadataBytes {
		return fmt.Errorf("%w: metadata of %d bytes, at most %d", hostcall.ErrTooLarge, len(o.Metadata), hostcall.MaxMetadataBytes)
	}
	if o.TTL < 0 {
		return fmt.Errorf("%w: ttl %v", hostcall.ErrInvalid, o.TTL)
	}
	return checkRevision(o.IfRevision)
}

func checkRevision(rev int64) error {
	if rev < hostcall.AnyRevision {
		return fmt.Errorf("%w: expected revision %d", hostcall.ErrInvalid, rev)
	}
	return nil
}

// unwritten says what is known of a write that failed. One that may have happened leaves the key in doubt.
func (s *Store) unwritten(ctx context.Context, n *space, key string, err error) error {
	if errors.Is(err, hostcall.ErrUnsent) {
		return fmt.Errorf("it was not written: %w", err)
	}
	s.doubt(n, key)
	if err = unavailable(ctx, err); errors.Is(err, hostcall.ErrUnavailable) {
		return fmt.Errorf("whether it was written is not known: %w", err)
	}
	return err
}

// unavailable turns a question that ran out of time, while the caller still
// has some, into ErrUnavailable.
func unavailable(ctx context.Context, err error) error {
	late := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	if late && ctx.Err() == nil {
		return fmt.Errorf("%w: %w", hostcall.ErrUnavailable, err)
	}
	return err
}
