package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/tally"
)

// What is held is that of the keys that have a value, whatever changes while it is counted, and of
// each of the newest changes.
func TestHeldIsWhatTheKeysHave(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, model := newIndex(), map[string]*item{}
		seq, begun := uint64(0), uint64(0)
		want := map[uint64]Held{}
		change := func(key string) {
			seq++
			it := &item{key: key, seq: seq, op: OpPut, sum: sha256.Sum256([]byte(fmt.Sprint(seq))), size: uint32(rapid.SampledFrom([]int{1, tally.Inline, tally.Inline + 1}).Draw(t, "size"))}
			if rapid.IntRange(0, 3).Draw(t, "op") == 0 {
				it = &item{key: key, seq: seq, op: OpDelete}
			}
			x.apply(it)
			model[key] = it
			var all tally.Tally
			bytes := uint64(0)
			for key, it := range model {
				if it.op == OpPut {
					all.Add(entryOf(it))
					bytes += uint64(len(key))
					if it.size <= tally.Inline {
						bytes += uint64(it.size)
					}
				}
			}
			want[seq] = Held{all.Entries(), bytes, all.Sum()}
		}
		key := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("%04d", rapid.IntRange(0, 1200).Draw(t, "key")) })
		for i := range rapid.IntRange(0, 1200).Draw(t, "keys") {
			x.apply(&item{key: fmt.Sprintf("%04d", i), seq: seq + 1, op: OpPut, size: 1})
			seq++
			model[fmt.Sprintf("%04d", i)] = &item{key: fmt.Sprintf("%04d", i), seq: seq, op: OpPut, size: 1}
		}
		change(key.Draw(t, "first"))
		x.held = &held{}
		for begun = seq; !x.held.whole; begun = seq {
			x.count(0)
			if x.held.whole {
				break
			}
			change(key.Draw(t, "meanwhile"))
		}
		for range rapid.IntRange(0, 5).Draw(t, "more") {
			change(key.Draw(t, "after"))
		}
		for at := begun; at <= seq; at++ {
			if got, err := x.held.at(at); err != nil || got != want[at] {
				t.Fatalf("at %d of %d: %+v, %v; want %+v", at, seq, got, err, want[at])
			}
		}
		if _, err := x.held.at(begun - 1); !errors.Is(err, ErrUnheld) {
			t.Fatalf("before it was asked for: %v", err)
		}
	})
}

// A store says the same before and after a restart, waits for what is to come, and keeps no more than it says.
func TestHeldOfAStore(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	s := open(t, func(c *Config) { c.Dir = dir })
	ns, other := hostcall.Namespace{Project: "p", Name: "words"}, hostcall.Namespace{Project: "p", Name: "other"}
	var want tally.Tally
	put := func(ns hostcall.Namespace, key, value string, o hostcall.PutOptions) uint64 {
		o.IfRevision = hostcall.AnyRevision
		rev, err := s.KV().Put(ctx, ns, key, []byte(value), o)
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	put(ns, "a", "one", hostcall.PutOptions{})
	rev := put(ns, "a", "two", hostcall.PutOptions{Metadata: []byte("m")})
	want.Add(&tally.Entry{Key: "a", Revision: rev, Metadata: []byte("m"), Sum: sha256.Sum256([]byte("two"))})
	large := string(make([]byte, tally.Inline+1))
	want.Add(&tally.Entry{Key: "large", Revision: put(ns, "large", large, hostcall.PutOptions{}), Large: true})
	put(ns, "gone", "x", hostcall.PutOptions{})
	last, err := s.KV().Delete(ctx, ns, "gone", hostcall.AnyRevision)
	if err != nil {
		t.Fatal(err)
	}
	last = max(last, put(other, "k", "v", hostcall.PutOptions{}))
	check := func(at uint64, want *tally.Tally) {
		t.Helper()
		h, err := s.KV().Held(ctx, ns, at)
		if err != nil || h.Keys != want.Entries() || h.Sum != want.Sum() {
			t.Errorf("at %d: %d keys, %v; want %d", at, h.Keys, err, want.Entries())
		}
	}
	check(last, &want)
	if _, err := s.KV().Held(ctx, ns, rev); !errors.Is(err, ErrUnheld) {
		t.Errorf("before the first question: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := s.KV().Held(short, ns, last+1); !errors.Is(err, hostcall.ErrUnavailable) {
		t.Errorf("what is to come: %v", err)
	}
	s.Close()
	s = open(t, func(c *Config) { c.Dir = dir })
	check(last, &want)
	before := want
	next := put(ns, "b", "three", hostcall.PutOptions{})
	want.Add(&tally.Entry{Key: "b", Revision: next, Sum: sha256.Sum256([]byte("three"))})
	check(next, &want)
	check(last, &before)
	x := s.kv.mu.spaces[space(ns)]
	for i := range 3 * heldPast {
		x.held.note(next + uint64(i) + 1)
	}
	if n := len(x.held.past); n > 2*heldPast || n < heldPast {
		t.Errorf("%d changes are kept", n)
	}
	x.held.asked = time.Now().Add(-heldRest - time.Second)
	s.kv.forget(0)
	if x.held != nil {
		t.Error("what nobody asks for is still counted")
	}
	var nothing tally.Tally
	if h, err := s.KV().Held(ctx, hostcall.Namespace{Project: "p", Name: "empty"}, last); err != nil || h.Keys != 0 || h.Sum != nothing.Sum() {
		t.Errorf("of an empty one: %+v, %v", h, err)
	}
}
