package kv

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// ids numbers spaces, and their generations, over the whole process.
var ids atomic.Uint64

// space is one namespace on this node.
type space struct {
	name   hostcall.Namespace
	counts spaceCounts
	mu     struct {
		sync.RWMutex
		id       uint64 // of the entries; another one leaves all of them behind
		kept     bool   // a change stream keeps entries fresh, so there may be some
		epoch    uint64
		seen     uint64        // the newest revision this node knows of, from the truth, its stream or its own writes
		served   uint64        // the newest revision of any answer, neighbours' too: who is asked next must not be behind it
		servedIn uint64        // the epoch of served
		answered uint64        // the newest revision of any answer since the namespace began anew
		told     uint64        // how far the stream has told; of pages, what is still to come may be from before
		head     uint64        // where what pages told is everything
		at       uint64        // up to here the stream has told everything
		fresh    time.Time     // when that was everything, on this node's clock
		limit    time.Duration // how stale an answer may be; 0: as it comes
		fences   fences
		strays   strays
		doubts   doubts // for a copy that is attached, or will be
		flights  map[string]*keyFlights
		copied   copied
	}
}

// space returns the namespace's, making it when it is new.
func (s *Store) space(ns hostcall.Namespace) *space {
	s.mu.RLock()
	n := s.mu.spaces[ns]
	s.mu.RUnlock()
	if n != nil {
		return n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n = s.mu.spaces[ns]; n == nil {
		n = &space{name: ns}
		n.mu.id = ids.Add(1)
		n.mu.fences = newFences(s.config.Fences)
		n.mu.flights = map[string]*keyFlights{}
		s.mu.spaces[ns] = n
	}
	return n
}

// cached answers from what is on this node, memory or the namespace's copy, if it may be
// served and reflects atLeast.
func (s *Store) cached(n *space, key string, atLeast uint64) (_ hostcall.Entry, err error, ok bool) {
	n.mu.RLock()
	out, err, ok := s.remembered(n, key, atLeast)
	replicated := n.mu.copied.from != nil
	n.mu.RUnlock()
	if ok || !replicated {
		return out, err, ok
	}
	return s.copied(n, key, atLeast, false)
}

// remembered answers from memory. n.mu is held.
func (s *Store) remembered(n *space, key string, atLeast uint64) (_ hostcall.Entry, err error, ok bool) {
	if !n.mu.kept || n.mu.strays.has(key) {
		return hostcall.Entry{}, nil, false
	}
	e := s.entries.get(n.mu.id, key)
	if e == nil || !n.mu.fences.passes(e) {
		return hostcall.Entry{}, nil, false
	}
	now := time.Now()
	stale, ok := n.serves(e, now, atLeast)
	if !ok || e.over(now, s.clock.store(now)) {
		return hostcall.Entry{}, nil, false
	}
	s.counts.hit(e)
	n.counts.hit(e, stale)
	out, err := e.answer(n.mu.at, stale)
	return out, err, true
}

// serves reports whether e, which its fence passes, is fresh enough. n.mu is held.
func (n *space) serves(e *entry, now time.Time, atLeast uint64) (stale time.Duration, ok bool) {
	stale = n.stale(e, now)
	return stale, n.within(stale) && e.asOf(n.mu.at) >= atLeast
}

// within reports whether an answer may be so stale; below 0: it is not known. n.mu is held.
func (n *space) within(stale time.Duration) bool {
	return n.mu.limit == 0 || stale >= 0 && stale <= n.mu.limit
}

// answer is e as the caller gets it.
func (e *entry) answer(at uint64, stale time.Duration) (hostcall.Entry, error) {
	out := hostcall.Entry{AsOf: e.asOf(at), Stale: stale}
	if !e.found {
		return out, hostcall.ErrNotFound
	}
	out.Value, out.Metadata, out.Revision, out.Expires = e.value, e.metadata, e.revision, e.expires
	return out, nil
}

// answer is what was just asked for, as the caller gets it.
func (s *Store) answer(n *space, e *entry) (hostcall.Entry, error) {
	stale := max(time.Since(e.at), 0)
	n.counts.served(e, stale)
	return e.answer(0, stale)
}

// stale is how long ago e was the newest, at most. n.mu is held.
func (n *space) stale(e *entry, now time.Time) time.Duration {
	at := n.mu.fresh
	if e.at.After(at) {
		at = e.at
	}
	if at.IsZero() {
		return -1
	}
	return max(now.Sub(at), 0)
}

// explain says why a question that failed was asked although there may be an older answer.
func (s *Store) explain(n *space, err error) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.mu.limit == 0 || !n.mu.kept || time.Since(n.mu.fresh) <= n.mu.limit {
		return err
	}
	n.counts.refused.Add(1)
	if n.mu.fresh.IsZero() {
		return fmt.Errorf("%w (how old the node's own answer is cannot be told yet, and namespace %s has a max-stale of %v)", err, n.name.Name, n.mu.limit)
	}
	return fmt.Errorf("%w (the node's own answer would be up to %v old, over the max-stale of %v of namespace %s)", err, time.Since(n.mu.fresh).Round(time.Second), n.mu.limit, n.name.Name)
}

