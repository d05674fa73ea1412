package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

var page = ReadOptions{Changes: 1000, Bytes: 1 << 20, Inline: 1 << 10}

func TestReadIsCompleteOverCompaction(t *testing.T) {
	s := open(t)
	other := hostcall.Namespace{Project: "default", Name: "other"}
	mustPut(t, s, links, "a", "old", whenever)
	mustPut(t, s, links, "b", "b", whenever)
	mustPut(t, s, other, "x", "x", whenever)
	a := mustPut(t, s, links, "a", "new", whenever)
	gone, err := s.KV().Delete(t.Context(), links, "b", hostcall.AnyRevision)
	if err != nil {
		t.Fatal(err)
	}
	end := mustPut(t, s, other, "y", "y", whenever)
	until(t, "the log has it", func() bool { h, _ := s.Head(KVLog(links)); return h >= end })

	p, err := s.Read(t.Context(), KVLog(links), 0, page)
	if err != nil {
		t.Fatal(err)
	}
	if p.From != 0 || p.To != end || len(p.Changes) != 2 {
		t.Fatalf("%+v", p)
	}
	if c := p.Changes[0]; c.Seq != a || c.Key != "a" || c.Op != OpPut || string(c.Value) != "new" || c.Size != 3 {
		t.Errorf("first: %+v", c)
	}
	if c := p.Changes[1]; c.Seq != gone || c.Key != "b" || c.Op != OpDelete {
		t.Errorf("second: %+v", c)
	}
	if p, err := s.Read(t.Context(), KVLog(links), end, page); err != nil || len(p.Changes) != 0 || p.To != end {
		t.Errorf("at the head: %+v, %v", p, err)
	}
	if _, err := s.Read(t.Context(), KVLog(links), end+1, page); !errors.Is(err, ErrAhead) {
		t.Errorf("above the head: %v", err)
	}
}

