package agent

import (
	"context"
	"io"

	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/edge/kv"
)

// What an Agent makes its change streams of, for who models many nodes without the rest of one.

// NewNeighbourhood returns who follows what from whom in a PoP, as node self sees it; list
// returns the other live nodes, and is called often.
func NewNeighbourhood(self string, list func() []Neighbour) changes.Neighbourhood {
	return newPop(self, list, func(Event) {})
}

// OpenStream returns what opens change streams on whom.
func OpenStream(whom Doer) func(context.Context, changes.Request) (io.ReadCloser, error) {
	return openStream(whom)
}

// ChangesOf returns what a batch tells a node's KV; it shares nothing with b.
func ChangesOf(b *changes.Batch) kv.Changes { return changesOf(b) }