// Limit sets how stale an answer from memory may be; 0, as it is without: any.
func (s *Store) Limit(ns hostcall.Namespace, stale time.Duration) {
	n := s.space(ns)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.limit = stale
}

// generation is what e.space of a write has to be when it is told.
func (n *space) generation() uint64 {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mu.id
}

// told takes what became of a key: by this node's own write, or by a change.
func (s *Store) told(n *space, key string, e entry, ours bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ours && e.space != n.mu.id {
		// The namespace began anew since the write was sent, maybe in another
		// epoch: its revision must not fence what there is now.
		n.mu.strays.add(key, e.revision, s.config.Fences)
		n.supersede(key)
		n.void(key)
		s.entries.drop(n.mu.id, key)
		return
	}
	if ours {
		n.mu.doubts.settle(key, e.at)
	}
	rev := e.revision
	n.mu.seen = max(n.mu.seen, rev)
	if known := s.entries.get(n.mu.id, key); known != nil && known.newer(rev) {
		n.mu.fences.raise(key, rev)
		return // the echo of what is here already
	}
	// Not for those who are asking: what they were answered before may be newer than a
	// stream that is behind.
	// A copy has it in a moment; until then memory does.
	wanted := ours || n.mu.copied.from != nil || s.entries.get(n.mu.id, key) != nil
	if !n.mu.fences.raise(key, rev) {
		return
	}
	n.supersede(key)
	s.entries.drop(n.mu.id, key)
	if wanted && !e.partial {
		s.keep(n, key, e, rev) // as of rev, not of what was seen: the stream may be behind our own writes
	}
}

// newer reports whether e is at least as new as rev.
func (e *entry) newer(rev uint64) bool {
	if e.found {
		return e.revision >= rev
	}
	return e.began >= rev
}

// keep puts e into memory, if the namespace is kept fresh. n.mu is held.
func (s *Store) keep(n *space, key string, e entry, began uint64) {
	if !n.mu.kept || n.mu.strays.has(key) {
		return
	}
	e.space, e.key, e.began = n.mu.id, key, began
	now := time.Now()
	if !e.found {
		e.until = now.Add(s.config.Negative)
	}
	s.entries.put(&e, now, s.clock.store(now))
}

// doubt forgets the key after a write that may or may not have happened.
func (s *Store) doubt(n *space, key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.supersede(key)
	s.entries.drop(n.mu.id, key)
	n.mu.doubts.add(key, time.Now(), s.config.Fences)
}

// Change is one change of one key of a namespace.
type Change struct {
	Key      string
	Revision uint64
	Gone     bool      // deleted or expired
	Metadata []byte    // the store keeps it
	Value    []byte    // nil when it did not come along, and when Gone
	Expires  time.Time // zero: never
}

// Changes are all changes of a namespace after From and up to To, but those that were replaced
// until To, or, of a page with more behind it, until Head.
type Changes struct {
	Epoch uint64
	From  uint64
	To    uint64
	Head  uint64    // a page's; else 0
	At    time.Time // on the store's clock: they were all there were then; zero: not known
	List  []Change  // in order of Revision; the store keeps the values
}

