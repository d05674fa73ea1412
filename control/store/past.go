package store

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// ErrRolledBack says that this store once was further than it is: nothing is written
// to the catalog or KV, whose revisions would be given out a second time, until it has another epoch.
var ErrRolledBack = errors.New("store: nodes hold changes that this store signed and no longer has: its disk went back in time; " +
	"restore the newest backup if there is a newer one, then stop the control node and run 'selvage control new-epoch'")

// past is what is known of a future that this store had.
type past struct {
	mu struct {
		sync.RWMutex
		err error // nil: nothing
	}
}

// pastKey holds the epoch that must not be written in any more.
const pastKey = "rolled-back"

// RolledBack notes that a change of log at (epoch, seq), signed for this store, was seen
// elsewhere: one that the stream does not reach, or that it Contradicts. It lasts until NewEpoch, also over a restart.
func (s *Store) RolledBack(ctx context.Context, log string, epoch, seq uint64) error {
	if epoch < s.Epoch() || s.past.refusal() != nil {
		return nil // of the past, or known
	}
	t, _, err := s.logTable(log)
	if err != nil {
		return err
	}
	info, err := t.stream.Info(ctx)
	if err != nil {
		return readFailed("look for the newest change", err)
	}
	s.past.refuse(log, s.Epoch(), info.State.LastSeq, epoch, seq)
	s.cfg.Log.Error("store: nothing is written any more", "err", s.past.refusal())
	_, err = s.Bucket(epochBucket).Put(ctx, pastKey, fmt.Appendf(nil, "%d %d %d %s", s.Epoch(), epoch, seq, log), hostcall.PutOptions{IfRevision: hostcall.AnyRevision})
	return err
}

// Reaches reports whether the stream of log itself, not only this process's index
// of it, has come to (epoch, seq).
func (s *Store) Reaches(ctx context.Context, log string, epoch, seq uint64) (bool, error) {
	t, _, err := s.logTable(log)
	if err != nil {
		return false, err
	}
	info, err := t.stream.Info(ctx)
	if err != nil {
		return false, readFailed("look for the newest change", err)
	}
	now := s.Epoch()
	return epoch < now || epoch == now && seq <= info.State.LastSeq, nil
}

// Contradicts reports whether this store cannot have made the change c of log in its
// present epoch: it has another under c's number, or knows only older ones of c's key although it has come
// past c. It is false where it cannot be told: c was replaced or forgotten since, or is still to come.
func (s *Store) Contradicts(ctx context.Context, log string, c Change) (bool, error) {
	t, space, err := s.logTable(log)
	if err != nil {
		return false, err
	}
	subj, err := subject(t.prefix, space, c.Key)
	if err != nil {
		return false, err
	}
	newest, applied := t.newest(space, c.Key)
	switch {
	case c.Seq > applied:
		return false, nil
	case newest != nil && newest.seq == c.Seq:
		return t.differs(ctx, space, newest, c)
	case newest != nil && newest.seq < c.Seq:
		return true, nil
	}
	msg, err := t.stream.GetMsg(ctx, c.Seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	if err != nil {
		return false, readFailed("look for a change", err)
	}
	return msg.Subject != subj, nil
}

// newest returns what the index has of a key, nil if nothing, and how far it has come.
func (t *table) newest(space, key string) (*item, uint64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	x := t.mu.spaces[space]
	if x == nil {
		return nil, t.mu.applied
	}
	it, _ := x.get(key)
	return it, t.mu.applied
}

// differs compares c with the change that it has the number of.
func (t *table) differs(ctx context.Context, space string, it *item, c Change) (bool, error) {
	if it.op != c.Op || it.op == OpPut && it.size != c.Size {
		return true, nil
	}
	if it.op != OpPut {
		return false, nil
	}
	have := Change{Seq: it.seq, Key: it.key, Op: it.op, Size: it.size}
	err := t.fill(ctx, &have, 0)
	if errors.Is(err, hostcall.ErrNotFound) {
		return false, nil // replaced at this moment
	}
	return err == nil && have.Sum != c.Sum, err
}

// openPast takes up what was known before a restart, unless there is another epoch since.
func (s *Store) openPast(ctx context.Context) error {
	rec, err := s.Bucket(epochBucket).Get(ctx, pastKey)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("store: read whether it was rolled back: %w", err)
	}
	var of, epoch, seq uint64
	var log string
	if _, err := fmt.Sscan(string(rec.Value), &of, &epoch, &seq, &log); err != nil {
		return fmt.Errorf("store: read whether it was rolled back: %w: %w", ErrCorrupt, err)
	}
	if of == s.Epoch() {
		s.past.refuse(log, of, 0, epoch, seq)
	}
	return nil
}

func (p *past) refuse(log string, epoch, head, aheadEpoch, ahead uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.err = fmt.Errorf("%w (%s is at %d/%d here; the change that was made at %d/%d is not in it)", ErrRolledBack, log, epoch, head, aheadEpoch, ahead)
}

// refusal returns why nothing may be written, or nil.
func (p *past) refusal() error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.mu.err
}

// forget is for a new epoch.
func (p *past) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.err = nil
}
