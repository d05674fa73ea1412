package edge

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestLocalKVBeyondTheBasics(t *testing.T) {
	ctx, ns := t.Context(), KV(t.Name())
	for want := int64(5); want <= 10; want += 5 {
		if n, err := ns.Increment(ctx, "n", 5); n != want || err != nil {
			t.Errorf("increment: %d, %v; want %d", n, err, want)
		}
	}
	if _, err := ns.Increment(ctx, "n", math.MaxInt64); !errors.Is(err, ErrInvalid) {
		t.Errorf("over 64 bits: %v", err)
	}
	if _, err := ns.Put(ctx, "m", []byte("v"), WithMetadata([]byte("about")), TTL(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := ns.Increment(ctx, "m", 1); !errors.Is(err, ErrInvalid) {
		t.Errorf("no number: %v", err)
	}
	got, err := ns.GetMany(ctx, []string{"m", "none", "n"}, Strong())
	if err != nil || len(got) != 2 || string(got["m"].Metadata) != "about" || string(got["n"].Value) != "10" {
		t.Errorf("many: %v, %v", got, err)
	}
	if page, err := ns.ListPage(ctx, "m", "", 10); err != nil || len(page.Keys) != 1 || string(page.Keys[0].Metadata) != "about" {
		t.Errorf("list: %v, %v", page, err)
	}
	if _, err := ns.Put(ctx, "m", nil, WithMetadata(make([]byte, 1025))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("long metadata: %v", err)
	}
}

func TestLocalKV(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, ns := t.Context(), KV(t.Name())
		if _, err := ns.Get(ctx, "a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("get: %v", err)
		}
		first, err := ns.Put(ctx, "a", []byte("1"), IfAbsent(), TTL(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ns.Put(ctx, "a", nil, IfAbsent()); !errors.Is(err, ErrConflict) {
			t.Errorf("put: %v", err)
		}
		if e, err := ns.GetEntry(ctx, "a"); err != nil || string(e.Value) != "1" || e.Revision != first || time.Until(e.Expires) != time.Minute {
			t.Errorf("entry %+v, %v", e, err)
		}
		time.Sleep(time.Minute)
		if _, err := ns.Get(ctx, "a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("expired: %v", err)
		}
		second, err := ns.Put(ctx, "a", []byte("2"), IfRevision(0))
		if err != nil || second <= first {
			t.Errorf("put: %d after %d, %v", second, first, err)
		}
		if _, err := ns.Delete(ctx, "a", IfRevision(first)); !errors.Is(err, ErrConflict) {
			t.Errorf("delete: %v", err)
		}
		if _, err := ns.Delete(ctx, "a", IfRevision(second)); err != nil {
			t.Error(err)
		}
	})
}

func TestLocalKVLists(t *testing.T) {
	ctx, ns := t.Context(), KV(t.Name())
	for _, k := range []string{"b3", "a", "b1", "b2", "c"} {
		if _, err := ns.Put(ctx, k, nil); err != nil {
			t.Fatal(err)
		}
	}
	page, err := ns.ListPage(ctx, "b", "", 2)
	if err != nil || len(page.Keys) != 2 || page.Keys[1].Key != "b2" || page.Cursor == "" {
		t.Errorf("page %+v, %v", page, err)
	}
	var all string
	for k, err := range ns.List(ctx, "b") {
		if err != nil {
			t.Fatal(err)
		}
		all += k.Key + " "
	}
	if all != "b1 b2 b3 " {
		t.Errorf("listed %q", all)
	}
}

func TestKVRefuses(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	ns, ctx := KV(t.Name()), t.Context()
	long := string(make([]byte, 513))
	for name, x := range map[string]struct {
		err  error
		want error
	}{
		"empty key":     {second(ns.Get(ctx, "")), ErrInvalid},
		"long key":      {second(ns.Put(ctx, long, nil)), ErrTooLarge},
		"large value":   {second(ns.Put(ctx, "k", make([]byte, 25<<20+1))), ErrTooLarge},
		"negative TTL":  {second(ns.Put(ctx, "k", nil, TTL(-1))), ErrInvalid},
		"no limit":      {second(ns.ListPage(ctx, "", "", 0)), ErrInvalid},
		"ended context": {second(ns.Delete(ended, "k")), context.Canceled},
	} {
		if !errors.Is(x.err, x.want) {
			t.Errorf("%s: %v, want %v", name, x.err, x.want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestTTLRoundsUp(t *testing.T) {
	for d, want := range map[time.Duration]int64{0: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, math.MaxInt64: math.MaxInt64/1000000 + 1} {
		if got, err := (write{ttl: d}).milliseconds(); got != want || err != nil {
			t.Errorf("%v: %d, %v", d, got, err)
		}
	}
}
