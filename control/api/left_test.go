package api

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/runtime/function"
)

// A caller who leaves in the middle does not keep the key: who comes back with it is served.
func TestIdempotencyKeyOfACallerWhoLeft(t *testing.T) {
	begun, ended := make(chan bool, 1), make(chan bool, 1)
	var said journal
	f := start(t, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&said, nil))
		c.Prepare = func(ctx context.Context, m []byte, s function.Snapshot) (Prepared, error) {
			if bytes.Contains(m, []byte("wait")) {
				begun <- true
				<-ctx.Done()
				ended <- true
				return Prepared{}, ctx.Err()
			}
			return prepare(ctx, m, s)
		}
	})
	info := f.upload("hello", routeHello, module+"\x00\x05\x04wait")
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	ask := func(ctx context.Context) (*http.Response, error) {
		body := bytes.NewReader([]byte(`{"bundle":"` + string(info.Digest) + `"}`))
		r, err := http.NewRequestWithContext(ctx, "POST", f.url+"/v1/projects/default/functions/hello/releases", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+f.created.AdminToken)
		r.Header.Set(HeaderIdempotency, "one")
		return f.client.Do(r)
	}
	go func() {
		<-begun
		leave()
	}()
	if _, err := ask(ctx); err == nil {
		t.Fatal("the caller did not leave")
	}
	<-ended
	until(t, "the key is free again", func() bool {
		all, err := f.store.Bucket(idemBucket).All(t.Context())
		return err == nil && len(all) == 0
	})
	until(t, "its leaving is logged", func() bool { return strings.Contains(said.text(), "the client left") })
	if log := said.text(); strings.Contains(log, "level=ERROR") || !strings.Contains(log, "status=499") {
		t.Errorf("a client that left is logged as a failure:\n%s", log)
	}
	until(t, "it is in the audit trail", func() bool {
		var trail AuditList
		f.want(200, f.admin("GET", "/v1/audit?limit=500", nil), &trail)
		return slices.ContainsFunc(trail.Entries, func(e AuditEntry) bool {
			return e.Action == "createRelease" && e.Status == 499 && e.Detail["problem"] == "canceled"
		})
	})
}

// journal is a log that may be read while it is written.
type journal struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.all.Write(b)
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.all.String()
}

// A change that has begun is made, also when its caller leaves.
func TestAChangeOutlivesItsCaller(t *testing.T) {
	f := start(t)
	ctx, leave := context.WithCancel(t.Context())
	err := f.api.change(ctx, func(*catalog.Snapshot) ([]*catalog.Record, error) {
		leave()
		return []*catalog.Record{{Namespace: &catalog.Namespace{Project: "default", Name: "links", Mode: catalog.ModeCached, CreatedAt: time.Now().UTC()}}}, nil
	})
	if _, ok := f.api.Catalog().Namespace("default", "links"); err != nil || !ok {
		t.Errorf("made: %v, %v", ok, err)
	}
	if err := f.api.change(ctx, nil); err == nil {
		t.Error("a change was begun for a caller who had left")
	}
}

// A node that knows of a release before this control node does gets its blobs.
func TestBlobsOfAReleaseUnknownHere(t *testing.T) {
	f := start(t)
	one := *f
	f.listen()
	d := one.deploy("one", routeHello, module).Release // f's own catalog is behind now
	node := f.node("n1", "lon")
	if a := f.send(node, "GET", PeerBlobs+"/"+string(d.Code), nil); a.StatusCode != 200 {
		t.Errorf("code: %d %s", a.StatusCode, a.body)
	}
}

