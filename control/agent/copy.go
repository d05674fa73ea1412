package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/edge/replica"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// tendEvery is how often it is looked for what became of a copy that failed, or had no room.
const tendEvery = time.Minute

// tend opens the copies once this agent reigns, and makes good what fails of them.
func (s *spaces) tend(ctx context.Context, reign <-chan struct{}) {
	select {
	case <-reign:
	case <-ctx.Done():
		return
	}
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		s.open()
		s.refit()
		select {
		case <-ctx.Done():
			return
		case <-s.broken():
			s.discard()
			select { // what failed at once may again, and each time all is fetched anew
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		case <-tick.C:
		}
	}
}

// open opens the copies, if they are not. What fails is tried again.
func (s *spaces) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.replica.Dir == "" || s.mu.db != nil || s.mu.closed {
		return
	}
	db, discarded, err := replica.Open(s.replica)
	if discarded != nil {
		s.onEvent(Event{Kind: Replicated, What: "the copies on disk cannot be read and are made anew", Err: discarded})
	}
	if err != nil {
		s.onEvent(Event{Kind: Replicated, What: "no copies: replicated namespaces are read as cached ones", Err: err})
		return
	}
	s.mu.db = db
	s.prune()
}

// close gives the copies up: they are another agent's, or nobody's.
func (s *spaces) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.closed = true
	s.shut("closed")
}

// discard gives up copies that cannot be trusted, and with them what is on disk.
func (s *spaces) discard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.db != nil {
		s.onEvent(Event{Kind: Replicated, What: "the copies on disk are damaged, or cannot be written, and are made anew", Err: s.mu.db.Why()})
		s.shut("discarded")
	}
}

// shut closes the database. s.mu is held.
func (s *spaces) shut(what string) {
	if s.mu.db == nil {
		return
	}
	for _, b := range s.mu.byLog {
		s.lose(b)
	}
	if err := s.mu.db.Close(); err != nil {
		s.onEvent(Event{Kind: Replicated, What: what, Err: err})
	}
	s.mu.db = nil
}

// broken is closed when the copies cannot be trusted any more.
func (s *spaces) broken() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.db == nil {
		return nil
	}
	return s.mu.db.Broken()
}

// refit gives a copy to each namespace that should have one and may again.
func (s *spaces) refit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var anew follows
	for _, b := range s.mu.byLog {
		if s.fit(b) {
			anew.add(b)
		}
	}
	anew.apply(s.follower)
}

// fit gives the namespace its copy, or takes it away, as the catalog and the room on disk
// have it; again says that the log is to be followed from where the copy is. s.mu is held.
func (s *spaces) fit(b *bound) (again bool) {
	switch {
	case s.asks(b):
		return false
	case !b.replicated && (b.copy != nil || b.lacks > 0):
		s.lose(b)
		b.lacks = 0
		s.kv.Detach(b.ns, false)
	case b.replicated && b.copy == nil && s.mu.db != nil && (b.lacks == 0 || s.mu.db.Fits(b.lacks) == nil):
		b.copy, b.begun, b.lacks = s.mu.db.Copy(b.ns), false, 0
		s.kv.Detach(b.ns, false)
		if b.attached = b.copy.Whole(); b.attached {
			b.attached = s.kv.Attach(b.ns, b.copy)
		}
		if b.copy.Whole() && !b.attached { // of another epoch than what is followed
			if err := b.copy.Reset(); err != nil {
				s.tell(b, "could not be emptied", err)
			}
		}
		keys, _ := b.copy.Size()
		s.tell(b, fmt.Sprintf("begins with %d keys at %d, whole: %v", keys, b.copy.Position().Seq, b.attached), nil)
		return true
	}
	return false
}

// prune drops the copies of what is not replicated here any more, once that is known. s.mu is held.
func (s *spaces) prune() {
	if s.mu.db == nil || !s.mu.known {
		return
	}
	keep := map[hostcall.Namespace]bool{}
	for _, b := range s.mu.byLog {
		if b.replicated && b.lacks == 0 {
			keep[b.ns] = true
		}
	}
	if err := s.mu.db.Keep(keep); err != nil {
		s.onEvent(Event{Kind: Replicated, What: "a copy could not be dropped", Err: err})
	}
}

// store brings the copy up to c, or loses it; ends is changes.Batch.Ends. s.mu is held.
func (s *spaces) store(b *bound, c *kv.Changes, ends bool) {
	at := b.copy.Position()
	if !continues(at, c) {
		if b.begun && (c.Epoch != at.Epoch || c.To >= at.Seq) { // else the copy has it
			s.lose(b)
			s.tell(b, "given up for now", fmt.Errorf("changes of epoch %d from %d to %d for a copy at %d/%d", c.Epoch, c.From, c.To, at.Epoch, at.Seq))
		}
		return // what was under way from where the log was followed before
	}
	b.begun = true
	to, list, err := replica.Position{Epoch: c.Epoch, Seq: c.To}, copyOf(c), error(nil)
	if c.Head > 0 {
		err = b.copy.ApplyPage(to, list, c.Head)
	} else {
		// A control node of before says nothing of pages, but a batch without changes was its word too that there was no more.
		err = b.copy.Apply(to, list, ends || b.copy.Whole())
	}
	if err == nil {
		return
	}
	full, what := b.copy, "given up for now"
	s.lose(b)
	if errors.Is(err, replica.ErrRoom) {
		what = "no room: it is read as a cached one; raise limits.replica_bytes, or free some of the disk"
		_, bytes := full.Size()
		b.lacks = max(bytes+replica.SizeOf(list), 1)
		err = errors.Join(err, full.Drop())
		s.kv.Detach(b.ns, true)
	}
	s.tell(b, what, err)
}

// lose has reads leave the copy. s.mu is held.
func (s *spaces) lose(b *bound) {
	if b.copy != nil {
		b.copy, b.attached, b.asking = nil, false, unasked
		s.kv.Detach(b.ns, false)
	}
}

func (s *spaces) tell(b *bound, what string, err error) {
	s.onEvent(Event{Kind: Replicated, Log: b.log, What: what, Err: err})
}

func copyOf(c *kv.Changes) []replica.Change {
	list := make([]replica.Change, len(c.List))
	for i, ch := range c.List {
		list[i] = replica.Change{Key: ch.Key, Gone: ch.Gone}
		if ch.Gone {
			continue
		}
		list[i].Value = replica.Value{Revision: ch.Revision, Metadata: ch.Metadata, Value: ch.Value, Absent: ch.Value == nil}
		if !ch.Expires.IsZero() {
			list[i].Value.Expires = ch.Expires.UnixMilli()
		}
	}
	return list
}
