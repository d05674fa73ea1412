package kv

import (
	"time"

	"github.com/selvage-edge/selvage/edge/replica"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// copied is what a namespace has of a copy on disk. space.mu guards it.
type copied struct {
	from   *replica.Copy // nil: it is not asked
	since  uint64        // from counts once it has come to this: more was served here before it was attached
	noRoom bool          // there should be a copy, and there is no room for one
}

// Attach has reads of a namespace answered from its copy too, which is whole. The copy must not
// have a change that Apply was not called with: Apply comes first. A copy that has not come to all that this node
// has served before is not asked until it has. Reset, Forget and Detach end it. It reports whether the copy
// is of the namespace's epoch: if not it is left as it was.
func (s *Store) Attach(ns hostcall.Namespace, c *replica.Copy) bool {
	n, at := s.space(ns), c.Complete()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.kept && n.mu.epoch != at.Epoch {
		return false
	}
	if !n.mu.kept {
		s.beginLocked(n, Changes{Epoch: at.Epoch, From: at.Seq})
		n.mu.told, n.mu.head = max(n.mu.told, c.Position().Seq), max(n.mu.head, c.Head())
	}
	n.mu.copied = copied{from: c, since: max(n.mu.seen, n.mu.answered)}
	n.mu.seen = max(n.mu.seen, c.Position().Seq) // it answers with that from now on
	return true
}

// Detach has a namespace read as one without a copy; noRoom says that this is for want of room.
func (s *Store) Detach(ns hostcall.Namespace, noRoom bool) {
	n := s.space(ns)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.copied = copied{noRoom: noRoom}
}

func (n *space) replicated() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mu.copied.from != nil
}

// copied answers from the namespace's copy, anyway also where it is in doubt whether a
// write of the key has happened.
func (s *Store) copied(n *space, key string, atLeast uint64, anyway bool) (_ hostcall.Entry, err error, ok bool) {
	for range 2 { // what the copy said may be fenced by a change that came meanwhile, and that it has then
		c, id := n.copyFor(key, anyway)
		if c == nil {
			break
		}
		v, at, found, ok := c.Get(key)
		if !ok {
			break
		}
		e := entry{key: key, found: found, value: v.Value, metadata: v.Metadata, revision: v.Revision, expires: unixMilli(v.Expires), began: at.Seq}
		if out, err, ok := s.landCopied(n, c, id, at, e, atLeast); ok {
			return out, err, true
		}
	}
	return hostcall.Entry{}, nil, false
}

// copyFor returns the copy that may be asked for a key now, nil if none may, and the space's generation.
func (n *space) copyFor(key string, anyway bool) (*replica.Copy, uint64) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	c := &n.mu.copied
	if !n.mu.kept || n.mu.strays.has(key) || n.mu.doubts.has(key) && !anyway {
		return nil, 0
	}
	return c.from, n.mu.id
}

// landCopied decides whether what the copy said, as of at, may be served, and keeps it in memory.
func (s *Store) landCopied(n *space, c *replica.Copy, id uint64, at replica.Position, e entry, atLeast uint64) (_ hostcall.Entry, err error, ok bool) {
	n.mu.RLock() // enough to keep it: what would make it old takes the lock
	defer n.mu.RUnlock()
	now := time.Now()
	if e.over(now, s.clock.store(now)) {
		e = entry{key: e.key, began: e.began} // its end is no change of the log yet, but it has ended
	}
	if n.mu.id != id || n.mu.copied.from != c || at.Epoch != n.mu.epoch || at.Seq < n.mu.copied.since || !n.mu.fences.passes(&e) {
		return hostcall.Entry{}, nil, false
	}
	stale, ok := n.serves(&e, now, atLeast)
	if !ok {
		return hostcall.Entry{}, nil, false
	}
	s.counts.replica.Add(1)
	n.counts.replica.Add(1)
	n.counts.served(&e, stale)
	if !n.mu.doubts.has(e.key) { // else the truth is to be asked again
		s.keep(n, e.key, e, e.began)
	}
	out, err := e.answer(n.mu.at, stale)
	return out, err, true
}

// listed lists from the copy, if it has everything that this node knows of, and is fresh enough.
func (s *Store) listed(n *space, prefix, cursor string, limit int) (keys []hostcall.KeyInfo, next string, ok bool) {
	c, id, least := n.copyForList()
	if c == nil {
		return nil, "", false
	}
	now, more := s.clock.store(time.Now()), false
	at, ok := c.List(prefix, cursor, func(key string, v *replica.Value) bool {
		if v.Expires != 0 && now.UnixMilli() >= v.Expires {
			return true
		}
		if more = len(keys) == limit; more {
			return false
		}
		keys = append(keys, hostcall.KeyInfo{Key: key, Revision: v.Revision, Expires: unixMilli(v.Expires), Metadata: append([]byte(nil), v.Metadata...)})
		return true
	})
	if !ok || at.Seq < least || n.generation() != id {
		return nil, "", false
	}
	n.counts.replica.Add(1)
	s.counts.replica.Add(1)
	if more {
		next = keys[len(keys)-1].Key
	}
	return keys, next, true
}

// copyForList returns the copy that may be listed, nil if none may, and what it has to have come to.
func (n *space) copyForList() (c *replica.Copy, id, least uint64) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	stale := n.stale(&entry{}, time.Now())
	if !n.mu.kept || !n.mu.strays.empty() || !n.mu.doubts.empty() || !n.within(stale) {
		return nil, 0, 0
	}
	return n.mu.copied.from, n.mu.id, max(n.mu.copied.since, n.mu.seen, n.mu.answered)
}

// unixMilli is the zero time for 0.
func unixMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