// Two who add to the trust at once both have their part in it, and nothing is taken out.
func TestTrustIsAddedTo(t *testing.T) {
	f := start(t)
	root, err := identity.LoadRootKey(f.created.RootKeyFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	var base identity.Bundle
	f.want(200, f.admin("GET", identity.TrustPath, nil), &base)
	delegate := func(project string) identity.Envelope {
		key, err := identity.NewSigner()
		if err != nil {
			t.Fatal(err)
		}
		d, err := root.Delegate(identity.Delegation{Fleet: f.id.Fleet, Purpose: identity.PurposePublisher, Project: project, Subject: "x", PublicKey: key.PublicKey()}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, p := range []string{"one", "two"} {
		f.want(200, f.admin("PUT", identity.TrustPath, base.With([]identity.Envelope{delegate(p)}, nil)), nil)
	}
	only := identity.Bundle{Root: base.Root, Delegations: []identity.Envelope{delegate("three")}}
	var got identity.Bundle
	f.want(200, f.admin("PUT", identity.TrustPath, only), &got)
	if want := len(base.Delegations) + 3; len(got.Delegations) != want || len(got.Certificates) != len(base.Certificates) {
		t.Errorf("%d delegations, %d certificates; want %d, %d", len(got.Delegations), len(got.Certificates), want, len(base.Certificates))
	}
	f.deploy("hello", routeHello, module) // catalog and publisher keys still count
}

// A release whose function was removed since is not waited for, and a report of
// another bundle under its number is not about it.
func TestStatusOfWhatIsNoMore(t *testing.T) {
	f := start(t)
	node := f.node("n1", "lon")
	d := f.deploy("hello", routeHello, module).Release
	other := d
	other.Bundle = d.Code
	f.report(node, "n1", "lon", other, report.Live)
	if s := f.api.status(d); s.Done || s.Live != 0 {
		t.Errorf("another bundle's report: %+v", s)
	}
	var gone Release
	f.want(200, f.admin("DELETE", "/v1/projects/default/functions/hello", nil), &gone)
	f.want(200, f.send(node, "POST", report.Path, report.Report{Node: "n1", PoP: "lon", At: time.Now(), Epoch: gone.Epoch, Revision: gone.Revision}), nil)
	if s := f.api.status(d); !s.Done || s.PoPs[0].Nodes[0].State != report.Removed {
		t.Errorf("after the removal: %+v", s)
	}
}

// A report from a clock that is ahead does not make its node be there for ever after a restart.
func TestReportsFromTheFutureAge(t *testing.T) {
	f := start(t)
	node := f.node("n1", "lon")
	f.want(200, f.send(node, "POST", report.Path, report.Report{Node: "n1", PoP: "lon", At: time.Now().Add(48 * time.Hour)}), nil)
	var late time.Duration
	f.listen(func(c *Config) { c.Now = func() time.Time { return time.Now().Add(late) } })
	if late = time.Hour; !f.api.nodes()[0].away {
		t.Error("the node is said to be there an hour after its last report")
	}
}

// A node that never ends its body is answered; it does not hold for ever what others wait for.
func TestABodyThatNeverEnds(t *testing.T) {
	f := start(t, func(c *Config) { c.NodeBody = 100 * time.Millisecond })
	body, stall := io.Pipe()
	defer stall.Close()
	go stall.Write([]byte("{"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "POST", report.Path, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := f.node("n1", "lon").Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 400 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// Who waits for a release is answered when the control node ends.
func TestWaitsEndWithTheControlNode(t *testing.T) {
	closing := make(chan struct{})
	f := start(t, func(c *Config) { c.Closing = closing })
	d := f.deploy("hello", routeHello, module).Release
	time.AfterFunc(50*time.Millisecond, func() { close(closing) })
	begin := time.Now()
	if s := f.api.waitStatus(t.Context(), d, "", 20*time.Second); s.Done || time.Since(begin) > 10*time.Second {
		t.Errorf("done %v after %v", s.Done, time.Since(begin))
	}
}

// What nodes would refuse is never appended: it would end the log for all of them.
func TestARevokedCatalogKeySignsNothing(t *testing.T) {
	f := start(t)
	root, err := identity.LoadRootKey(f.created.RootKeyFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.id.Anchor.Trust().Delegations() {
		if d.Purpose == identity.PurposeCatalog {
			err = f.id.Revoke(root, []string{d.Serial}, nil)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	f.refused(503, "catalog-key", f.admin("PUT", "/v1/projects/default/kv/links", nil))
	if head, err := f.store.CatalogHead(t.Context()); err != nil || head != 0 {
		t.Errorf("the log is at %d, %v", head, err)
	}
}

// A control node starts on what it holds, also years later, but signs nothing with a key whose time is over.
func TestTheCatalogOutlivesItsKey(t *testing.T) {
	f := start(t)
	d := f.deploy("hello", routeHello, module).Release
	later := func() time.Time { return time.Now().Add(3 * 365 * 24 * time.Hour) }
	id := *f.id
	var err error
	if id.Anchor, err = identity.NewAnchor(f.created.Root, f.id.Anchor.Trust().Bundle(), "", later); err != nil {
		t.Fatal(err)
	}
	a, err := Open(t.Context(), Config{Store: f.store, Identity: &id, Prepare: prepare, Now: later})
	if err != nil {
		t.Fatal(err)
	}
	if r, ok := a.Catalog().Release(d.ID()); !ok || r.Bundle != d.Bundle {
		t.Errorf("held: %+v, %v", r, ok)
	}
	err = a.change(t.Context(), func(*catalog.Snapshot) ([]*catalog.Record, error) {
		return []*catalog.Record{{Namespace: &catalog.Namespace{Project: "default", Name: "links", Mode: catalog.ModeCached, CreatedAt: later().UTC()}}}, nil
	})
	if p, _ := problemOf(err); err == nil || p.Name() != "catalog-key" {
		t.Errorf("a change: %v", err)
	}
}
