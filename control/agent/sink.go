package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/changes"
)

const catalogLog = "catalog"

// catalogSink applies the catalog's changes to the state. When the log starts
// anew, the catalog in use stays until the new one is complete: half a catalog
// would take functions off the node.
type catalogSink struct {
	state   *catalog.State
	rebuild *catalog.Rebuild // nil unless the log started anew
	head    uint64           // the rebuild is complete at this, at least: so far the log had come where its pages were made
	changed func()
	onEvent func(Event)
}

var _ changes.Sink = (*catalogSink)(nil)

// Reset implements changes.Sink.
func (s *catalogSink) Reset(_ context.Context, _ string, epoch uint64) error {
	r, err := s.state.Rebuild(epoch)
	if err != nil {
		return fmt.Errorf("read the catalog of epoch %d: %w", epoch, err)
	}
	s.rebuild, s.head = r, 0
	return nil
}

// Apply implements changes.Sink.
func (s *catalogSink) Apply(_ context.Context, b *changes.Batch) error {
	records, err := recordsOf(b)
	if err != nil {
		return err
	}
	to := catalog.Position{Epoch: b.Epoch, Revision: b.To}
	if s.rebuild == nil {
		before := s.state.Snapshot().Position()
		err := s.state.Apply(to, records...)
		if err == nil && to != before {
			s.changed()
		}
		return err
	}
	if err := s.rebuild.Apply(to, records...); err != nil {
		return err
	}
	if s.head = max(s.head, b.Head); !b.Ends() || b.To < s.head {
		return nil // there may be more of it
	}
	if s.lost() {
		s.onEvent(Event{Kind: CatalogEmpty, Err: errEmptyCatalog})
		return nil
	}
	if err := s.rebuild.Commit(); err != nil {
		return err
	}
	s.rebuild = nil
	s.changed()
	return nil
}

var errEmptyCatalog = errors.New("control's catalog begins anew and knows none of the functions served here; " +
	"they are served on: restore control's store from a backup, or deploy again")

// lost reports whether the new catalog has not one record of what is live here:
// that is a store that was lost, and no reason to take a whole fleet off the air.
func (s *catalogSink) lost() bool {
	live, next := s.state.Snapshot().Releases(), s.rebuild.Snapshot()
	for _, r := range live {
		if _, known := next.Release(r.ID()); known {
			return false
		}
	}
	return len(live) > 0 && len(next.Releases()) == 0
}

// recordsOf returns the signed records in b. The catalog deletes no key: what
// is removed has a record that says so.
func recordsOf(b *changes.Batch) ([][]byte, error) {
	var records [][]byte
	for i := range b.Changes {
		c := &b.Changes[i]
		if !c.Inline() {
			return nil, fmt.Errorf("catalog revision %d: not a record of at most %d bytes", c.Seq, changes.MaxInline)
		}
		records = append(records, c.Value)
	}
	return records, nil
}
