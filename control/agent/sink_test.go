package agent

import (
	"context"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/control/identity"
)

// TestHalfACatalogIsNotTaken has a catalog begin anew page by page: neither a page whose records were all
// replaced, nor what was everything before the log came to where the pages were made, is all of it.
func TestHalfACatalogIsNotTaken(t *testing.T) {
	taken := 0
	s := &catalogSink{state: catalog.NewState((*identity.Anchor)(nil)), changed: func() { taken++ }}
	for _, epoch := range []uint64{2, 3} {
		if err := s.Reset(context.Background(), catalogLog, epoch); err != nil {
			t.Fatal(err)
		}
		before := taken
		for _, b := range []changes.Batch{{From: 0, To: 3, Head: 9}, {From: 3, To: 5}, {From: 5, To: 8}, {From: 8, To: 9}} {
			if taken != before {
				t.Errorf("epoch %d: taken before %d", epoch, b.To)
			}
			b.Log, b.Epoch = catalogLog, epoch
			if b.Head == 0 {
				b.At = time.Now()
			}
			if err := s.Apply(context.Background(), &b); err != nil {
				t.Fatal(err)
			}
		}
		if at := s.state.Snapshot().Position(); taken != before+1 || at.Epoch != epoch || at.Revision != 9 {
			t.Errorf("epoch %d: taken %d times, at %v", epoch, taken-before, at)
		}
	}
}
