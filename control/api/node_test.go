package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/control/store"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// report posts a report with one function.
func (f *fixture) report(c *peer.Client, name, pop string, r Release, s report.State) {
	f.Helper()
	f.want(200, f.send(c, "POST", report.Path, report.Report{
		Node: name, PoP: pop, At: time.Now(), Epoch: r.Epoch, Revision: r.Revision,
		Functions: []report.Function{{Project: r.Project, Function: r.Function, Release: r.Number, Digest: r.Bundle, State: s, Why: "because", CompileMS: 12.5}},
	}), nil)
}

func TestBlobsOfLiveReleasesOnly(t *testing.T) {
	f := start(t)
	node := f.node("n1", "lon")
	d := f.deploy("hello", routeHello, module).Release
	get := func(d function.Digest) answer { return f.send(node, "GET", PeerBlobs+"/"+string(d), nil) }
	code := get(d.Code)
	if code.StatusCode != 200 || function.DigestOf(code.body) != d.Code {
		t.Errorf("code: %d %q", code.StatusCode, code.body)
	}
	if image := get(d.Image); function.DigestOf(image.body) != d.Image {
		t.Errorf("image: %d %q", image.StatusCode, image.body)
	}
	secret, err := f.store.PutBlobBytes(t.Context(), []byte("no release names this"))
	if err != nil {
		t.Fatal(err)
	}
	f.refused(404, "not-found", get(secret))
	f.refused(404, "not-found", get(d.Bundle)) // nodes run code and image; the bundle is not theirs
	f.refused(400, "invalid-request", get("sha256:.."))
	f.want(200, f.admin("DELETE", "/v1/projects/default/functions/hello", nil), nil)
	f.refused(404, "not-found", get(d.Code))
}

func TestNodesReachBoundNamespacesOnly(t *testing.T) {
	f := start(t)
	node := f.node("n1", "lon")
	f.deploy("hello", "[[kv]]\nname = \"links\"\naccess = \"read\"\n[[kv]]\nname = \"visits\"\naccess = \"write\"\n", module)
	f.want(200, f.admin("PUT", "/v1/projects/default/kv/unbound", nil), nil)
	at := func(ns, key string) string {
		return PeerKV + "/default/" + ns + "/" + base64.RawURLEncoding.EncodeToString([]byte(key))
	}
	f.want(200, f.admin("PUT", keysOf+"/k", []byte("v")), nil)
	got := f.send(node, "GET", at("links", "k"), nil)
	if got.StatusCode != 200 || string(got.body) != "v" || got.Header.Get(HeaderRevision) == "" || got.Header.Get(HeaderAsOf) == "" {
		t.Errorf("%d %q %v", got.StatusCode, got.body, got.Header)
	}
	f.refused(403, "denied", f.send(node, "PUT", at("links", "k"), []byte("w")))
	f.refused(403, "denied", f.send(node, "DELETE", at("links", "k"), nil))
	for _, m := range []string{"GET", "PUT", "DELETE"} {
		f.refused(403, "denied", f.send(node, m, at("unbound", "k"), nil))
		f.refused(403, "denied", f.send(node, m, PeerKV+"/other/links/aw", nil))
		f.refused(400, "invalid-request", f.send(node, m, PeerKV+"/default/visits/not*base64", nil))
	}
	f.refused(403, "denied", f.send(node, "GET", PeerKV+"/default/unbound", nil))

	var put Written
	f.want(200, f.send(node, "PUT", at("visits", "\xff/..")+"?if_revision=0&ttl_ms=3600000", []byte("1")), &put)
	f.refused(409, "conflict", f.send(node, "PUT", at("visits", "\xff/..")+"?if_revision=0", []byte("2")))
	miss := f.send(node, "GET", at("visits", "none"), nil)
	f.refused(404, "not-found", miss)
	if miss.Header.Get(HeaderAsOf) == "" {
		t.Error("a miss does not say what it reflects")
	}
	var page KeyList
	f.want(200, f.send(node, "GET", PeerKV+"/default/visits?limit=10&prefix="+base64.RawURLEncoding.EncodeToString([]byte("\xff")), nil), &page)
	if len(page.Keys) != 1 || string(page.Keys[0].Key) != "\xff/.." || page.Keys[0].Revision != put.Revision || page.Keys[0].Expires.IsZero() {
		t.Errorf("listed %+v", page)
	}
	f.want(200, f.send(node, "DELETE", fmt.Sprintf("%s?if_revision=%d", at("visits", "\xff/.."), put.Revision), nil), nil)
}

