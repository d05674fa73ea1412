package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"
)

func TestAuditTrail(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 5 {
				if err := s.Audit(ctx, "default", fmt.Appendf(nil, "%d-%d", w, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := s.Audit(ctx, "", []byte("join")); err != nil {
		t.Fatal(err)
	}
	if n, err := s.VerifyAudit(ctx); n != 21 || err != nil {
		t.Fatalf("verified %d: %v", n, err)
	}
	all, err := s.AuditTrail(ctx, "", 0, 100)
	if err != nil || len(all) != 21 || string(all[20].Value) != "join" {
		t.Fatalf("%d entries: %v", len(all), err)
	}
	some, err := s.AuditTrail(ctx, "default", all[3].Seq, 2)
	if err != nil || len(some) != 2 || some[0].Seq != all[4].Seq {
		t.Fatalf("a page of the trail: %+v, %v", some, err)
	}
	if _, err := s.AuditTrail(ctx, "", 0, 0); err == nil {
		t.Error("a page of nothing")
	}
}

func TestAuditTrailCannotBeChanged(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	for i := range 3 {
		if err := s.Audit(ctx, "default", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.audit.stream.DeleteMsg(ctx, 2); err == nil {
		t.Error("an entry was deleted")
	}
	if err := s.audit.stream.Purge(ctx); err == nil {
		t.Error("the trail was purged")
	}
	// Someone who can write to the stream appends an entry that control did not.
	if _, err := s.js.PublishMsg(ctx, message("audit.default", []byte("forged"))); err != nil {
		t.Fatal(err)
	}
	if n, err := s.VerifyAudit(ctx); !errors.Is(err, ErrChain) || n != 4 {
		t.Errorf("verified %d: %v", n, err)
	}
}
