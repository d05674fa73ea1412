package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Change is the newest change of one key of a log.
type Change struct {
	Seq      uint64
	Key      string
	Op       Op
	Expires  time.Time // OpPut: zero for never
	Size     uint32    // OpPut
	Metadata []byte    // OpPut
	Sum      [32]byte  // OpPut: SHA-256 of the value
	Value    []byte    // OpPut: nil when Size is over the reader's bound
}

// Page is every change of a log in (From, To] that still matters: what was replaced is in a later
// page, at More at the latest. One with no changes and no More says that the log has no more.
type Page struct {
	From, To uint64
	Changes  []Change
	More     uint64 // how far the log had come, if what belongs to this is still to come after To; else 0
}

// ReadOptions bound one page.
type ReadOptions struct {
	Changes int // at most
	Bytes   int // about: keys and inline values
	Inline  int // values over it are left out
}

// logTable returns the table and space of a log.
func (s *Store) logTable(log string) (*table, string, error) {
	if log == CatalogLog {
		return s.catalog, "", nil
	}
	ns, err := ParseKVLog(log)
	return s.kv, space(ns), err
}

// Head returns the log's head: nothing newer is known in it.
func (s *Store) Head(log string) (uint64, error) {
	t, _, err := s.logTable(log)
	if err != nil {
		return 0, err
	}
	return t.applied(), nil
}

// Read returns the changes of log after a position, complete up to the page's To. ErrGone: start
// again at 0. ErrAhead: the log never was there. It does not wait for changes; see Subscribe.
func (s *Store) Read(ctx context.Context, log string, after uint64, o ReadOptions) (Page, error) {
	t, space, err := s.logTable(log)
	if err != nil {
		return Page{}, err
	}
	p, head := Page{From: after, To: after}, uint64(0)
	for {
		items, to, more, err := t.changed(space, p.To, o)
		if err != nil {
			return Page{}, fmt.Errorf("store: read %s after %d: %w", log, after, err)
		}
		p.To = to
		if p.Changes, err = t.filled(ctx, space, items, o.Inline); err != nil {
			return Page{}, fmt.Errorf("store: read %s after %d: %w", log, after, err)
		}
		if head = max(head, more); len(p.Changes) < len(items) {
			// Something was replaced by what may be newer than the index.
			info, err := t.stream.Info(ctx)
			if err != nil {
				return Page{}, readFailed("look for the newest change", err)
			}
			head = max(head, info.State.LastSeq)
		}
		if more == 0 || len(p.Changes) > 0 {
			if head > p.To {
				p.More = head
			}
			return p, nil
		}
	}
}

// changed returns the items of a page, how far it goes, and how far the log has come if there are more.
func (t *table) changed(space string, after uint64, o ReadOptions) (items []*item, to, more uint64, err error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	switch {
	case after > t.mu.applied:
		return nil, 0, 0, ErrAhead
	case after > 0 && after < t.mu.horizon:
		return nil, 0, 0, ErrGone
	}
	x := t.mu.spaces[space]
	if x == nil {
		return nil, t.mu.applied, 0, nil
	}
	items, some := x.after(after, o.Changes, o.Bytes, o.Inline)
	if some {
		return items, items[len(items)-1].seq, t.mu.applied, nil
	}
	return items, t.mu.applied, 0, nil
}

// Subscription tells which of some logs changed.
type Subscription struct {
	C     <-chan struct{} // holds one token when Take has something to say
	c     chan struct{}
	leave []func()
	mu    struct {
		sync.Mutex
		dirty map[string]bool
	}
}

// NewSubscription returns one that nothing has changed yet for; a store's come from
// Subscribe. Once it is closed, after is called.
func NewSubscription(after ...func()) *Subscription {
	c := make(chan struct{}, 1)
	sub := &Subscription{C: c, c: c, leave: after}
	sub.mu.dirty = make(map[string]bool)
	return sub
}

// Subscribe watches logs from now on. Close it.
func (s *Store) Subscribe(logs []string) (*Subscription, error) {
	sub := NewSubscription()
	for _, log := range logs {
		t, space, err := s.logTable(log)
		if err != nil {
			sub.Close()
			return nil, err
		}
		t.subscribe(space, sub)
	}
	return sub, nil
}

func (t *table) subscribe(space string, sub *Subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.subs[space] == nil {
		t.mu.subs[space] = make(map[*Subscription]struct{})
	}
	t.mu.subs[space][sub] = struct{}{}
	sub.leave = append(sub.leave, func() { t.unsubscribe(space, sub) })
}

func (t *table) unsubscribe(space string, sub *Subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.mu.subs[space], sub)
	if len(t.mu.subs[space]) == 0 {
		delete(t.mu.subs, space)
	}
}

// Mark notes a change; it never blocks.
func (sub *Subscription) Mark(log string) {
	sub.mu.Lock()
	sub.mu.dirty[log] = true
	sub.mu.Unlock()
	select {
	case sub.c <- struct{}{}:
	default:
	}
}

// Take returns the logs that changed since the last Take, in no order.
func (sub *Subscription) Take() []string {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	logs := make([]string, 0, len(sub.mu.dirty))
	for l := range sub.mu.dirty {
		logs = append(logs, l)
	}
	clear(sub.mu.dirty)
	return logs
}

// Close ends the watch.
func (sub *Subscription) Close() {
	for _, leave := range sub.leave {
		leave()
	}
}

// catalogHistory is how many records of each catalog key are kept.
const catalogHistory = 64

// AppendCatalog adds a record under key if the log stands at last; its sequence is then last+1.
// ErrConflict if it does not.
func (s *Store) AppendCatalog(ctx context.Context, key string, value []byte, last uint64) (uint64, error) {
	subj, err := subject("catalog", "", key)
	if err != nil {
		return 0, err
	}
	if err := errors.Join(s.disk.room(int64(len(value))), s.past.refusal()); err != nil {
		return 0, err
	}
	return s.catalog.publish(ctx, message(subj, value), jetstream.WithExpectLastSequence(last))
}

// CatalogHead returns the catalog's last sequence, from the stream itself.
func (s *Store) CatalogHead(ctx context.Context) (uint64, error) {
	info, err := s.catalog.stream.Info(ctx)
	if err != nil {
		return 0, readFailed("catalog head", err)
	}
	return info.State.LastSeq, nil
}

// CatalogHistory returns the newest records of a key, oldest first, 64 at most.
func (s *Store) CatalogHistory(ctx context.Context, key string) ([][]byte, error) {
	subj, err := subject("catalog", "", key)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	err = s.each(ctx, s.catalog.stream, subj, 1, catalogHistory, func(m jetstream.Msg, _ *jetstream.MsgMetadata) error {
		out = append(out, m.Data())
		return nil
	})
	return out, err
}
