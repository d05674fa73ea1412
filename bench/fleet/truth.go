package fleet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/store"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// words is the namespace that is written to, and its log.
var words = hostcall.Namespace{Project: "default", Name: "words"}

// truth is control's store, in memory: what changes.Server serves from, and what
// nodes ask for what they have not. Writes cost no time: an acknowledgement is what the rest counts from.
type truth struct {
	mu struct {
		sync.Mutex
		log  []written           // the change of sequence i+1
		keys map[string][]uint64 // the sequences of each key's changes
		subs map[*store.Subscription]bool
	}
}

type written struct {
	store.Change
	at time.Time
}

func newTruth() *truth {
	t := &truth{}
	t.mu.keys, t.mu.subs = map[string][]uint64{}, map[*store.Subscription]bool{}
	return t
}

var log = store.KVLog(words)

// put writes a value of 100 bytes, which says its revision.
func (t *truth) put(key string) {
	t.change(key, func(seq uint64) store.Change {
		value := valueOf(seq)
		return store.Change{Op: store.OpPut, Size: uint32(len(value)), Sum: sha256.Sum256(value), Value: value}
	})
}

func valueOf(seq uint64) []byte { return fmt.Appendf(nil, "%0100d", seq) }

func (t *truth) delete(key string) {
	t.change(key, func(uint64) store.Change { return store.Change{Op: store.OpDelete} })
}

func (t *truth) change(key string, made func(seq uint64) store.Change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seq := uint64(len(t.mu.log) + 1)
	c := made(seq)
	c.Seq, c.Key = seq, key
	t.mu.log = append(t.mu.log, written{c, time.Now()})
	t.mu.keys[key] = append(t.mu.keys[key], seq)
	for sub := range t.mu.subs {
		sub.Mark(log)
	}
}

// at returns when a change was written.
func (t *truth) at(seq uint64) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.log[seq-1].at
}

func (t *truth) head() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return uint64(len(t.mu.log))
}

// get returns a key's value; its revision is 0 if it has none.
func (t *truth) get(key string) (value []byte, revision uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.newest(key); c.Op == store.OpPut {
		return c.Value, c.Seq
	}
	return nil, 0
}

// newest is the last change of a key, none if its sequence is 0. t.mu is held.
func (t *truth) newest(key string) store.Change {
	if all := t.mu.keys[key]; len(all) > 0 {
		return t.mu.log[all[len(all)-1]-1].Change
	}
	return store.Change{}
}

// until returns the change that made the key what an answer says of it (of a revision, or 0: nothing), the
// last such change, and when the next one was written, zero if there was none.
func (t *truth) until(key string, revision uint64) (seq uint64, over time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	none := revision == 0
	for _, next := range slices.Backward(t.mu.keys[key]) {
		w := t.mu.log[next-1]
		if none && w.Op == store.OpDelete || !none && next == revision && w.Op == store.OpPut {
			return next, over, nil
		}
		over = w.at
	}
	if none {
		return 0, over, nil // it was not written yet
	}
	return 0, over, fmt.Errorf("no value of %s has revision %d", key, revision)
}

// Epoch implements changes.Source, as what follows does.
func (t *truth) Epoch() uint64 { return 1 }

// Head is the newest sequence.
func (t *truth) Head(name string) (uint64, error) {
	if name != log {
		return 0, fmt.Errorf("no log %s", name)
	}
	return t.head(), nil
}

// Read returns the newest change of each key after a sequence, and how far the log has come if that is not all.
func (t *truth) Read(_ context.Context, _ string, after uint64, o store.ReadOptions) (store.Page, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := store.Page{From: after, To: after}
	bytes := 0
	for _, w := range t.mu.log[min(after, uint64(len(t.mu.log))):] {
		if len(p.Changes) >= o.Changes || bytes >= o.Bytes {
			p.More = uint64(len(t.mu.log))
			return p, nil
		}
		if p.To = w.Seq; t.newest(w.Key).Seq == w.Seq {
			p.Changes = append(p.Changes, w.Change)
			bytes += len(w.Key) + len(w.Value)
		}
	}
	return p, nil
}

// Subscribe watches from now on.
func (t *truth) Subscribe([]string) (*store.Subscription, error) {
	var sub *store.Subscription
	sub = store.NewSubscription(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.mu.subs, sub)
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.subs[sub] = true
	return sub, nil
}

// Reaches is never asked for: nobody shows proofs here.
func (t *truth) Reaches(context.Context, string, uint64, uint64) (bool, error) { return true, nil }

// Contradicts is never asked for.
func (t *truth) Contradicts(context.Context, string, store.Change) (bool, error) { return false, nil }

// origin is the truth as a node asks for it, over the mesh.
type origin struct {
	*truth
	mesh *mesh
	from place
	to   place
}

var errNotModelled = errors.New("the model writes at control and reads single keys")

var _ hostcall.KV = origin{}

// Get asks control, there and back.
func (o origin) Get(ctx context.Context, _ hostcall.Namespace, key string) (hostcall.Entry, error) {
	if err := o.mesh.carry(ctx, o.from, o.to); err != nil {
		return hostcall.Entry{}, errors.Join(hostcall.ErrUnavailable, err)
	}
	value, revision := o.get(key)
	e := hostcall.Entry{Value: value, Revision: revision, AsOf: o.head(), At: time.Now()}
	if err := o.mesh.carry(ctx, o.to, o.from); err != nil {
		return hostcall.Entry{}, errors.Join(hostcall.ErrUnavailable, err)
	}
	o.mesh.sent(len(value) + 300)
	if revision == 0 {
		return e, hostcall.ErrNotFound
	}
	return e, nil
}

// Read is not modelled, as the following are not.
func (origin) Read(context.Context, hostcall.Namespace, []string, hostcall.ReadOptions) ([]hostcall.Result, error) {
	return nil, errNotModelled
}

// Put is not modelled.
func (origin) Put(context.Context, hostcall.Namespace, string, []byte, hostcall.PutOptions) (uint64, error) {
	return 0, errNotModelled
}

// Delete is not modelled.
func (origin) Delete(context.Context, hostcall.Namespace, string, int64) (uint64, error) {
	return 0, errNotModelled
}

// Increment is not modelled.
func (origin) Increment(context.Context, hostcall.Namespace, string, int64) (int64, uint64, error) {
	return 0, 0, errNotModelled
}

// List is not modelled.
func (origin) List(context.Context, hostcall.Namespace, string, string, int) ([]hostcall.KeyInfo, string, error) {
	return nil, "", errNotModelled
}
