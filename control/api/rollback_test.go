package api

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/function"
)

const helloPath = "/v1/projects/default/functions/hello"

func TestRollback(t *testing.T) {
	var prepared atomic.Int32
	f := start(t, func(c *Config) {
		c.Prepare = func(ctx context.Context, m []byte, s function.Snapshot) (Prepared, error) {
			prepared.Add(1)
			return prepare(ctx, m, s)
		}
	})
	f.refused(404, "not-found", f.admin("POST", helloPath+"/rollback", nil))
	first := f.deploy("hello", routeHello+"[limits]\ncpu = \"20ms\"\n", module).Release
	f.refused(409, "nothing-before", f.admin("POST", helloPath+"/rollback", nil))
	second := f.deploy("hello", routeHello, module+"\x00\x02\x01b").Release

	var back Deployed
	f.want(201, f.admin("POST", helloPath+"/rollback", nil, HeaderIdempotency+": one"), &back)
	r := back.Release
	if r.Number != 3 || r.Bundle != first.Bundle || r.Code != first.Code || r.Image != first.Image || r.Limits != first.Limits || r.Publisher != first.Publisher {
		t.Errorf("back at %+v, want %+v", r, first)
	}
	var replayed Deployed
	f.want(201, f.admin("POST", helloPath+"/rollback", nil, HeaderIdempotency+": one"), &replayed)
	if replayed.Release.Number != 3 {
		t.Errorf("asked again with its key: %+v", replayed)
	}
	f.want(200, f.admin("POST", helloPath+"/rollback", RollbackRequest{To: 1}), &back)
	if !back.Unchanged || back.Release.Number != 3 {
		t.Errorf("to what is live: %+v", back)
	}
	// Twice back is not forth again.
	p := f.refused(409, "nothing-before", f.admin("POST", helloPath+"/rollback", nil))
	if !strings.Contains(p.Detail, "3, which is release 1 again") || !strings.Contains(p.Hint, "selvage versions hello") {
		t.Errorf("nothing before: %+v", p)
	}
	f.want(201, f.admin("POST", helloPath+"/rollback", RollbackRequest{To: 2}), &back)
	if back.Release.Number != 4 || back.Release.Bundle != second.Bundle || back.To != 2 || back.From != 3 {
		t.Errorf("forth: %+v", back)
	}
	if n := prepared.Load(); n != 2 {
		t.Errorf("modules were prepared %d times: parts that are kept are not made again", n)
	}
	p = f.refused(404, "not-found", f.admin("POST", helloPath+"/rollback", RollbackRequest{To: 9}))
	if !strings.Contains(p.Hint, "selvage versions hello") {
		t.Errorf("hint %q", p.Hint)
	}
	f.want(200, f.admin("DELETE", helloPath, nil), nil)
	f.refused(422, "removal", f.admin("POST", helloPath+"/rollback", RollbackRequest{To: 5}))
	back = Deployed{}
	f.want(201, f.admin("POST", helloPath+"/rollback", nil), &back)
	if back.Release.Number != 6 || back.Release.Bundle != second.Bundle || back.From != 0 {
		t.Errorf("after it was removed: %+v", back)
	}

	var trail AuditList
	f.want(200, f.admin("GET", "/v1/projects/default/audit?limit=500", nil), &trail)
	last := trail.Entries[len(trail.Entries)-1]
	if last.Action != "rollback" || last.Status != 201 || last.Detail["to"] != "4" || last.Detail["release"] != "6" {
		t.Errorf("audit: %+v", last)
	}
}

// The release before the one that serves, whatever was gone back to meanwhile.
func TestLineOfReleases(t *testing.T) {
	for history, want := range map[string]string{
		"a": "1", "ab": "12", "aba": "1", "abac": "14", "abcb": "12", "abcba": "1", "abcbd": "125", "ab-": "12", "-": "", "ab-b": "12", "a-b": "13",
	} {
		var kept []Release
		for i, b := range history {
			r := Release{Release: catalog.Release{Number: uint64(i + 1), Bundle: function.Digest(b), Removed: b == '-'}}
			kept = append(kept, r)
		}
		got := ""
		for _, r := range lineOf(kept) {
			got += strconv.FormatUint(r.Number, 10)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", history, got, want)
		}
	}
}

// What a route's new owner has is not taken back, and neither is what a revoked publisher signed made live.
func TestRollbackIsCheckedAnew(t *testing.T) {
	f := start(t)
	f.deploy("hello", routeHello, module)
	f.deploy("hello", "", module+"\x00\x02\x01b")
	f.deploy("other", routeHello, module)
	p := f.refused(409, "route-taken", f.admin("POST", helloPath+"/rollback", nil))
	if !strings.Contains(p.Detail, "default/other") {
		t.Errorf("who has it is not said: %+v", p)
	}
	f.want(200, f.admin("DELETE", "/v1/projects/default/functions/other", nil), nil)
	root, err := identity.LoadRootKey(f.created.RootKeyFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.id.Anchor.Trust().Delegations() {
		if d.Purpose == identity.PurposePublisher {
			if err := f.id.Revoke(root, []string{d.Serial}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.refused(403, "untrusted", f.admin("POST", helloPath+"/rollback", nil))
}

// Limits that a manifest leaves open are shown as they are in force.
func TestLimitsAreShownInForce(t *testing.T) {
	f := start(t)
	d := f.deploy("hello", routeHello, module)
	if d.Release.Limits.Concurrency == 0 || d.Release.Limits.Wall == 0 {
		t.Errorf("deployed with %+v", d.Release.Limits)
	}
	var all FunctionList
	f.want(200, f.admin("GET", "/v1/projects/default/functions", nil), &all)
	if l := all.Functions[0].Release.Limits; l != d.Release.Limits {
		t.Errorf("listed with %+v", l)
	}
	if kept := f.api.Catalog().Releases()[0].Limits; kept.Wall != 0 {
		t.Errorf("the default was written into the catalog: %+v", kept)
	}
	f.want(200, f.admin("DELETE", helloPath, nil), nil)
	a := f.admin("GET", helloPath+"/releases", nil)
	if head, _, _ := strings.Cut(string(a.body), `"number":1`); strings.Contains(head, `"limits"`) {
		t.Errorf("a removal has limits: %s", a.body)
	}
}

func TestDeletingWhatIsNotThereSaysSo(t *testing.T) {
	f := start(t)
	const keys = "/v1/projects/default/kv/links/keys"
	f.want(200, f.admin("PUT", "/v1/projects/default/kv/links", nil), nil)
	f.want(200, f.admin("PUT", keys+"/a", []byte("1")), nil)
	var w Written
	if f.want(200, f.admin("DELETE", keys+"/a", nil), &w); w.Absent {
		t.Errorf("it was there: %+v", w)
	}
	if f.want(200, f.admin("DELETE", keys+"/a", nil), &w); !w.Absent {
		t.Errorf("it was gone: %+v", w)
	}
}
