package kv

import (
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
	name hostcall.Namespace
	mu   struct {
		sync.RWMutex
		id      uint64 // of the entries; another one leaves all of them behind
		kept    bool   // a change stream keeps entries fresh, so there may be some
		epoch   uint64
		seen    uint64 // the newest revision this node knows of, from anyone
		fences  fences
		strays  strays
		flights map[string]*keyFlights
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

// cached returns what memory has of the key and may be served.
func (s *Store) cached(n *space, key string) *entry {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if !n.mu.kept || n.mu.strays.has(key) {
		return nil
	}
	e := s.entries.get(n.mu.id, key)
	if e == nil || e.over(time.Now()) || !n.mu.fences.passes(e) {
		return nil
	}
	s.counts.hit(e)
	return e
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
	rev := e.revision
	n.mu.seen = max(n.mu.seen, rev)
	if known := s.entries.get(n.mu.id, key); known != nil && known.newer(rev) {
		n.mu.fences.raise(key, rev)
		return // the echo of what is here already
	}
	wanted := ours || n.mu.flights[key] != nil || s.entries.get(n.mu.id, key) != nil
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
	if !e.found {
		e.until = time.Now().Add(s.config.Negative)
	}
	s.entries.put(&e)
}

// doubt forgets the key after a write that may or may not have happened.
func (s *Store) doubt(n *space, key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.supersede(key)
	s.entries.drop(n.mu.id, key)
}

// Change is one change of one key of a namespace.
type Change struct {
	Key      string
	Revision uint64
	Gone     bool      // deleted or expired
	Value    []byte    // nil when it did not come along, and when Gone
	Expires  time.Time // zero: never
}

// Changes are all changes of a namespace after From and up to To.
type Changes struct {
	Epoch uint64
	From  uint64
	To    uint64
	List  []Change // in order of Revision; the store keeps the values
}

// Apply takes the next changes of a namespace's stream. The first ones begin
// to keep the namespace fresh: only then are entries kept in memory.
func (s *Store) Apply(ns hostcall.Namespace, c Changes) {
	n := s.space(ns)
	s.begin(n, c)
	for _, ch := range c.List {
		s.counts.changes.Add(1)
		s.told(n, ch.Key, entry{
			found: !ch.Gone, partial: !ch.Gone && ch.Value == nil,
			value: ch.Value, revision: ch.Revision, expires: ch.Expires,
		}, false)
	}
	n.mu.Lock()
	n.mu.seen = max(n.mu.seen, c.To)
	n.mu.strays.passed(c.To)
	n.mu.Unlock()
}

func (s *Store) begin(n *space, c Changes) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.kept && n.mu.epoch != c.Epoch {
		s.restart(n) // revisions of two epochs do not compare
	}
	if n.mu.kept {
		return
	}
	n.mu.kept, n.mu.epoch = true, c.Epoch
	// What was asked for before the stream began may lack a change before From,
	// of which the stream does not tell.
	n.mu.seen = max(n.mu.seen, c.From)
	n.mu.fences.floor = max(n.mu.fences.floor, c.From)
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
	n.mu.id, n.mu.kept, n.mu.epoch, n.mu.seen = ids.Add(1), false, 0, 0
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