func TestReportsMustBeOnesOwn(t *testing.T) {
	f := start(t)
	node := f.node("n1", "lon")
	post := func(r report.Report) answer { return f.send(node, "POST", report.Path, r) }
	f.want(200, post(report.Report{Node: "n1", PoP: "lon"}), nil)
	f.refused(403, "not-you", post(report.Report{Node: "n2", PoP: "lon"}))
	f.refused(403, "not-you", post(report.Report{Node: "n1", PoP: "ams"}))
	f.refused(400, "invalid-request", post(report.Report{}))
	f.refused(400, "invalid-request", post(report.Report{Node: "n1", PoP: "lon", Functions: []report.Function{{Project: "p", Function: "f", State: "great"}}}))
}

func TestStatusAddsUpPerPoP(t *testing.T) {
	f := start(t)
	lon1, lon2, ams := f.node("lon-1", "lon"), f.node("lon-2", "lon"), f.node("ams-1", "ams")
	r := f.deploy("hello", routeHello, module).Release
	path := "/v1/projects/default/functions/hello/releases/1/status"
	var s Status
	f.want(200, f.admin("GET", path, nil), &s)
	if s.Done || len(s.PoPs) != 0 {
		t.Errorf("before any report: %+v", s)
	}
	for node, c := range map[string]*peer.Client{"lon-1": lon1, "lon-2": lon2} {
		f.want(200, f.send(c, "POST", report.Path, report.Report{Node: node, PoP: "lon"}), nil)
	}
	f.report(ams, "ams-1", "ams", r, report.Compiling)
	f.want(200, f.admin("GET", path, nil), &s)
	if s.Done || s.Pending != 3 || len(s.PoPs) != 2 || s.PoPs[0].PoP != "ams" || s.PoPs[0].State != report.Compiling || s.PoPs[1].State != Pending || len(s.PoPs[1].Nodes) != 2 {
		t.Errorf("under way: %+v", s)
	}
	if why := s.PoPs[1].Nodes[0].Why; !strings.Contains(why, "has not taken the catalog of this release yet: it is at 0.0") {
		t.Errorf("why a node is not there yet: %q", why)
	}

	// A long poll with the tag ends with the next change.
	next := make(chan Status, 1)
	go func() {
		var s2 Status
		a := f.admin("GET", path+"?wait=30s&after="+s.Tag, nil)
		if err := json.Unmarshal(a.body, &s2); err != nil {
			t.Error(err)
		}
		next <- s2
	}()
	f.report(ams, "ams-1", "ams", r, report.Live)
	if s2 := <-next; s2.Live != 1 || s2.Tag == s.Tag {
		t.Errorf("the change: %+v", s2)
	}
	f.report(lon1, "lon-1", "lon", r, report.Live)
	f.report(lon2, "lon-2", "lon", r, report.Failed)
	f.want(200, f.admin("GET", path+"?wait=30s", nil), &s)
	if !s.Done || s.Live != 2 || s.Failed != 1 || s.PoPs[1].State != report.Failed || s.PoPs[1].Nodes[1].Why != "because" || s.PoPs[0].Nodes[0].CompileMS != 12.5 {
		t.Errorf("done: %+v", s)
	}
	var fleet Fleet
	f.want(200, f.admin("GET", "/v1/fleet", nil), &fleet)
	if len(fleet.Nodes) != 3 || fleet.Nodes[0].Name != "ams-1" || fleet.Nodes[0].Live != 1 || fleet.Nodes[0].Behind || fleet.Revision != r.Revision {
		t.Errorf("fleet: %+v", fleet)
	}
	f.refused(400, "invalid-request", f.admin("GET", path+"?wait=2h", nil))
	f.refused(404, "not-found", f.admin("GET", "/v1/projects/default/functions/hello/releases/9/status", nil))
	f.refused(400, "invalid-request", f.admin("GET", "/v1/projects/default/functions/hello/releases/x/status", nil))

	// What was reported is known after a restart of control, too.
	f.listen()
	f.want(200, f.admin("GET", path, nil), &s)
	if s.Live != 2 || s.Failed != 1 {
		t.Errorf("after a restart: %+v", s)
	}
}

