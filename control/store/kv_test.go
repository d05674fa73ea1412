package store

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

var (
	links    = hostcall.Namespace{Project: "default", Name: "links"}
	whenever = hostcall.PutOptions{IfRevision: hostcall.AnyRevision}
)

func mustPut(t testing.TB, s *Store, ns hostcall.Namespace, key, value string, o hostcall.PutOptions) uint64 {
	t.Helper()
	rev, err := s.KV().Put(t.Context(), ns, key, []byte(value), o)
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	return rev
}

func TestKVReadsWhatWasWritten(t *testing.T) {
	s := open(t)
	kv := s.KV()
	var last uint64
	for _, key := range []string{"a", "a/b", "..", "*", ">", "kv.>", "\x00\xff\xfe", "é", string(bytes.Repeat([]byte{0xff}, 512))} {
		for _, value := range []string{"", "v", "\x00\r\n\r\nNATS/1.0"} {
			rev := mustPut(t, s, links, key, value, whenever)
			if rev <= last {
				t.Fatalf("revision %d after %d", rev, last)
			}
			last = rev
			e, err := kv.Get(t.Context(), links, key)
			if err != nil || string(e.Value) != value || e.Revision != rev || !e.Expires.IsZero() {
				t.Fatalf("%q: got %q at %d until %v: %v; want %q at %d", key, e.Value, e.Revision, e.Expires, err, value, rev)
			}
		}
	}
	if _, err := kv.Get(t.Context(), hostcall.Namespace{Project: "default", Name: "other"}, "a"); !errors.Is(err, hostcall.ErrNotFound) {
		t.Fatalf("another namespace: %v", err)
	}
}

