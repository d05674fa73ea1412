package api

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/selvage-edge/selvage/control/identity"
)

func TestIdempotencyKey(t *testing.T) {
	f := withNamespace(t)
	key := HeaderIdempotency + ": 7f0c"
	first := f.admin("PUT", keysOf+"/k", []byte("v"), key)
	f.want(200, first, nil)
	again := f.admin("PUT", keysOf+"/k", []byte("v"), key)
	if again.StatusCode != 200 || again.Header.Get(HeaderReplayed) != "true" || !bytes.Equal(again.body, first.body) || again.Header.Get(HeaderRevision) != first.Header.Get(HeaderRevision) {
		t.Errorf("again: %d %s %v, first %s", again.StatusCode, again.body, again.Header, first.body)
	}
	f.refused(422, "idempotency-key-reused", f.admin("PUT", keysOf+"/k", []byte("w"), key))
	// Another caller's key is another key.
	other := f.as(f.token(identity.ScopeDeploy, "default"), "PUT", keysOf+"/k", []byte("v"), key)
	if other.StatusCode != 200 || other.Header.Get(HeaderReplayed) != "" || bytes.Equal(other.body, first.body) {
		t.Errorf("another caller: %d %s", other.StatusCode, other.body)
	}
	// A refusal that stays one is repeated too.
	refused := HeaderIdempotency + ": refused"
	f.refused(409, "conflict", f.admin("PUT", keysOf+"/k?if_revision=0", []byte("v"), refused))
	a := f.admin("PUT", keysOf+"/k?if_revision=0", []byte("v"), refused)
	f.refused(409, "conflict", a)
	if a.Header.Get(HeaderReplayed) != "true" || a.Header.Get("Content-Type") != problemMedia {
		t.Errorf("the refusal again: %v", a.Header)
	}
	f.refused(400, "invalid-request", f.admin("PUT", keysOf+"/k", nil, HeaderIdempotency+": "+strings.Repeat("x", 129)))
	f.refused(400, "invalid-request", f.admin("PUT", keysOf+"/k", nil, HeaderIdempotency+": a b"))
}

// Of many requests with one key, one is done.
func TestIdempotencyKeyAtOnce(t *testing.T) {
	f := withNamespace(t)
	var done atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			a := f.admin("PUT", keysOf+"/k", []byte("v"), HeaderIdempotency+": one")
			switch {
			case a.StatusCode == 200 && a.Header.Get(HeaderReplayed) == "":
				done.Add(1)
			case a.StatusCode != 200 && a.problem() != "in-progress":
				t.Errorf("%d %s", a.StatusCode, a.body)
			}
		})
	}
	wg.Wait()
	if done.Load() != 1 {
		t.Errorf("done %d times", done.Load())
	}
}

// A secret is shown once; it is not kept under a key.
func TestSecretsAreNotRemembered(t *testing.T) {
	f := start(t)
	req := TokenRequest{Scopes: []identity.Scope{identity.ScopeRead}}
	var one, two TokenCreated
	f.want(201, f.admin("POST", "/v1/tokens", req, HeaderIdempotency+": k"), &one)
	f.want(201, f.admin("POST", "/v1/tokens", req, HeaderIdempotency+": k"), &two)
	if one.Token == two.Token {
		t.Error("the secret came again")
	}
	all, err := f.store.Bucket(idemBucket).All(t.Context())
	if err != nil || len(all) != 0 {
		t.Errorf("remembered: %v, %v", all, err)
	}
}

func TestAuditTrail(t *testing.T) {
	f := withNamespace(t)
	before := f.deploy("hello", routeHello, module)
	f.want(200, f.admin("PUT", keysOf+"/k", []byte("the value itself")), nil)
	f.refused(409, "conflict", f.admin("PUT", keysOf+"/k?if_revision=0", []byte("v")))
	reader := f.token(identity.ScopeRead, "default")
	f.refused(403, "scope", f.as(reader, "PUT", keysOf+"/k", []byte("v")))

	var trail AuditList
	a := f.admin("GET", "/v1/projects/default/audit", nil)
	f.want(200, a, &trail)
	var got []string
	for _, e := range trail.Entries {
		got = append(got, fmt.Sprintf("%s %d %s", e.Action, e.Status, e.Detail["problem"]))
		if !strings.HasPrefix(e.Actor, "token:") || e.Remote != "127.0.0.1" || e.Request == "" || e.Project != "default" || e.Time.IsZero() {
			t.Errorf("entry: %+v", e)
		}
	}
	want := "putNamespace 200 |putBundle 201 |createRelease 201 |putKey 200 |putKey 409 conflict"
	if strings.Join(got, "|") != want {
		t.Errorf("trail: %v", got)
	}
	if d := trail.Entries[2].Detail; d["digest"] != string(before.Release.Bundle) || d["release"] != "1" {
		t.Errorf("the release's entry: %+v", d)
	}
	if bytes.Contains(a.body, []byte("the value itself")) {
		t.Error("a value is in the trail")
	}
	var fleet AuditList
	a = f.admin("GET", "/v1/audit?limit=2", nil)
	f.want(200, a, &fleet)
	if len(fleet.Entries) != 2 || fleet.Next != fleet.Entries[1].Seq {
		t.Errorf("a page: %s", a.body)
	}
	if bytes.Contains(a.body, []byte(reader)) {
		t.Error("a token is in the trail")
	}
	if _, err := f.store.VerifyAudit(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFullStoreIs507(t *testing.T) {
	f := startBounded(t, 4<<20)
	f.want(200, f.admin("PUT", "/v1/projects/default/kv/links", nil), nil)
	f.want(200, f.admin("PUT", keysOf+"/k", []byte("v")), nil)
	p := f.refused(507, "store-full", f.admin("PUT", keysOf+"/big", make([]byte, 8<<20)))
	if p.Hint == "" {
		t.Errorf("no hint: %+v", p)
	}
	if a := f.admin("GET", keysOf+"/k", nil); a.StatusCode != 200 {
		t.Errorf("a read on a full store: %d", a.StatusCode)
	}
}
