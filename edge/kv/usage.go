package kv

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// StaleBounds are the upper bounds of Usage.Stale; its last count is of what is over
// them all, or not known.
var StaleBounds = [...]time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, 5 * time.Minute}

// Usage counts what a namespace was asked for on this node since it was first used here.
type Usage struct {
	Hits         uint64                       `json:"hits"`          // answered from memory
	NegativeHits uint64                       `json:"negative_hits"` // of them "not found"
	Replica      uint64                       `json:"replica"`       // answered from the copy on disk
	Misses       uint64                       `json:"misses"`        // keys asked for elsewhere, as follows
	Owner        uint64                       `json:"owner"`         // of the node of the PoP that looks after the key
	Origin       uint64                       `json:"origin"`        // of control, strong reads too
	Joined       uint64                       `json:"joined"`        // waited for what another had asked
	Refused      uint64                       `json:"refused"`       // not answered, since all there was was over max-stale
	Writes       uint64                       `json:"writes"`        // by functions on this node
	BytesRead    uint64                       `json:"bytes_read"`    // of values
	BytesWritten uint64                       `json:"bytes_written"` // of values
	Copies       uint64                       `json:"copies"`        // now: 1 if the node answers from a whole copy
	CopyBytes    uint64                       `json:"copy_bytes"`    // now, of its keys, values and metadata
	NoRoom       uint64                       `json:"no_room"`       // now: 1 if there is no room for a copy here, so that the namespace is as a cached one
	Stale        [len(StaleBounds) + 1]uint64 `json:"stale"`         // reads by how old they may have been
}

// Add counts other in.
func (u *Usage) Add(other Usage) {
	for _, f := range []struct {
		to *uint64
		n  uint64
	}{
		{&u.Hits, other.Hits}, {&u.NegativeHits, other.NegativeHits}, {&u.Replica, other.Replica}, {&u.Misses, other.Misses}, {&u.Owner, other.Owner},
		{&u.Origin, other.Origin}, {&u.Joined, other.Joined}, {&u.Refused, other.Refused}, {&u.Writes, other.Writes},
		{&u.BytesRead, other.BytesRead}, {&u.BytesWritten, other.BytesWritten},
		{&u.Copies, other.Copies}, {&u.CopyBytes, other.CopyBytes}, {&u.NoRoom, other.NoRoom},
	} {
		*f.to += f.n
	}
	for i, n := range other.Stale {
		u.Stale[i] += n
	}
}

// spaceCounts are a namespace's.
type spaceCounts struct {
	hits, replica, negative, misses, owner, origin, joined, refused, writes, bytesRead, bytesWritten atomic.Uint64

	stale [len(StaleBounds) + 1]atomic.Uint64
}

func (c *spaceCounts) hit(e *entry, stale time.Duration) {
	c.hits.Add(1)
	if !e.found {
		c.negative.Add(1)
	}
	c.served(e, stale)
}

// served counts an answer, from wherever it is.
func (c *spaceCounts) served(e *entry, stale time.Duration) { c.read(len(e.value), stale) }

func (c *spaceCounts) read(size int, stale time.Duration) {
	c.bytesRead.Add(uint64(size))
	c.stale[staleClass(stale)].Add(1)
}

func (c *spaceCounts) wrote(size int) {
	c.writes.Add(1)
	c.bytesWritten.Add(uint64(size))
}

func staleClass(stale time.Duration) int {
	for i, most := range StaleBounds {
		if stale >= 0 && stale <= most {
			return i
		}
	}
	return len(StaleBounds)
}

// SpaceUsage is one namespace's Usage.
type SpaceUsage struct {
	hostcall.Namespace
	Usage
}

// Usage returns the counts of every namespace that was used, in order.
func (s *Store) Usage() []SpaceUsage {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []SpaceUsage
	for ns, n := range s.mu.spaces {
		if u := n.usage(); u != (Usage{}) {
			list = append(list, SpaceUsage{ns, u})
		}
	}
	slices.SortFunc(list, func(a, b SpaceUsage) int { return compareNamespaces(a.Namespace, b.Namespace) })
	return list
}

// usage is the counts, and how the copy is now.
func (n *space) usage() Usage {
	u := n.counts.usage()
	n.mu.RLock()
	defer n.mu.RUnlock()
	if c := n.mu.copied.from; c != nil && c.Whole() {
		_, bytes := c.Size()
		u.Copies, u.CopyBytes = 1, uint64(max(bytes, 0))
	}
	if n.mu.copied.noRoom {
		u.NoRoom = 1
	}
	return u
}

func (c *spaceCounts) usage() Usage {
	u := Usage{
		Hits: c.hits.Load(), Replica: c.replica.Load(), NegativeHits: c.negative.Load(), Misses: c.misses.Load(), Owner: c.owner.Load(), Origin: c.origin.Load(),
		Joined: c.joined.Load(), Refused: c.refused.Load(), Writes: c.writes.Load(), BytesRead: c.bytesRead.Load(), BytesWritten: c.bytesWritten.Load(),
	}
	for i := range c.stale {
		u.Stale[i] = c.stale[i].Load()
	}
	return u
}

func compareNamespaces(a, b hostcall.Namespace) int {
	return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
}
