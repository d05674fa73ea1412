package catalog

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// What Apply may refuse with, besides identity.ErrUntrusted.
var (
	ErrStale = errors.New("catalog: not newer than what is held")
	ErrEpoch = errors.New("catalog: another epoch: rebuild from the start of the log")
)

// State holds the newest catalog; readers take snapshots, one owner applies.
type State struct {
	trust Verifier
	cur   atomic.Pointer[Snapshot]
	mu    sync.Mutex // held by who replaces cur
}

// NewState returns an empty catalog at position zero.
func NewState(t Verifier) *State {
	s := &State{trust: t}
	s.cur.Store(empty())
	return s
}

// Snapshot returns the newest catalog; never nil.
func (s *State) Snapshot() *Snapshot { return s.cur.Load() }

// Apply verifies records (as Sign made them), which must be in order and newer
// than the state, and moves the state to position to, at or after the last
// record: all or nothing. An empty state takes any epoch; after that, another
// needs Rebuild (ErrEpoch), and what is not newer is ErrStale.
func (s *State) Apply(to Position, records ...[]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := s.cur.Load().with(s.trust.Verify, to, records)
	if err != nil {
		return err
	}
	s.cur.Store(next)
	return nil
}

// Rebuild starts an empty catalog beside the present one, which keeps serving
// until Commit. epoch is a newer one, or the present one if the log cannot be
// followed from where the state is; an older one is ErrStale.
func (s *State) Rebuild(epoch uint64) (*Rebuild, error) {
	if held := s.Snapshot().pos.Epoch; epoch < held {
		return nil, fmt.Errorf("%w: epoch %d, held is %d", ErrStale, epoch, held)
	}
	return &Rebuild{state: s, epoch: epoch, next: empty()}, nil
}

// Rebuild is a catalog being read again from the start of the log. One
// goroutine uses it.
type Rebuild struct {
	state *State
	epoch uint64
	next  *Snapshot
}

// Apply is as State.Apply, in the epoch of the rebuild.
func (r *Rebuild) Apply(to Position, records ...[]byte) error {
	if to.Epoch != r.epoch {
		return fmt.Errorf("%w: rebuilding %d, got %d", ErrEpoch, r.epoch, to.Epoch)
	}
	next, err := r.next.with(r.state.trust.Verify, to, records)
	if err != nil {
		return err
	}
	r.next = next
	return nil
}

// Snapshot returns what was read so far.
func (r *Rebuild) Snapshot() *Snapshot { return r.next }

// Commit makes it the state's catalog. In the epoch that is held it must have
// come at least as far, for every key (ErrStale): a store that lost its newest
// records has to begin a new epoch before anyone follows it back.
func (r *Rebuild) Commit() error {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	held := r.state.cur.Load()
	if r.next.pos.Compare(held.pos) < 0 {
		return fmt.Errorf("%w: rebuilt to %s, held is %s", ErrStale, r.next.pos, held.pos)
	}
	if r.epoch == held.pos.Epoch {
		if err := r.next.holdsAll(held); err != nil {
			return err
		}
	}
	r.state.cur.Store(r.next)
	return nil
}

// holdsAll checks that no key's record is older than in held.
func (s *Snapshot) holdsAll(held *Snapshot) error {
	for key, e := range held.entries {
		if mine, ok := s.entries[key]; !ok || mine.record.Revision < e.record.Revision {
			return fmt.Errorf("%w: the log no longer has record %s of %s; does control need a new epoch?", ErrStale, e.record.Position, key)
		}
	}
	return nil
}

// with returns the snapshot after these records.
func (s *Snapshot) with(v verify, to Position, records [][]byte) (*Snapshot, error) {
	if err := s.checkMove(to, len(records)); err != nil {
		return nil, err
	}
	next := &Snapshot{pos: s.pos, signed: s.signed, entries: s.cloneEntries(len(records))}
	for _, raw := range records {
		r, err := open(v, raw)
		if err != nil {
			return nil, err
		}
		if err := next.put(r, raw, to); err != nil {
			return nil, err
		}
	}
	next.pos = to
	if len(records) == 0 {
		next.view = s.view // nothing to work out anew
	} else {
		next.view = newView(next.entries)
	}
	return next, nil
}

func (s *Snapshot) checkMove(to Position, records int) error {
	switch {
	case to.Epoch == 0:
		return errors.New("catalog: position without an epoch")
	case s.pos.Epoch != 0 && to.Epoch < s.pos.Epoch:
		return fmt.Errorf("%w: to %s, held is %s", ErrStale, to, s.pos)
	case s.pos.Epoch != 0 && to.Epoch > s.pos.Epoch:
		return fmt.Errorf("%w: to %s, held is %s", ErrEpoch, to, s.pos)
	case to.Revision < s.pos.Revision || records > 0 && to.Revision == s.pos.Revision:
		return fmt.Errorf("%w: to %s, held is %s", ErrStale, to, s.pos)
	}
	return nil
}

// put takes one record in. Its revision must be the next in the log; the epoch it was signed in may be
// an earlier one than the log's, but never earlier than that of the records
// before it: those lie in a past that the restored store has lost.
func (s *Snapshot) put(r *Record, raw []byte, to Position) error {
	if r.Revision <= s.pos.Revision || r.Epoch < s.signed {
		return fmt.Errorf("%w: record %s of %s after %d/%d", ErrStale, r.Position, r.Key(), s.signed, s.pos.Revision)
	}
	if r.Revision > to.Revision || r.Epoch > to.Epoch {
		return fmt.Errorf("catalog: record %s of %s in a batch that ends at %s", r.Position, r.Key(), to)
	}
	s.pos.Revision, s.signed = r.Revision, r.Epoch
	s.entries[r.Key()] = entry{r, raw}
	return nil
}
