package kv

import "sync/atomic"

// Stats are counts since New.
type Stats struct {
	Hits         uint64 // answered from memory
	Replica      uint64 // answered from copies on disk
	NegativeHits uint64 // of them "not found"
	Misses       uint64 // asked of the origin
	Joined       uint64 // waited for a question another had asked
	Fenced       uint64 // answers dropped: older than what was told meanwhile
	Failures     uint64 // questions the origin did not answer
	Changes      uint64 // changes told by streams
	Evicted      uint64 // entries that gave way to others
	Bytes        int64  // held, about
	Kept         int    // namespaces kept fresh
}

type counts struct {
	hits, replica, negative, misses, joined, fenced, failures, changes atomic.Uint64
}

func (c *counts) hit(e *entry) {
	c.hits.Add(1)
	if !e.found {
		c.negative.Add(1)
	}
}

// Stats returns counts.
func (s *Store) Stats() Stats {
	m := s.entries.cache.Metrics
	return Stats{
		Hits: s.counts.hits.Load(), Replica: s.counts.replica.Load(), NegativeHits: s.counts.negative.Load(),
		Misses: s.counts.misses.Load(), Joined: s.counts.joined.Load(),
		Fenced: s.counts.fenced.Load(), Failures: s.counts.failures.Load(),
		Changes: s.counts.changes.Load(), Evicted: m.KeysEvicted(),
		Bytes: int64(m.CostAdded()) - int64(m.CostEvicted()), Kept: len(s.Kept()),
	}
}
