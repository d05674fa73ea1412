package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/tally"
)

// ErrUnheld says that it is not known, or no longer, what a namespace held at a revision. From
// the first question on it is, for the newest changes: ask again with a newer revision.
var ErrUnheld = errors.New("store: what the namespace held at that revision is not known: ask of a newer one")

// Held is what a namespace had at a revision: how many keys, how large, and the digest of what they had.
// What has ended counts until its end is a change.
type Held struct {
	Keys  uint64
	Bytes uint64   // tally.Entry.Bytes of all
	Sum   [32]byte // tally.Tally's
}

// held is the tally of an index, and what it was after each of the newest changes. Nobody asks of most
// namespaces, and it costs more than all else that a change costs here: so it is made when
// it is first asked for, a part at a time, and given up when it is not asked for any more.
type held struct {
	now   tally.Tally
	bytes uint64 // of what is in it
	upTo  string // the keys up to here are in it
	whole bool   // all are
	past  []moment
	asked time.Time
}

// moment is what was held from a change on, until the next moment's.
type moment struct {
	seq uint64
	Held
}

const (
	heldParts = 512              // keys added under one lock: about a millisecond's
	heldPast  = 2048             // changes that are known at least, half of what is kept at most
	heldRest  = 10 * time.Minute // without a question, until it is given up
)

// Held returns what a namespace held as of a revision, which may be one of another namespace's
// change. It waits for a revision that is still to come here.
func (k *KV) Held(ctx context.Context, ns hostcall.Namespace, at uint64) (Held, error) {
	if err := checkNamespace(ns); err != nil {
		return Held{}, err
	}
	for {
		h, moved, err := k.t.held(space(ns), at)
		switch {
		case err != nil || moved == nil:
			return h, err
		case ctx.Err() != nil:
			return Held{}, fmt.Errorf("store: what %s/%s held at %d: %w: %w", ns.Project, ns.Name, at, hostcall.ErrUnavailable, ctx.Err())
		}
		select {
		case <-moved:
		case <-ctx.Done():
		}
	}
}

// already is always closed.
var already = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// held answers, or does a part of what has to be done first: then it is to be called again once moved is closed.
func (t *table) held(space string, at uint64) (_ Held, moved <-chan struct{}, _ error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.index(space)
	if x.held == nil {
		x.held = &held{}
	}
	x.held.asked = time.Now()
	switch {
	case t.mu.applied < at:
		return Held{}, t.waitLocked(), nil
	case !x.held.whole:
		x.count(t.mu.horizon)
		return Held{}, already, nil
	}
	h, err := x.held.at(at)
	return h, nil, err
}

// count adds the next keys. With the last of them it is known what was held from the newest change on,
// but for those before the horizon: of them some may be forgotten.
func (x *index) count(horizon uint64) {
	h, n := x.held, 0
	x.keys.AscendGreaterOrEqual(&item{key: h.upTo}, func(it *item) bool {
		if it.key == h.upTo {
			return true // it was the last
		}
		if n == heldParts {
			return false
		}
		n, h.upTo = n+1, it.key
		h.add(it)
		return true
	})
	if n == heldParts {
		return
	}
	h.whole = true
	if newest, some := x.log.Max(); some {
		horizon = max(horizon, newest.seq)
	}
	h.note(horizon)
}

// rest gives up what nobody asks for.
func (x *index) rest() {
	if x.held != nil && time.Since(x.held.asked) > heldRest {
		x.held = nil
	}
}

// replace follows the index: old, nil for none, made place for it.
func (h *held) replace(old, it *item) {
	if !h.whole && it.key > h.upTo {
		return // still to be added
	}
	if old != nil && old.op == OpPut {
		e := entryOf(old)
		h.now.Remove(e)
		h.bytes -= e.Bytes(int(old.size))
	}
	h.add(it)
	if h.whole {
		h.note(it.seq)
	}
}

func (h *held) add(it *item) {
	if it.op == OpPut {
		e := entryOf(it)
		h.now.Add(e)
		h.bytes += e.Bytes(int(it.size))
	}
}

func (h *held) note(seq uint64) {
	if len(h.past) >= 2*heldPast {
		h.past = slices.Delete(h.past, 0, heldPast)
	}
	h.past = append(h.past, moment{seq, Held{h.now.Entries(), h.bytes, h.now.Sum()}})
}

func (h *held) at(seq uint64) (Held, error) {
	i := sort.Search(len(h.past), func(i int) bool { return h.past[i].seq > seq })
	if i == 0 {
		return Held{}, ErrUnheld
	}
	return h.past[i-1].Held, nil
}

func entryOf(it *item) *tally.Entry {
	e := &tally.Entry{Key: it.key, Revision: it.seq, Expires: it.expires, Metadata: it.metadata}
	if e.Large = it.size > tally.Inline; !e.Large {
		e.Sum = it.sum
	}
	return e
}
