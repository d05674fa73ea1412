package agent

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/edge/replica"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// spaces follows the change streams of the namespaces that releases bind, and
// keeps the node's KV fresh by them, and its copies of those that are replicated (copy.go).
// They share a stream of their own, so that busy namespaces do not hold up the catalog.
type spaces struct {
	kv       Namespaces
	replica  replica.Config
	onEvent  func(Event)
	follower *changes.Follower
	lender
	mu struct {
		// Held while changes are applied, so that none come after Forget; and from what a log is
		// followed for until the follower has it, so that of two that change that the later stays.
		// The follower must not be waited for with it: it calls the sink.
		sync.Mutex
		byLog  map[string]*bound
		db     *replica.DB // nil: there is none, not yet or any more
		known  bool        // byLog is what the catalog has
		closed bool        // another agent's from now on
		queue  []*bound    // that neighbours are to be asked for the copies of
	}
}

// bound is one namespace that is followed; spaces.mu guards it.
type bound struct {
	ns         hostcall.Namespace
	log        string
	replicated bool          // as the catalog has it
	copy       *replica.Copy // nil: it is followed as a cached one
	begun      bool          // a batch has continued the copy
	attached   bool          // reads are answered from the copy
	lacks      int64         // bytes that there was no room for; 0: none
	asking     asking        // neighbours for the copy
}

var _ changes.Sink = (*spaces)(nil)

func newSpaces[F Function](c Config[F], p *pop, r *changes.Relay) *spaces {
	s := &spaces{kv: c.KV, replica: c.Replica, onEvent: c.OnEvent, lender: newLender(nil, c.Control, c.Trust)}
	if c.Neighbours != nil {
		s.pop = p
	}
	s.mu.byLog = map[string]*bound{}
	s.follower = changes.NewFollower(changes.FollowerConfig{
		Open: openStream(c.Control), Neighbours: p, Relay: r, Verify: changes.VerifyWith(c.Trust), Sink: s,
		OnEvent: func(e changes.Event) { c.OnEvent(streamEvent("kv", e)) },
	})
	return s
}

// run follows, and looks after the copies once this agent reigns, until ctx ends.
func (s *spaces) run(ctx context.Context, reign <-chan struct{}) {
	var tending sync.WaitGroup
	tending.Go(func() { s.tend(ctx, reign) })
	tending.Go(func() { s.borrow(ctx) })
	_ = s.follower.Run(ctx) // returns ctx's error only
	tending.Wait()
	s.close()
}

// logOf names a namespace's log.
func logOf(ns hostcall.Namespace) string { return "kv/" + ns.Project + "/" + ns.Name }

// want follows exactly these namespaces. What is new begins at its copy, or without one at
// the head: the node has nothing of it that could be stale.
func (s *spaces) want(list []catalog.Namespace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[string]bool{}
	for _, n := range list {
		wanted[logOf(hostcall.Namespace{Project: n.Project, Name: n.Name})] = true
	}
	var anew follows
	for log, b := range s.mu.byLog {
		if !wanted[log] {
			delete(s.mu.byLog, log)
			s.kv.Forget(b.ns)
			anew.gone = append(anew.gone, log)
		}
	}
	for _, n := range list {
		ns := hostcall.Namespace{Project: n.Project, Name: n.Name}
		b, have := s.mu.byLog[logOf(ns)]
		if !have {
			b = &bound{ns: ns, log: logOf(ns)}
			s.mu.byLog[b.log] = b
		}
		b.replicated = n.Mode == catalog.ModeReplicated
		if again := s.fit(b); again || !have {
			anew.add(b)
		}
		s.kv.Limit(ns, n.MaxStale())
	}
	s.mu.known = true
	s.prune()
	anew.apply(s.follower)
}

// follows are logs to follow no more, and those to follow from where their copies are.
type follows struct {
	gone []string
	more []changes.Want
}

func (f *follows) add(b *bound) {
	w := changes.Want{Log: b.log, Tail: b.copy == nil}
	if b.copy != nil {
		at := b.copy.Position()
		w.Position = changes.Position{Epoch: at.Epoch, Seq: at.Seq}
	}
	f.more = append(f.more, w)
}

// apply has the follower do so. spaces.mu is held.
func (f *follows) apply(to *changes.Follower) {
	for _, w := range f.more {
		f.gone = append(f.gone, w.Log) // it may be followed from elsewhere
	}
	slices.SortFunc(f.more, func(a, b changes.Want) int { return strings.Compare(a.Log, b.Log) })
	if len(f.gone) > 0 {
		to.Unfollow(f.gone...)
	}
	if len(f.more) > 0 {
		to.Follow(f.more...)
	}
}

func (s *spaces) count() (namespaces int, c Copies) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.mu.byLog {
		switch {
		case b.attached:
			c.Whole++
		case b.lacks > 0:
			c.NoRoom++
		case b.replicated:
			c.Others++
		}
	}
	if s.mu.db != nil {
		c.Bytes = s.mu.db.Bytes()
	}
	c.FromNeighbours, c.ToNeighbours, c.Untrue = s.had.Load(), s.given.Load(), s.untrue.Load()
	return len(s.mu.byLog), c
}

// Reset implements changes.Sink.
func (s *spaces) Reset(_ context.Context, log string, _ uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.mu.byLog[log]
	if !ok {
		return nil
	}
	s.kv.Reset(b.ns)
	b.attached = false
	if b.copy == nil {
		return nil
	}
	return b.copy.Reset()
}

// Apply implements changes.Sink. Reads are told of a change before the copy has it: one
// that sees it there would else be followed by one that memory answers with what was before.
func (s *spaces) Apply(_ context.Context, batch *changes.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.mu.byLog[batch.Log]
	if !ok {
		return nil
	}
	c := changesOf(batch)
	if late(b, &c) {
		return nil
	}
	s.kv.Apply(b.ns, c)
	if b.copy != nil {
		s.store(b, &c, batch.Ends())
	}
	if b.copy != nil && !b.attached && b.copy.Whole() {
		b.attached = true
		s.kv.Attach(b.ns, b.copy)
		s.tell(b, "whole", nil)
	}
	return nil
}

// late reports whether a batch was under way from where the log was followed before it had its
// copy: what comes now from where the copy is says all of it again. spaces.mu is held.
func late(b *bound, c *kv.Changes) bool {
	return b.copy != nil && !b.begun && !continues(b.copy.Position(), c)
}

// continues reports whether a batch goes on from where a copy is.
func continues(at replica.Position, c *kv.Changes) bool {
	if at == (replica.Position{}) {
		return c.From == 0
	}
	return c.Epoch == at.Epoch && c.From <= at.Seq && c.To >= at.Seq
}

func changesOf(b *changes.Batch) kv.Changes {
	out := kv.Changes{Epoch: b.Epoch, From: b.From, To: b.To, Head: b.Head, At: b.At, List: make([]kv.Change, 0, len(b.Changes))}
	for i := range b.Changes {
		c := &b.Changes[i]
		k := kv.Change{Key: c.Key, Revision: c.Seq, Gone: c.Op != changes.Put, Metadata: append([]byte(nil), c.Metadata...), Expires: c.Expires}
		if c.Inline() {
			k.Value = append([]byte{}, c.Value...) // a copy: the batch's bytes are all one piece
		}
		out.List = append(out.List, k)
	}
	return out
}