func TestReadPages(t *testing.T) {
	s := open(t)
	var want []uint64
	for i := range 10 {
		want = append(want, mustPut(t, s, links, fmt.Sprint(i), "0123456789", whenever))
	}
	until(t, "the log has it", func() bool { h, _ := s.Head(KVLog(links)); return h >= want[9] })
	for name, o := range map[string]ReadOptions{
		"by count": {Changes: 3, Bytes: 1 << 20, Inline: 100},
		"by bytes": {Changes: 100, Bytes: 150, Inline: 100},
	} {
		var got []uint64
		pages := 0
		for at := uint64(0); at < want[9]; pages++ {
			p, err := s.Read(t.Context(), KVLog(links), at, o)
			if err != nil || p.From != at || p.To <= at {
				t.Fatalf("%s: %+v, %v", name, p, err)
			}
			for _, c := range p.Changes {
				got = append(got, c.Seq)
			}
			at = p.To
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || pages < 3 {
			t.Errorf("%s: %v in %d pages, want %v", name, got, pages, want)
		}
	}
}

func TestForgottenDeletionsEndOldPositions(t *testing.T) {
	s := open(t, func(c *Config) { c.TombstoneLife = time.Second })
	before := mustPut(t, s, links, "k", "v", whenever)
	gone, err := s.KV().Delete(t.Context(), links, "k", hostcall.AnyRevision)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the log has it", func() bool { h, _ := s.Head(KVLog(links)); return h >= gone })
	if _, err := s.Read(t.Context(), KVLog(links), before, page); err != nil {
		t.Fatalf("while it is remembered: %v", err)
	}
	until(t, "the tombstone is forgotten", func() bool {
		s.kv.forget(s.kv.cutoff())
		_, err := s.Read(t.Context(), KVLog(links), before, page)
		return errors.Is(err, ErrGone)
	})
	if _, err := s.Read(t.Context(), KVLog(links), gone, page); err != nil {
		t.Errorf("after it: %v", err)
	}
	if p, err := s.Read(t.Context(), KVLog(links), 0, page); err != nil || len(p.Changes) != 0 {
		t.Errorf("from the beginning: %+v, %v", p, err)
	}
	// The stream has dropped it too; a reopened store must not continue the old position either.
	until(t, "the stream drops the tombstone", func() bool {
		info, err := s.kv.stream.Info(t.Context())
		return err == nil && info.State.Msgs == 0
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := again.Read(t.Context(), KVLog(links), before, page); !errors.Is(err, ErrGone) {
		t.Errorf("after reopening: %v", err)
	}
	if _, err := again.Read(t.Context(), KVLog(links), gone, page); err != nil {
		t.Errorf("after reopening, at the head: %v", err)
	}
}

func TestSubscription(t *testing.T) {
	s := open(t)
	other := hostcall.Namespace{Project: "default", Name: "other"}
	sub, err := s.Subscribe([]string{KVLog(links), CatalogLog})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	mustPut(t, s, other, "k", "v", whenever)
	mustPut(t, s, links, "k", "v", whenever)
	<-sub.C
	if got := sub.Take(); len(got) != 1 || got[0] != KVLog(links) {
		t.Fatalf("changed: %v", got)
	}
	if _, err := s.AppendCatalog(t.Context(), "release/default/hello", []byte("{}"), 0); err != nil {
		t.Fatal(err)
	}
	<-sub.C
	if got := sub.Take(); len(got) != 1 || got[0] != CatalogLog {
		t.Fatalf("changed: %v", got)
	}
	if _, err := s.Subscribe([]string{"kv/../x"}); !errors.Is(err, hostcall.ErrInvalid) {
		t.Fatalf("a log that cannot be: %v", err)
	}
}

func TestCatalogIsOneOrder(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	for i := range uint64(3) {
		seq, err := s.AppendCatalog(ctx, "release/default/hello", fmt.Append(nil, i), i)
		if err != nil || seq != i+1 {
			t.Fatalf("append %d: %d, %v", i, seq, err)
		}
	}
	if _, err := s.AppendCatalog(ctx, "release/default/other", nil, 2); !errors.Is(err, hostcall.ErrConflict) {
		t.Fatalf("append at an old head: %v", err)
	}
	if head, err := s.CatalogHead(ctx); err != nil || head != 3 {
		t.Fatalf("head %d, %v", head, err)
	}
	got, err := s.CatalogHistory(ctx, "release/default/hello")
	if err != nil || fmt.Sprintf("%s", got) != "[0 1 2]" {
		t.Fatalf("history %s, %v", got, err)
	}
	until(t, "the log has it", func() bool { h, _ := s.Head(CatalogLog); return h == 3 })
	p, err := s.Read(ctx, CatalogLog, 0, page)
	if err != nil || len(p.Changes) != 1 || string(p.Changes[0].Value) != "2" || p.Changes[0].Key != "release/default/hello" {
		t.Fatalf("%+v, %v", p, err)
	}
	if got, err := s.CatalogHistory(ctx, "release/default/none"); err != nil || len(got) != 0 {
		t.Fatalf("history of nothing: %s, %v", got, err)
	}
}

// TestManyValuesAreReadInOneGo reads pages that are large enough to be, beside another namespace's
// changes, replaced values and deletions: what comes is what each key has last.
func TestManyValuesAreReadInOneGo(t *testing.T) {
	s := open(t)
	other := hostcall.Namespace{Project: links.Project, Name: "other"}
	want := map[string]string{}
	put := func(ns hostcall.Namespace, key, value string) {
		mustPut(t, s, ns, key, value, whenever)
		if ns == links {
			want[key] = value
		}
	}
	for i := range 2*manyValues + 30 {
		put(links, fmt.Sprint("key ", i), fmt.Sprint("value ", i))
		put(other, fmt.Sprint("key ", i), "theirs")
		if i%5 == 0 {
			put(links, fmt.Sprint("key ", i/2), fmt.Sprint("again ", i))
		}
	}
	end, err := s.KV().Delete(t.Context(), links, "key 7", hostcall.AnyRevision)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the log has it", func() bool { h, _ := s.Head(KVLog(links)); return h >= end })
	delete(want, "key 7")
	got, deleted := map[string]string{}, false
	for after := uint64(0); ; {
		p, err := s.Read(t.Context(), KVLog(links), after, ReadOptions{Changes: manyValues + 10, Bytes: 1 << 20, Inline: 1 << 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range p.Changes {
			if c.Op != OpPut {
				deleted = deleted || c.Key == "key 7"
				continue
			}
			if sha256.Sum256(c.Value) != c.Sum || c.Seq <= after || c.Seq > p.To {
				t.Errorf("%q at %d, after %d: %q", c.Key, c.Seq, after, c.Value)
			}
			got[c.Key] = string(c.Value)
		}
		after = p.To
		if p.More == 0 {
			break
		}
		if len(p.Changes) == 0 {
			t.Error("a page without changes says that there are more")
		}
	}
	if !maps.Equal(got, want) || !deleted {
		t.Errorf("%d keys, want %d; deleted: %v", len(got), len(want), deleted)
	}
}
