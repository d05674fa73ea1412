package fleet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
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
		log    []written         // the change of sequence i+1
		newest map[string]uint64 // of each key
		subs   map[*store.Subscription]bool
	}
}

type written struct {
	store.Change
	at time.Time
}

func newTruth() *truth {
	t := &truth{}
	t.mu.newest, t.mu.subs = map[string]uint64{}, map[*store.Subscription]bool{}
	return t
}

var log = store.KVLog(words)

func (t *truth) put(key string, value []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seq := uint64(len(t.mu.log) + 1)
	t.mu.log = append(t.mu.log, written{store.Change{Seq: seq, Key: key, Op: store.OpPut, Size: uint32(len(value)), Sum: sha256.Sum256(value), Value: value}, time.Now()})
	t.mu.newest[key] = seq
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

func (t *truth) get(key string) (value []byte, revision uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq := t.mu.newest[key]; seq > 0 {
		return t.mu.log[seq-1].Value, seq
	}
	return nil, 0
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

// Read returns the newest change of each key after a sequence.
func (t *truth) Read(_ context.Context, _ string, after uint64, o store.ReadOptions) (store.Page, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := store.Page{From: after, To: after}
	bytes := 0
	for _, w := range t.mu.log[min(after, uint64(len(t.mu.log))):] {
		if len(p.Changes) >= o.Changes || bytes >= o.Bytes {
			return p, nil
		}
		if p.To = w.Seq; t.mu.newest[w.Key] == w.Seq {
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