func TestSilentNodesAreNotWaitedFor(t *testing.T) {
	now := time.Now()
	f := start(t, func(c *Config) { c.Now = func() time.Time { return now } })
	one, two := f.node("one", "lon"), f.node("two", "ams")
	r := f.deploy("hello", routeHello, module).Release
	f.report(two, "two", "ams", r, report.Compiling)
	now = now.Add(2 * time.Minute)
	f.report(one, "one", "lon", r, report.Live)
	var s Status
	f.want(200, f.admin("GET", "/v1/projects/default/functions/hello/releases/1/status", nil), &s)
	if !s.Done || s.Live != 1 || s.Pending != 0 || !s.PoPs[0].Nodes[0].Away {
		t.Errorf("%+v", s)
	}
}

func TestMembersThatNeverReportedAreWaitedFor(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Members = func() []Member { return []Member{{Name: "one", PoP: "lon", Alive: true}, {Name: "dead", PoP: "lon"}} }
	})
	r := f.deploy("hello", routeHello, module).Release
	s := f.api.status(r)
	if s.Done || s.Pending != 1 || len(s.PoPs) != 1 || !s.PoPs[0].Nodes[0].Away {
		t.Errorf("%+v", s)
	}
	if dead, one := s.PoPs[0].Nodes[0].Why, s.PoPs[0].Nodes[1].Why; !strings.Contains(dead, "away") || one != "the node has joined and not reported yet" {
		t.Errorf("why they are not there: %q, %q", dead, one)
	}
}

