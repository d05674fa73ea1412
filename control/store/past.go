package store

import (
	"context"
	"errors"
	"fmt"
	"sync"

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

// RolledBack notes that a change of log at (epoch, seq), signed for this store, was
// seen elsewhere, if the stream itself really ends before that. It lasts until NewEpoch, also over a restart.
func (s *Store) RolledBack(ctx context.Context, log string, epoch, seq uint64) error {
	t, _, err := s.logTable(log)
	if err != nil {
		return err
	}
	info, err := t.stream.Info(ctx) // another control node's index may be ahead of this one's
	if err != nil {
		return readFailed("look for the newest change", err)
	}
	if now := s.Epoch(); epoch < now || epoch == now && seq <= info.State.LastSeq {
		return nil
	}
	if s.past.refusal() != nil {
		return nil // known
	}
	s.past.refuse(log, s.Epoch(), info.State.LastSeq, epoch, seq)
	s.cfg.Log.Error("store: nothing is written any more", "err", s.past.refusal())
	_, err = s.Bucket(epochBucket).Put(ctx, pastKey, fmt.Appendf(nil, "%d %d %d %s", s.Epoch(), epoch, seq, log), hostcall.PutOptions{IfRevision: hostcall.AnyRevision})
	return err
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
	p.mu.err = fmt.Errorf("%w (%s is at %d/%d here, and was at %d/%d)", ErrRolledBack, log, epoch, head, aheadEpoch, ahead)
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
