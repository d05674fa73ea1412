package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// reader asks one node for keys, one a second, as a function there would, and holds
// what it is answered against the truth: whatever becomes of the network, an answer was
// true once, no longer ago than it says, and none is older than one before.
type reader struct {
	n    *node
	r    *rand.Rand
	seen map[string]uint64 // the change that made the last answer, by key
}

// slack is what an answer's age may be more than it says: the way of what told the node the store's time.
const slack = time.Second

func (n *node) read(ctx context.Context, r *rand.Rand) {
	d := reader{n, r, map[string]uint64{}}
	for sleep(ctx, 500*time.Millisecond+time.Duration(r.Int64N(int64(time.Second)))) == nil {
		if err := d.ask(ctx, n.w.keys[r.IntN(len(n.w.keys))]); err != nil {
			n.w.fault(err)
			return
		}
	}
}

// ask returns an error if the answer is wrong; that there is none is an answer.
func (d *reader) ask(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	e, err := d.n.store.Get(ctx, words, key)
	if err != nil && !errors.Is(err, hostcall.ErrNotFound) {
		return nil
	}
	d.n.w.answered.Add(1)
	if err := d.check(key, e); err != nil {
		return fmt.Errorf("%s answers %s, revision %d, as of %d: %w", d.n.name, key, e.Revision, e.AsOf, err)
	}
	return nil
}

func (d *reader) check(key string, e hostcall.Entry) error {
	seq, over, err := d.n.w.truth.until(key, e.Revision)
	if err != nil {
		return err
	}
	if e.Revision > 0 && string(e.Value) != string(valueOf(e.Revision)) {
		return fmt.Errorf("with a value that is another's: %.120q", e.Value)
	}
	if seq < d.seen[key] {
		return fmt.Errorf("after it answered what change %d made: it goes backwards", d.seen[key])
	}
	if age := time.Since(over); !over.IsZero() && e.Stale >= 0 && age > e.Stale+slack {
		return fmt.Errorf("which has been over for %v, and says %v at most", age, e.Stale)
	}
	d.seen[key] = seq
	return nil
}