// Apply takes the next changes of a namespace's stream. The first ones begin
// to keep the namespace fresh: only then are entries kept in memory.
func (s *Store) Apply(ns hostcall.Namespace, c Changes) {
	n := s.space(ns)
	s.begin(n, c)
	now := time.Now()
	if !c.At.IsZero() {
		s.clock.observe(c.At, now)
	}
	for _, ch := range c.List {
		s.counts.changes.Add(1)
		s.told(n, ch.Key, entry{
			found: !ch.Gone, partial: !ch.Gone && ch.Value == nil,
			value: ch.Value, metadata: ch.Metadata, revision: ch.Revision, expires: ch.Expires,
		}, false)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.seen, n.mu.told, n.mu.head = max(n.mu.seen, c.To), max(n.mu.told, c.To), max(n.mu.head, c.Head)
	if c.To < n.mu.head {
		return // a change before To that a page left out is still to come, as what replaced it
	}
	n.mu.at = max(n.mu.at, c.To)
	n.mu.strays.passed(c.To)
	if at := s.clock.local(c.At, now); !c.At.IsZero() && at.After(n.mu.fresh) {
		n.mu.fresh = at
	}
	n.mu.doubts.passed(n.mu.fresh)
}

func (s *Store) begin(n *space, c Changes) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s.beginLocked(n, c)
}

func (s *Store) beginLocked(n *space, c Changes) {
	if n.mu.kept && n.mu.epoch != c.Epoch {
		s.restart(n) // revisions of two epochs do not compare
	}
	if n.mu.kept {
		if c.From > n.mu.told {
			n.leap(c.From, s.config.Fences)
		}
		return
	}
	if n.mu.servedIn != c.Epoch {
		n.mu.served, n.mu.servedIn = 0, c.Epoch
	}
	n.mu.kept, n.mu.epoch = true, c.Epoch
	// What was asked for before the stream began may lack a change before From,
	// of which the stream does not tell.
	n.mu.seen, n.mu.told, n.mu.at = max(n.mu.seen, c.From), max(n.mu.told, c.From), max(n.mu.at, c.From)
	n.mu.fences.floor = max(n.mu.fences.floor, c.From)
}

// leap takes that the stream goes on after a gap: of what was known before, anything may have changed
// meanwhile. What was asked for before counts for nothing, memory is left behind, and a
// copy is not asked until it has come past the gap. n.mu is held.
func (n *space) leap(from uint64, fences int) {
	n.mu.id = ids.Add(1)
	n.mu.seen = max(n.mu.seen, n.mu.answered, from)
	n.mu.told, n.mu.at = from, max(n.mu.at, from)
	n.mu.fences = newFences(fences)
	n.mu.fences.floor = n.mu.seen
	n.mu.copied.since = max(n.mu.copied.since, from)
	for key := range n.mu.flights {
		n.supersede(key)
		n.void(key)
	}
}

// Reset forgets all of a namespace: its stream starts anew, maybe in another
// epoch. Reads go to the origin until Apply.
func (s *Store) Reset(ns hostcall.Namespace) {
	n := s.space(ns)
	n.mu.Lock()
	defer n.mu.Unlock()
	s.restart(n)
}

// restart begins another generation of n. n.mu is held.
func (s *Store) restart(n *space) {
	n.mu.id, n.mu.kept, n.mu.epoch, n.mu.seen, n.mu.answered = ids.Add(1), false, 0, 0, 0
	n.mu.told, n.mu.head, n.mu.at = 0, 0, 0
	n.mu.fresh, n.mu.copied = time.Time{}, copied{noRoom: n.mu.copied.noRoom}
	n.mu.fences = newFences(s.config.Fences)
	for key := range n.mu.flights {
		n.supersede(key)
		n.void(key)
	}
}

// Forget drops a namespace that nothing on this node uses any more.
func (s *Store) Forget(ns hostcall.Namespace) {
	s.Reset(ns)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.spaces, ns)
}

// Kept lists the namespaces whose entries are kept and made fresh, in order.
func (s *Store) Kept() []hostcall.Namespace {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []hostcall.Namespace
	for ns, n := range s.mu.spaces {
		n.mu.RLock()
		if n.mu.kept {
			list = append(list, ns)
		}
		n.mu.RUnlock()
	}
	slices.SortFunc(list, compareNamespaces)
	return list
}