func TestKVRefuses(t *testing.T) {
	s := open(t)
	kv, ctx := s.KV(), t.Context()
	long := string(make([]byte, hostcall.MaxKeyBytes+1))
	put := func(ns hostcall.Namespace, key string, value []byte, o hostcall.PutOptions) error {
		_, err := kv.Put(ctx, ns, key, value, o)
		return err
	}
	for name, c := range map[string]struct {
		got, want error
	}{
		"empty key":       {put(links, "", nil, whenever), hostcall.ErrInvalid},
		"long key":        {put(links, long, nil, whenever), hostcall.ErrInvalid},
		"project escapes": {put(hostcall.Namespace{Project: "a.b", Name: "n"}, "k", nil, whenever), hostcall.ErrInvalid},
		"name escapes":    {put(hostcall.Namespace{Project: "a", Name: ">"}, "k", nil, whenever), hostcall.ErrInvalid},
		"large value":     {put(links, "k", make([]byte, hostcall.MaxValueBytes+1), whenever), hostcall.ErrTooLarge},
		"negative ttl":    {put(links, "k", nil, hostcall.PutOptions{TTL: -1, IfRevision: hostcall.AnyRevision}), hostcall.ErrInvalid},
		"endless ttl":     {put(links, "k", nil, hostcall.PutOptions{TTL: MaxTTL + 1, IfRevision: hostcall.AnyRevision}), hostcall.ErrInvalid},
		"revision -2":     {put(links, "k", nil, hostcall.PutOptions{IfRevision: -2}), hostcall.ErrInvalid},
		"absent revision": {put(links, "k", nil, hostcall.PutOptions{IfRevision: 7}), hostcall.ErrConflict},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	if _, err := kv.Delete(ctx, links, "k", 9); !errors.Is(err, hostcall.ErrNotFound) {
		t.Errorf("conditional delete of nothing: %v", err)
	}
	if _, err := kv.Delete(ctx, links, "k", hostcall.AbsentRevision); !errors.Is(err, hostcall.ErrInvalid) {
		t.Errorf("delete if absent: %v", err)
	}
	if _, _, err := kv.List(ctx, links, "", "", 0); !errors.Is(err, hostcall.ErrInvalid) {
		t.Errorf("list of 0: %v", err)
	}
}

func TestKVLargestValue(t *testing.T) {
	s := open(t)
	value := bytes.Repeat([]byte("selvage!"), hostcall.MaxValueBytes/8)
	rev, err := s.KV().Put(t.Context(), links, "big", value, whenever)
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.KV().Get(t.Context(), links, "big")
	if err != nil || !bytes.Equal(e.Value, value) {
		t.Fatalf("got %d bytes: %v", len(e.Value), err)
	}
	p, err := s.Read(t.Context(), KVLog(links), 0, ReadOptions{Changes: 10, Bytes: 1 << 20, Inline: 1 << 16})
	if err != nil || len(p.Changes) != 1 || p.Changes[0].Seq != rev || p.Changes[0].Value != nil || int(p.Changes[0].Size) != len(value) {
		t.Fatalf("its change: %+v, %v", p, err)
	}
}

func TestKVConditions(t *testing.T) {
	s := open(t)
	kv, ctx := s.KV(), t.Context()
	absent := hostcall.PutOptions{IfRevision: hostcall.AbsentRevision}
	at := func(rev uint64) hostcall.PutOptions { return hostcall.PutOptions{IfRevision: int64(rev)} }

	first := mustPut(t, s, links, "k", "1", absent)
	if _, err := kv.Put(ctx, links, "k", nil, absent); !errors.Is(err, hostcall.ErrConflict) {
		t.Fatalf("absent, but there: %v", err)
	}
	second := mustPut(t, s, links, "k", "2", at(first))
	if _, err := kv.Put(ctx, links, "k", nil, at(first)); !errors.Is(err, hostcall.ErrConflict) {
		t.Fatalf("an old revision: %v", err)
	}
	if _, err := kv.Delete(ctx, links, "k", int64(first)); !errors.Is(err, hostcall.ErrConflict) {
		t.Fatalf("delete at an old revision: %v", err)
	}
	gone, err := kv.Delete(ctx, links, "k", int64(second))
	if err != nil || gone <= second {
		t.Fatalf("delete: %d, %v", gone, err)
	}
	if _, err := kv.Put(ctx, links, "k", nil, at(gone)); !errors.Is(err, hostcall.ErrConflict) {
		t.Fatalf("at the deletion's revision: %v", err)
	}
	mustPut(t, s, links, "k", "3", absent) // over the tombstone
	if e, err := kv.Get(ctx, links, "k"); err != nil || string(e.Value) != "3" {
		t.Fatalf("%q, %v", e.Value, err)
	}
}

func TestKVOneWinnerPerRevision(t *testing.T) {
	s := open(t)
	const writers, rounds = 8, 20
	rev := mustPut(t, s, links, "n", "0", whenever)
	for range rounds {
		var wg sync.WaitGroup
		var won atomic.Int64
		var next atomic.Uint64
		for range writers {
			wg.Go(func() {
				got, err := s.KV().Put(t.Context(), links, "n", []byte("x"), hostcall.PutOptions{IfRevision: int64(rev)})
				switch {
				case err == nil:
					won.Add(1)
					next.Store(got)
				case !errors.Is(err, hostcall.ErrConflict):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d writers won revision %d", won.Load(), rev)
		}
		rev = next.Load()
	}
}

func TestKVDeleteIsIdempotent(t *testing.T) {
	s := open(t)
	mustPut(t, s, links, "k", "v", whenever)
	first, err := s.KV().Delete(t.Context(), links, "k", hostcall.AnyRevision)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.KV().Delete(t.Context(), links, "k", hostcall.AnyRevision)
	if err != nil || again != first {
		t.Fatalf("deleted again: %d, %v; want %d: nothing was written", again, err, first)
	}
	if _, err := s.KV().Get(t.Context(), links, "k"); !errors.Is(err, hostcall.ErrNotFound) {
		t.Fatalf("get: %v", err)
	}
}

func TestKVListPages(t *testing.T) {
	s := open(t)
	kv, ctx := s.KV(), t.Context()
	want := []string{"a/", "a/\x00", "a/b", "a/b/c", "a/é", "a/\xff\xff"}
	for _, k := range append([]string{"a", "a0", "b", "\xff"}, want...) {
		mustPut(t, s, links, k, "v", whenever)
	}
	mustPut(t, s, links, "a/gone", "v", whenever)
	if _, err := kv.Delete(ctx, links, "a/gone", hostcall.AnyRevision); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{1, 2, 4, len(want), 1000} {
		var got []string
		for cursor, pages := "", 0; ; pages++ {
			keys, next, err := kv.List(ctx, links, "a/", cursor, limit)
			if err != nil || pages > 10 {
				t.Fatalf("page %d: %v", pages, err)
			}
			for _, k := range keys {
				got = append(got, k.Key)
			}
			if cursor = next; next == "" {
				break
			}
		}
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Errorf("by %d: %q, want %q", limit, got, want)
		}
	}
	if keys, next, err := kv.List(ctx, hostcall.Namespace{Project: "default", Name: "empty"}, "", "", 10); len(keys) != 0 || next != "" || err != nil {
		t.Errorf("an empty namespace: %v, %q, %v", keys, next, err)
	}
}

func TestKVExpiryIsExactAndIsAChange(t *testing.T) {
	s := open(t)
	kv, ctx := s.KV(), t.Context()
	rev := mustPut(t, s, links, "k", "v", hostcall.PutOptions{TTL: 300 * time.Millisecond, IfRevision: hostcall.AnyRevision})
	e, err := kv.Get(ctx, links, "k")
	if err != nil || e.Expires.IsZero() || time.Until(e.Expires) > 300*time.Millisecond {
		t.Fatalf("expires %v: %v", e.Expires, err)
	}
	until(t, "the value ends", func() bool {
		_, err := kv.Get(ctx, links, "k")
		return errors.Is(err, hostcall.ErrNotFound)
	})
	if time.Now().Before(e.Expires) {
		t.Fatal("it ended early")
	}
	if keys, _, err := kv.List(ctx, links, "", "", 10); err != nil || len(keys) != 0 {
		t.Fatalf("listed after its end: %v, %v", keys, err)
	}
	// An absent key may be taken although the server still holds the ended value.
	if _, err := kv.Put(ctx, links, "taken", []byte("1"), hostcall.PutOptions{TTL: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	until(t, "the other ends", func() bool {
		_, err := kv.Get(ctx, links, "taken")
		return err != nil
	})
	mustPut(t, s, links, "taken", "2", hostcall.PutOptions{IfRevision: hostcall.AbsentRevision})

	var c Change
	until(t, "the end is a change of its own", func() bool {
		p, err := s.Read(ctx, KVLog(links), rev, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, c = range p.Changes {
			if c.Key == "k" {
				return true
			}
		}
		return false
	})
	if c.Op != OpExpire || c.Seq <= rev {
		t.Fatalf("the end as a change: %+v", c)
	}
	if e, err := kv.Get(ctx, links, "taken"); err != nil || string(e.Value) != "2" {
		t.Fatalf("the value put after the end: %q, %v", e.Value, err)
	}
}

func TestKVCorruptValueIsNotServed(t *testing.T) {
	s := open(t)
	subj, err := subject("kv", "default/links", "k")
	if err != nil {
		t.Fatal(err)
	}
	m := message(subj, []byte("what was written"))
	m.Data = []byte("what is there now")
	if _, err := s.js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if _, err := s.KV().Get(t.Context(), links, "k"); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("get: %v", err)
	}
}

// The clock is set an hour forward and back: a value with a life ends while the clock says
// so, is there again, and does not outlive what the server counts by itself.
func TestKVLifeWhenTheClockIsSet(t *testing.T) {
	var ahead atomic.Int64
	s := open(t, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } })
	kv, ctx := s.KV(), t.Context()
	mustPut(t, s, links, "k", "v", hostcall.PutOptions{TTL: 30 * time.Minute, IfRevision: hostcall.AnyRevision})
	mustPut(t, s, links, "stays", "v", hostcall.PutOptions{IfRevision: hostcall.AnyRevision})
	for _, step := range []struct {
		off  time.Duration
		keys int
	}{{0, 2}, {time.Hour, 1}, {0, 2}, {-time.Hour, 2}, {0, 2}} {
		ahead.Store(int64(step.off))
		_, err := kv.Get(ctx, links, "k")
		if there := err == nil; there != (step.keys == 2) || err != nil && !errors.Is(err, hostcall.ErrNotFound) {
			t.Errorf("at %v: %v", step.off, err)
		}
		if keys, _, err := kv.List(ctx, links, "", "", 10); err != nil || len(keys) != step.keys {
			t.Errorf("at %v %d keys are listed: %v", step.off, len(keys), err)
		}
	}
	mustPut(t, s, links, "short", "v", hostcall.PutOptions{TTL: time.Second, IfRevision: hostcall.AnyRevision})
	ahead.Store(int64(-time.Hour))
	until(t, "the server ends it by its own clock", func() bool {
		_, err := kv.Get(ctx, links, "short")
		return errors.Is(err, hostcall.ErrNotFound)
	})
}
