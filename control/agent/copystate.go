package agent

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/selvage-edge/selvage/control/report"
)

// copies is where the copies of replicated namespaces are, for the report.
func (s *spaces) copies() []report.Copy {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []report.Copy
	for _, b := range s.mu.byLog {
		if b.replicated {
			all = append(all, s.copyState(b))
		}
	}
	slices.SortFunc(all, func(a, b report.Copy) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Namespace, b.Namespace))
	})
	return all[:min(len(all), report.MaxSpaces)]
}

// copyState is one namespace's. s.mu is held.
func (s *spaces) copyState(b *bound) report.Copy {
	c := report.Copy{Project: b.ns.Project, Namespace: b.ns.Name, State: report.CopyNone}
	switch {
	case b.copy != nil:
		c.State = report.CopyCatching
		c.Position = b.copy.Position().Seq
		c.Keys, c.Bytes = b.copy.Size()
		if b.attached {
			c.State = report.CopyWhole
		} else if head := b.copy.Head(); head > c.Position {
			c.Head = head
		}
	case b.asking == asked:
		c.State, c.Why = report.CopyCatching, "neighbours are asked for their copy of it"
	case b.lacks > 0:
		c.State = report.CopyNoRoom
		c.Why = fmt.Sprintf("it takes %d bytes or more: raise limits.replica_bytes, or free some of the disk", b.lacks)
	case s.replica.Dir == "":
		c.Why = "limits.replica_bytes is 0 on this node"
	case s.mu.closed:
		c.Why = "another server of this node has the copies"
	case s.mu.db == nil:
		c.Why = "the copies on disk are not in use: not opened yet, damaged, or not to be written; the node's log says why, and it is tried again every minute"
	default:
		c.Why = "it was given up, and is made anew within a minute; the node's log says why"
	}
	return c
}