func TestJoinTokenIsSpentOnce(t *testing.T) {
	f := start(t)
	var made JoinTokenCreated
	f.want(201, f.admin("POST", "/v1/join-tokens", JoinTokenRequest{TTL: "10m"}), &made)
	token, err := identity.ParseJoinToken(made.Token)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var joined atomic.Int64
	for i := range 4 {
		wg.Go(func() {
			_, err := identity.Join(t.Context(), filepath.Join(t.TempDir(), "id"), token, identity.JoinOptions{Name: fmt.Sprintf("n%d", i), PoP: "lon"})
			var refused *identity.Refused
			switch {
			case err == nil:
				joined.Add(1)
			case !errors.As(err, &refused) || refused.Status != 401 || refused.Hint == "":
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if joined.Load() != 1 {
		t.Errorf("%d nodes joined with one token", joined.Load())
	}
}

func TestJoinIsRefused(t *testing.T) {
	f := start(t)
	try := func(name, pop string, change func(*identity.JoinToken)) error {
		var made JoinTokenCreated
		f.want(201, f.admin("POST", "/v1/join-tokens", JoinTokenRequest{PoP: "lon"}), &made)
		token, err := identity.ParseJoinToken(made.Token)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(&token)
		}
		_, err = identity.Join(t.Context(), filepath.Join(t.TempDir(), "id"), token, identity.JoinOptions{Name: name, PoP: pop})
		return err
	}
	status := func(err error) int {
		var refused *identity.Refused
		if errors.As(err, &refused) {
			return refused.Status
		}
		return 0
	}
	if err := try("n1", "ams", nil); status(err) != 401 {
		t.Errorf("another PoP: %v", err)
	}
	if err := try("n1", "lon", func(j *identity.JoinToken) { j.Secret[0] ^= 1 }); status(err) != 401 {
		t.Errorf("a wrong secret: %v", err)
	}
	if err := try("n1", "lon", nil); err != nil {
		t.Errorf("a good one: %v", err)
	}
	// The name of a node that is there is taken; of one that is away it is not.
	node := f.node("n2", "lon")
	f.want(200, f.send(node, "POST", report.Path, report.Report{Node: "n2", PoP: "lon"}), nil)
	if err := try("n2", "lon", nil); status(err) != 409 {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := try("n1", "lon", nil); err != nil {
		t.Errorf("the name of a node that never spoke: %v", err)
	}
	var made JoinTokenCreated
	f.want(201, f.admin("POST", "/v1/join-tokens", nil), &made)
	f.want(200, f.admin("DELETE", "/v1/join-tokens/"+made.ID, nil), nil)
	f.refused(400, "invalid-request", f.admin("POST", "/v1/join-tokens", JoinTokenRequest{TTL: "1000h"}))
	f.refused(400, "invalid-request", f.send(f.client, "POST", f.url+"/v1/join", []byte("{}")))
}

func TestRenewAndTrust(t *testing.T) {
	f := start(t)
	n := f.join("n1", "lon")
	c, err := peer.NewClient(peer.ClientConfig{Member: n.Member, Expect: identity.Expect{Kind: identity.KindControl}, Addresses: []string{f.peerAddr}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := n.Renew(t.Context(), c); err != nil {
		t.Errorf("renew: %v", err)
	}
	f.refused(400, "invalid-request", f.send(c, "POST", identity.RenewPath, identity.RenewRequest{CSR: []byte("x")}))
	var b identity.Bundle
	f.want(200, f.send(c, "GET", PeerTrust, nil), &b)
	if _, err := identity.NewTrust(f.created.Root, b, nil); err != nil {
		t.Errorf("trust: %v", err)
	}
	f.want(200, f.admin("PUT", "/v1/trust", b), nil)
	b.Root[len(b.Root)-1] ^= 1
	f.refused(403, "untrusted", f.admin("PUT", "/v1/trust", b))
}

// keep is a sink that remembers.
type keep struct {
	mu sync.Mutex
	at map[string]map[string]string
}

func (k *keep) Reset(_ context.Context, log string, _ uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.at, log)
	return nil
}

func (k *keep) Apply(_ context.Context, b *changes.Batch) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.at[b.Log] == nil {
		k.at[b.Log] = map[string]string{}
	}
	for _, c := range b.Changes {
		k.at[b.Log][c.Key] = string(c.Value)
	}
	return nil
}

func (k *keep) get(log, key string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.at[log][key]
}

// A node follows the catalog and its namespaces over mTLS, verifies what comes,
// and is not given what it may not have.
func TestNodesFollowChanges(t *testing.T) {
	f := start(t)
	n := f.join("n1", "lon")
	c, err := peer.NewClient(peer.ClientConfig{Member: n.Member, Expect: identity.Expect{Kind: identity.KindControl}, Addresses: []string{f.peerAddr}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f.want(200, f.admin("PUT", "/v1/projects/default/kv/unbound", nil), nil)
	f.deploy("hello", routeHello+"[[kv]]\nname = \"links\"\naccess = \"read\"\n", module)

	var refused atomic.Int64
	sink := &keep{at: map[string]map[string]string{}}
	follower := changes.NewFollower(changes.FollowerConfig{
		Open: func(ctx context.Context, r changes.Request) (io.ReadCloser, error) {
			b, err := json.Marshal(r)
			if err != nil {
				return nil, err
			}
			req, err := http.NewRequestWithContext(ctx, "POST", changes.Path, bytes.NewReader(b))
			if err != nil {
				return nil, err
			}
			resp, err := c.Do(req)
			if err != nil {
				return nil, err
			}
			return resp.Body, nil
		},
		Verify: changes.VerifyWith(n.Member.Anchor()), Sink: sink,
		OnEvent: func(e changes.Event) {
			if e.Kind == changes.Refused && e.Log == "kv/default/unbound" {
				refused.Add(1)
			}
		},
	})
	links := store.KVLog(hostcall.Namespace{Project: "default", Name: "links"})
	follower.Follow(changes.Want{Log: store.CatalogLog}, changes.Want{Log: links, Tail: true}, changes.Want{Log: "kv/default/unbound"})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { follower.Run(ctx) })
	defer wg.Wait()
	defer cancel()

	until(t, "the release comes", func() bool { return sink.get(store.CatalogLog, "release/default/hello") != "" })
	rec, err := catalog.Open(n.Member.Anchor(), []byte(sink.get(store.CatalogLog, "release/default/hello")))
	if err != nil || rec.Release.Number != 1 || rec.Revision != 3 {
		t.Errorf("the record: %+v, %v", rec, err)
	}
	until(t, "the namespace is followed", func() bool { _, ok := follower.Position(links); return ok })
	f.want(200, f.admin("PUT", keysOf+"/k", []byte("v")), nil)
	until(t, "the write comes", func() bool { return sink.get(links, "k") == "v" })
	f.deploy("second", "", module)
	until(t, "the second release comes", func() bool { return sink.get(store.CatalogLog, "release/default/second") != "" })
	if refused.Load() == 0 || sink.get("kv/default/unbound", "k") != "" {
		t.Error("a namespace that nobody binds was not refused")
	}
}

// A node of a later version, which says more than this control node knows, is heard: control may be rolled back.
func TestReportOfALaterVersion(t *testing.T) {
	f := start(t)
	node := f.node("lon-1", "lon")
	f.want(200, f.send(node, "POST", report.Path, map[string]any{"node": "lon-1", "pop": "lon", "later": []string{"more"}}), nil)
	f.want(400, f.send(node, "POST", report.Path, map[string]any{"node": 1}), nil)
}
