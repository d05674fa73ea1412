package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/fleet"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/jail"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// node is an agent with everything it is wired to but the engine: a version
// here is its code's text, which says what becomes of it.
type node struct {
	t       *testing.T
	control *control
	id      *identity.Node
	dir     string
	link    Doer
	kv      *kv.Store
	agent   *Agent[*version]
	table   atomic.Pointer[serve.Routes]
	swaps   atomic.Int32
	held    chan struct{} // closed to let code "hang" go on
	stop    func()
	mu      sync.Mutex
	events  []Event
	live    map[*version]bool
	heads   []fleet.Head
}

// version is a function made ready.
type version struct {
	node *node
	v    function.Version
	code string
}

func (v *version) Version() *function.Version { return &v.v }

func (v *version) Release() {
	v.node.mu.Lock()
	defer v.node.mu.Unlock()
	if !v.node.live[v] {
		v.node.t.Errorf("%s %q was released twice", v.v.ID, v.code)
	}
	delete(v.node.live, v)
}

func newNode(t *testing.T, c *control) *node {
	t.Helper()
	return nodeOf(t, c, c.join("n1", "lon"))
}

func nodeOf(t *testing.T, c *control, id *identity.Node) *node {
	t.Helper()
	n := &node{t: t, control: c, id: id, dir: t.TempDir(), held: make(chan struct{}), live: map[*version]bool{}}
	n.link = c.peerClient(n.id)
	t.Cleanup(func() { n.end() })
	return n
}

// run starts the agent; the state is what is in the node's folder.
func (n *node) run(change ...func(*Config[*version])) *node {
	n.t.Helper()
	n.table.Store(nil)
	var err error
	if n.kv, err = kv.New(kv.Config{Origin: NewOrigin(n.link), Timeout: 2 * time.Second,
		Owner: func(ns hostcall.Namespace, key string) kv.Owner { return n.agent.Owner(ns, key) }}); err != nil {
		n.t.Fatal(err)
	}
	cfg := Config[*version]{
		Self: report.Report{Node: n.id.Member.Peer().Name, PoP: n.id.Member.Peer().PoP, Public: "192.0.2.1:443", Build: "test", Started: time.Now()},
		Dir:  n.dir, Control: n.link, Trust: n.id.Member.Anchor(), Prepare: n.prepare, KV: n.kv,
		Target:   func(v *version, _ catalog.Release) *serve.Target { return &serve.Target{Version: v.Version()} },
		Swap:     func(t *serve.Routes) { n.table.Store(t); n.swaps.Add(1) },
		OnEvent:  func(e Event) { n.mu.Lock(); defer n.mu.Unlock(); n.events = append(n.events, e) },
		Announce: func(h fleet.Head) error { n.mu.Lock(); defer n.mu.Unlock(); n.heads = append(n.heads, h); return nil },
	}
	for _, f := range change {
		f(&cfg)
	}
	if n.agent, err = Open(cfg); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = n.agent.Run(ctx) })
	n.stop = func() { cancel(); running.Wait(); n.kv.Close() }
	return n
}

func (n *node) end() {
	if n.stop != nil {
		n.stop()
	}
	n.stop = nil
	n.mu.Lock()
	defer n.mu.Unlock()
	n.live = map[*version]bool{}
}

func (n *node) prepare(ctx context.Context, v function.Version, parts pool.Parts) (*version, pool.Prepared, error) {
	code, err := parts.Code(ctx)
	if err != nil {
		return nil, pool.Prepared{}, err
	}
	image, err := parts.Image(ctx)
	if err != nil {
		return nil, pool.Prepared{}, err
	}
	text := strings.TrimPrefix(string(code), "\x00asm\x01\x00\x00\x00")
	if function.DigestOf(code) != v.Code || function.DigestOf(image) != v.Image {
		n.t.Errorf("%s was given other bytes than its digests name", v.ID)
	}
	switch {
	case strings.HasPrefix(text, "refused"):
		return nil, pool.Prepared{}, &jail.Refused{Reason: "the module imports what nobody has"}
	case strings.HasPrefix(text, "hang"):
		select {
		case <-n.held:
		case <-ctx.Done():
			return nil, pool.Prepared{}, ctx.Err()
		}
	}
	out := &version{node: n, v: v, code: text}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.live[out] = true
	return out, pool.Prepared{CompileTime: 7 * time.Millisecond}, nil
}

// served is the code that answers for host, "" if none does.
func (n *node) served(host string) string {
	t := n.table.Load()
	if t == nil {
		return ""
	}
	target, ok := t.Lookup(host, "/")
	if !ok {
		return ""
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for v := range n.live {
		if v.Version() == target.Version {
			return v.code
		}
	}
	n.t.Errorf("%s leads to a version that was released", host)
	return "released"
}

func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.t.Fatalf("never: %s; events: %v", what, n.events)
		}
	}
}

func (n *node) serves(host, code string) {
	n.t.Helper()
	n.until(fmt.Sprintf("%s serves %q", host, code), func() bool { return n.served(host) == code })
}

func TestDeploymentsGoLive(t *testing.T) {
	c := newControl(t)
	n := newNode(t, c).run()
	r := c.deploy("hello", routeOf("hello.example"), "one")
	n.serves("hello.example", "one")
	n.until("control knows", func() bool { return c.status(r).State == report.Live })
	s := c.status(r)
	if s.Digest != r.Bundle || s.CompileMS != 7 || s.ReadyMS <= 0 || s.Node != "n1" {
		t.Errorf("status: %+v", s)
	}
	r = c.deploy("hello", routeOf("hello.example", "also.example"), "two")
	n.serves("hello.example", "two")
	n.serves("also.example", "two")
	n.until("control knows the second", func() bool { return c.status(r).State == report.Live })
	n.until("the first is given back", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return len(n.live) == 1 })

	c.call("DELETE", "/v1/projects/default/functions/hello", nil, 200, nil)
	n.serves("hello.example", "")
	n.until("all is given back", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return len(n.live) == 0 })
	st := n.agent.Stats()
	if !st.Connected || st.Behind || st.Functions != 0 || st.Revision == 0 {
		t.Errorf("stats: %+v", st)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if last := n.heads[len(n.heads)-1]; last != (fleet.Head{Log: "catalog", Epoch: st.Epoch, Sequence: st.Revision}) {
		t.Errorf("last head told: %+v", last)
	}
}

// A function that waits for its turn to be made ready says so, until it has it.
func TestWaitingForATurnIsTold(t *testing.T) {
	c := newControl(t)
	n := newNode(t, c).run(func(c *Config[*version]) { c.Workers = 1 })
	hung := c.deploy("hung", routeOf("hung.example"), "hang")
	n.until("the first is made ready", func() bool { return c.status(hung).State == report.Compiling })
	next := c.deploy("next", routeOf("next.example"), "next")
	n.until("the second says what it waits for", func() bool {
		s := c.status(next)
		return s.State == report.Compiling && s.Why == "waits until one of the 1 functions that are made ready now is"
	})
	if s := c.status(hung); s.Why != "" {
		t.Errorf("the one that is made ready: %+v", s)
	}
	close(n.held)
	n.until("control knows that both are live", func() bool {
		s := c.status(next)
		return c.status(hung).State == report.Live && s.State == report.Live && s.Why == ""
	})
}

func TestOneFailureHoldsUpNobody(t *testing.T) {
	c := newControl(t)
	n := newNode(t, c).run(func(c *Config[*version]) { c.Workers = 2 })
	c.deploy("good", routeOf("good.example"), "good 1")
	n.serves("good.example", "good 1")

	hung := c.deploy("hung", routeOf("hung.example"), "hang")
	bad := c.deploy("bad", routeOf("bad.example"), "refused")
	c.deploy("good", routeOf("good.example"), "good 2")
	n.serves("good.example", "good 2")
	n.until("control knows what failed and why", func() bool {
		s := c.status(bad)
		return s.State == report.Failed && strings.Contains(s.Why, "imports what nobody has")
	})
	if s := c.status(hung); s.State != report.Compiling {
		t.Errorf("the one that hangs: %+v", s)
	}
	// A version that cannot run leaves the one before in place.
	failed := c.deploy("good", routeOf("good.example"), "refused too")
	n.until("it failed", func() bool { return c.status(failed).State == report.Failed })
	n.serves("good.example", "good 2")

	c.deploy("bad", routeOf("bad.example"), "repaired")
	n.serves("bad.example", "repaired")
	close(n.held)
	n.serves("hung.example", "hang")
	if st := n.agent.Stats(); st.Live != 2 || st.Failed != 1 || st.Functions != 3 {
		t.Errorf("stats: %+v", st)
	}
}

func TestAReleaseOvertakesAnother(t *testing.T) {
	c := newControl(t)
	n := newNode(t, c).run()
	for i := range 5 {
		c.deploy("f", routeOf("f.example"), fmt.Sprint("hang ", i))
	}
	c.deploy("f", routeOf("f.example"), "last")
	n.serves("f.example", "last")
	n.until("nothing else is held", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return len(n.live) == 1 })
}

// A release may be overtaken, or the agent end, before the work on it has begun.
func TestOvertakenBeforeItBegan(t *testing.T) {
	a := &Agent[*version]{config: Config[*version]{}.withDefaults(), catalog: catalog.NewState((*identity.Anchor)(nil))}
	l := newLoop(t.Context(), a)
	for range 1000 {
		s := &slot[*version]{want: catalog.Release{Routes: []string{"no route"}}}
		l.start(s)
		s.stop()
	}
	l.work.Wait()
}

func TestServesWithoutControl(t *testing.T) {
	c := newControl(t)
	n := newNode(t, c).run()
	for i := range 5 {
		c.deploy(fmt.Sprint("f", i), routeOf(fmt.Sprintf("f%d.example", i)), fmt.Sprint("code ", i))
	}
	for i := range 5 {
		n.serves(fmt.Sprintf("f%d.example", i), fmt.Sprint("code ", i))
	}
	n.end()
	c.stop()

	// One blob rotted on disk: that function has to wait for control, no other does.
	if err := os.WriteFile(filepath.Join(n.dir, "blobs", codeOf("code 3").Hex()), []byte("rot"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.run()
	for i := range 5 {
		if i != 3 {
			n.serves(fmt.Sprintf("f%d.example", i), fmt.Sprint("code ", i))
		}
	}
	if n.served("f3.example") != "" || n.swaps.Load() < 1 {
		t.Errorf("what is not there is served: %q", n.served("f3.example"))
	}
	if st := n.agent.Stats(); st.Connected || st.Functions != 5 {
		t.Errorf("stats: %+v", st)
	}

	c.start()
	n.serves("f3.example", "code 3")
	r := c.deploy("f0", routeOf("f0.example"), "after")
	n.serves("f0.example", "after")
	n.until("control knows", func() bool { return c.status(r).State == report.Live })
}

func TestAHintEndsTheWait(t *testing.T) {
	c := newControl(t)
	n := newNode(t, c).run()
	c.deploy("f", routeOf("f.example"), "one")
	n.serves("f.example", "one")
	c.stop()
	n.until("the stream is down", func() bool { return !n.agent.Stats().Connected })
	time.Sleep(2 * time.Second) // long enough for the follower to wait longer and longer
	c.start()
	r := c.deploy("f", routeOf("f.example"), "two")
	start := time.Now()
	n.agent.Hear(fleet.Head{Log: "catalog", Epoch: r.Epoch, Sequence: r.Revision})
	n.serves("f.example", "two")
	t.Logf("served %v after the hint", time.Since(start))
	n.agent.Hear(fleet.Head{Log: "catalog", Epoch: r.Epoch, Sequence: r.Revision + 100})
	if !n.agent.Stats().Behind {
		t.Error("a newer head does not show")
	}
	n.agent.Hear(fleet.Head{Log: "kv/p/n", Epoch: r.Epoch + 9})
}

// hinted is a trust that lets something happen while the first catalog record is applied.
type hinted struct {
	catalog.Verifier
	once sync.Once
	then func()
}

func (h *hinted) Verify(p identity.Purpose, project, payloadType string, e identity.Envelope) ([]byte, identity.KeyID, error) {
	if p == identity.PurposeCatalog {
		h.once.Do(h.then)
	}
	return h.Verifier.Verify(p, project, payloadType, e)
}

// A hint that comes while the stream is being opened takes the log nowhere else than where it is.
func TestAHintWhileTheCatalogIsApplied(t *testing.T) {
	c := newControl(t)
	c.deploy("other", routeOf("other.example"), "stays")
	r := c.deploy("f", routeOf("f.example"), "one")
	n := newNode(t, c)
	n.run(func(cfg *Config[*version]) {
		cfg.Trust = &hinted{Verifier: cfg.Trust, then: func() {
			n.agent.Hear(fleet.Head{Log: "catalog", Epoch: r.Epoch, Sequence: r.Revision})
		}}
	})
	n.serves("f.example", "one")
	c.deploy("f", routeOf("f.example"), "two")
	n.serves("f.example", "two")
}

// liar is a control that answers for some blobs with other bytes.
type liar struct {
	Doer
	lies atomic.Bool
}

func (l *liar) Do(r *http.Request) (*http.Response, error) {
	resp, err := l.Doer.Do(r)
	if err == nil && l.lies.Load() && strings.Contains(r.URL.Path, "/blobs/") {
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(append(b, '!')))
	}
	return resp, err
}

func TestFalseBytesAreNotTaken(t *testing.T) {
	c := newControl(t)
	n := newNode(t, c)
	l := &liar{Doer: n.link}
	l.lies.Store(true)
	n.link = l
	n.run()
	r := c.deploy("f", routeOf("f.example"), "code")
	n.until("control knows why it waits", func() bool {
		s := c.status(r)
		return s.State == report.Fetching && strings.Contains(s.Why, errBlob.Error())
	})
	files, err := os.ReadDir(filepath.Join(n.dir, "blobs"))
	if err != nil || len(files) != 0 {
		t.Errorf("kept: %v, %v", files, err)
	}
	l.lies.Store(false)
	n.serves("f.example", "code")
}

func TestRoutesChangeHands(t *testing.T) {
	c := newControl(t)
	n := newNode(t, c).run()
	c.deploy("old", routeOf("shop.example", "old.example"), "old")
	n.serves("shop.example", "old")
	c.deploy("old", routeOf("old.example"), "hang old 2") // gives it up, but is not ready
	c.deploy("new", routeOf("shop.example"), "new")
	n.serves("shop.example", "new")
	n.serves("old.example", "old")
	close(n.held)
	n.serves("old.example", "hang old 2")
	n.serves("shop.example", "new")
}

func TestAnotherEpoch(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	n := newNode(t, c).run()
	c.deploy("f", routeOf("f.example"), "one")
	n.serves("f.example", "one")
	before := n.agent.Stats().Epoch
	swaps := n.swaps.Load()
	if _, err := c.store.NewEpoch(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.stop()
	c.start() // as after a restore
	n.until("the new epoch", func() bool { return n.agent.Stats().Epoch > before })
	n.serves("f.example", "one")
	if n.swaps.Load() != swaps {
		t.Errorf("%d tables for a catalog that says the same", n.swaps.Load()-swaps)
	}
	c.deploy("f", routeOf("f.example"), "two")
	n.serves("f.example", "two")
	n.end()
	c.stop()
	n.run()
	n.serves("f.example", "two")
}

// TestControlThatLostItsStore gives a node a control node with the same keys
// and nothing in its store.
func TestControlThatLostItsStore(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	n := newNode(t, c).run()
	c.deploy("f", routeOf("f.example"), "one")
	n.serves("f.example", "one")
	c.stop()
	c.dir = t.TempDir()
	c.start()
	n.until("the node says so", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return slices.ContainsFunc(n.events, func(e Event) bool { return e.Kind == CatalogEmpty })
	})
	n.serves("f.example", "one")
	c.deploy("g", routeOf("g.example"), "two")
	n.serves("g.example", "two")
}

func TestAStartDoesNotWaitForLong(t *testing.T) {
	c := newControl(t)
	n := newNode(t, c).run()
	c.deploy("good", routeOf("good.example"), "good")
	n.serves("good.example", "good")
	c.deploy("hung", routeOf("hung.example"), "hang")
	n.until("both are known", func() bool { return n.agent.Stats().Functions == 2 })
	n.end()
	n.swaps.Store(0)
	n.run(func(c *Config[*version]) { c.Settle = 300 * time.Millisecond })
	n.serves("good.example", "good")
	close(n.held)
	n.serves("hung.example", "hang")
	if n.swaps.Load() != 2 {
		t.Errorf("%d tables, want 2", n.swaps.Load())
	}
}

func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, ".new-1"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := openBlobs(dir, nil, newPop("n1", nil, nil), nil)
		if err != nil {
			t.Fatal(err)
		}
		var digests []function.Digest
		for _, s := range []string{"used", "unused"} {
			d := function.DigestOf([]byte(s))
			if err := b.write(d, int64(len(s)), strings.NewReader(s)); err != nil {
				t.Fatal(err)
			}
			digests = append(digests, d)
		}
		used := map[function.Digest]bool{digests[0]: true}
		for _, want := range []int{2, 2, 1} {
			kept, err := b.sweep(used, time.Minute)
			if err != nil || kept != want {
				t.Errorf("kept %d, want %d: %v", kept, want, err)
			}
			time.Sleep(31 * time.Second)
		}
		files, _ := os.ReadDir(dir)
		if len(files) != 1 || files[0].Name() != digests[0].Hex() {
			t.Errorf("left: %v", files)
		}
		if data, err := b.get(context.Background(), part{digests[0], 100}); err != nil || string(data) != "used" {
			t.Errorf("%q, %v", data, err)
		}
		if _, err := b.get(context.Background(), part{"sha256:../../etc/passwd", 100}); err == nil {
			t.Error("a path was taken for a digest")
		}
	})
}

func TestConfigReportsEveryFault(t *testing.T) {
	_, err := Open(Config[*version]{})
	for _, want := range []string{"dir", "control", "trust", "prepare", "target", "swap", "kv", "node and pop"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: does not name %q", err, want)
		}
	}
}

func TestKVIsKeptFresh(t *testing.T) {
	c := newControl(t)
	n := newNode(t, c).run()
	ctx := context.Background()
	links := hostcall.Namespace{Project: "default", Name: "links"}
	if _, err := n.kv.Get(ctx, links, "k"); !errors.Is(err, hostcall.ErrDenied) {
		t.Errorf("a namespace no release binds: %v", err)
	}
	c.deploy("f", routeOf("f.example")+"[[kv]]\nname = \"links\"\naccess = \"write\"\n", "code")
	n.serves("f.example", "code")
	n.until("the namespace is followed", func() bool { return len(n.kv.Kept()) == 1 })

	put := func(key, value string) {
		c.call("PUT", "/v1/projects/default/kv/links/keys/"+key, []byte(value), 200, nil)
	}
	read := func(key string) string {
		e, err := n.kv.Get(ctx, links, key)
		if err != nil && !errors.Is(err, hostcall.ErrNotFound) {
			t.Fatal(err)
		}
		return string(e.Value)
	}
	if read("k") != "" {
		t.Error("there is a value")
	}
	put("k", "one")
	n.until("a write elsewhere is seen", func() bool { return read("k") == "one" })
	large := strings.Repeat("x", 100<<10) // too large to travel in its change
	put("k", large)
	n.until("a large write is seen", func() bool { return read("k") == large })
	misses := n.kv.Stats().Misses
	for range 10 {
		read("k")
	}
	if m := n.kv.Stats().Misses - misses; m > 1 {
		t.Errorf("ten reads asked control %d times", m)
	}
	rev, err := n.kv.Put(ctx, links, "mine", []byte("own"), hostcall.PutOptions{IfRevision: hostcall.AbsentRevision})
	if err != nil || read("mine") != "own" {
		t.Errorf("own write: %v, %q", err, read("mine"))
	}
	c.call("DELETE", "/v1/projects/default/kv/links/keys/k", nil, 200, nil)
	n.until("a deletion is seen", func() bool { return read("k") == "" })

	c.stop()
	if got := read("mine"); got != "own" {
		t.Errorf("with control away: %q", got)
	}
	if _, err := n.kv.Get(ctx, links, "never read"); !errors.Is(err, hostcall.ErrUnavailable) {
		t.Errorf("what is not here, with control away: %v", err)
	}
	if _, err := n.kv.Put(ctx, links, "mine", nil, hostcall.PutOptions{IfRevision: int64(rev)}); !errors.Is(err, hostcall.ErrUnavailable) {
		t.Errorf("a write with control away: %v", err)
	}
	c.start()
	put("mine", "theirs")
	n.until("the stream goes on", func() bool { e, err := n.kv.Get(ctx, links, "mine"); return err == nil && string(e.Value) == "theirs" })

	c.deploy("f", routeOf("f.example"), "without")
	n.until("an unbound namespace is let go", func() bool { return len(n.kv.Kept()) == 0 && n.agent.Stats().Followed == 0 })
}

func TestOriginSpeaksAsTheStoreDoes(t *testing.T) {
	c := newControl(t)
	c.deploy("f", routeOf("f.example")+"[[kv]]\nname = \"links\"\naccess = \"write\"\n[[kv]]\nname = \"ro\"\naccess = \"read\"\n", "code")
	o := NewOrigin(c.peerClient(c.join("n1", "lon")))
	ctx := context.Background()
	links := hostcall.Namespace{Project: "default", Name: "links"}
	wild := "a/b\x00\xff.*> ?#%"
	rev, err := o.Put(ctx, links, wild, []byte("v"), hostcall.PutOptions{IfRevision: hostcall.AbsentRevision, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	e, err := o.Get(ctx, links, wild)
	if left := e.Expires.Sub(e.At); err != nil || string(e.Value) != "v" || e.Revision != rev || left < 50*time.Minute || left > time.Hour {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := o.Put(ctx, links, wild, nil, hostcall.PutOptions{IfRevision: hostcall.AbsentRevision}); !errors.Is(err, hostcall.ErrConflict) {
		t.Errorf("absent: %v", err)
	}
	if _, err := o.Put(ctx, links, "empty", nil, hostcall.PutOptions{IfRevision: hostcall.AnyRevision}); err != nil {
		t.Fatal(err)
	}
	if e, err := o.Get(ctx, links, "empty"); err != nil || len(e.Value) != 0 || !e.Expires.IsZero() {
		t.Errorf("empty: %+v, %v", e, err)
	}
	big := bytes.Repeat([]byte("x"), 3<<20)
	if _, err := o.Put(ctx, links, "big", big, hostcall.PutOptions{IfRevision: hostcall.AnyRevision}); err != nil {
		t.Fatal(err)
	}
	if e, err := o.Get(ctx, links, "big"); err != nil || !bytes.Equal(e.Value, big) {
		t.Errorf("big: %d bytes, %v", len(e.Value), err)
	}
	about := []byte("about\x00\xff")
	if _, err := o.Put(ctx, links, "big", big, hostcall.PutOptions{Metadata: about, IfRevision: hostcall.AnyRevision}); err != nil {
		t.Fatal(err)
	}
	if e, err := o.Get(ctx, links, "big"); err != nil || !bytes.Equal(e.Metadata, about) || e.AsOf < e.Revision {
		t.Errorf("metadata: %q as of %d, %v", e.Metadata, e.AsOf, err)
	}
	got, err := o.Read(ctx, links, []string{"big", "none", wild}, hostcall.ReadOptions{Strong: true, AtLeast: rev})
	if err != nil || !bytes.Equal(got[0].Value, big) || !bytes.Equal(got[0].Metadata, about) || !errors.Is(got[1].Err, hostcall.ErrNotFound) ||
		got[1].AsOf < rev || string(got[2].Value) != "v" || got[2].Revision != rev || got[1].At.Before(e.At) || !got[2].Expires.Equal(e.Expires) {
		t.Errorf("read: %v", err)
	}
	if _, err := o.Read(ctx, links, []string{"big"}, hostcall.ReadOptions{AtLeast: rev + 1000}); !errors.Is(err, hostcall.ErrInvalid) {
		t.Errorf("a future: %v", err)
	}
	for want := int64(-3); want >= -6; want -= 3 {
		if n, r, err := o.Increment(ctx, links, "zz", -3); n != want || r <= rev || err != nil {
			t.Errorf("increment: %d at %d, %v", n, r, err)
		}
	}
	if _, _, err := o.Increment(ctx, links, wild, 1); !errors.Is(err, hostcall.ErrInvalid) {
		t.Errorf("increment of no number: %v", err)
	}
	if e, err := o.Get(ctx, links, "none"); !errors.Is(err, hostcall.ErrNotFound) || e.AsOf < rev {
		t.Errorf("not found as of %d, %v", e.AsOf, err)
	}
	if _, err := o.Delete(ctx, links, "zz", hostcall.AnyRevision); err != nil {
		t.Fatal(err)
	}
	keys, next, err := o.List(ctx, links, "", "", 2)
	if err != nil || len(keys) != 2 || keys[0].Key != wild || keys[0].Expires.IsZero() || keys[1].Key != "big" || !bytes.Equal(keys[1].Metadata, about) || next == "" {
		t.Errorf("first page: %+v, %q, %v", keys, next, err)
	}
	keys, next, err = o.List(ctx, links, "", next, 2)
	if err != nil || len(keys) != 1 || keys[0].Key != "empty" || !keys[0].Expires.IsZero() || next != "" {
		t.Errorf("second page: %+v, %q, %v", keys, next, err)
	}
	if _, err := o.Delete(ctx, links, wild, int64(rev)); err != nil {
		t.Error(err)
	}
	if _, err := o.Delete(ctx, links, wild, int64(rev)); !errors.Is(err, hostcall.ErrNotFound) && !errors.Is(err, hostcall.ErrConflict) {
		t.Errorf("deleted twice: %v", err)
	}
	if _, err := o.Get(ctx, links, wild); !errors.Is(err, hostcall.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
	for name, ns := range map[string]hostcall.Namespace{
		"unbound":   {Project: "default", Name: "other"},
		"read only": {Project: "default", Name: "ro"},
		"another's": {Project: "other", Name: "links"},
	} {
		if _, err := o.Put(ctx, ns, "k", nil, hostcall.PutOptions{IfRevision: -1}); !errors.Is(err, hostcall.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := o.Increment(ctx, ns, "k", 1); !errors.Is(err, hostcall.ErrDenied) {
			t.Errorf("increment, %s: %v", name, err)
		}
	}
	for _, ns := range []hostcall.Namespace{{Project: "../..", Name: "x"}, {Project: "default", Name: ""}, {}} {
		if _, err := o.Get(ctx, ns, "k"); err == nil {
			t.Errorf("%v was answered", ns)
		}
	}
}

// A value with a life lives as long on a node whose clock is an hour off control's, either
// way, and also when control's is set while the node runs.
func TestKVLifeWithClocksApart(t *testing.T) {
	c := newControl(t)
	n := newNode(t, c).run()
	c.deploy("f", routeOf("f.example")+"[[kv]]\nname = \"links\"\naccess = \"write\"\n", "code")
	n.serves("f.example", "code")
	n.until("the namespace is followed", func() bool { return len(n.kv.Kept()) == 1 })
	ctx, links := context.Background(), hostcall.Namespace{Project: "default", Name: "links"}
	ask := func() { // control, and so for its time
		if _, err := n.kv.Read(ctx, links, []string{"none"}, hostcall.ReadOptions{Strong: true}); err != nil {
			t.Fatal(err)
		}
	}
	for _, off := range []time.Duration{0, time.Hour, -time.Hour} {
		c.ahead.Store(int64(off))
		n.until(fmt.Sprintf("at %v the node knows when its own write ends", off), func() bool {
			ask()
			before := c.now()
			if _, err := n.kv.Put(ctx, links, "own", []byte("v"), hostcall.PutOptions{IfRevision: hostcall.AnyRevision, TTL: 10 * time.Minute}); err != nil {
				t.Fatal(err)
			}
			e, err := n.kv.Get(ctx, links, "own")
			life := e.Expires.Sub(before)
			return err == nil && life > 9*time.Minute && life <= 10*time.Minute+c.now().Sub(before)
		})
		c.call("PUT", "/v1/projects/default/kv/links/keys/theirs?ttl=10m", []byte("v"), 200, nil)
		n.until(fmt.Sprintf("at %v a value is served from memory", off), func() bool {
			ask()
			misses := n.kv.Stats().Misses
			e, err := n.kv.Get(ctx, links, "theirs")
			return err == nil && string(e.Value) == "v" && n.kv.Stats().Misses == misses
		})
		c.ahead.Store(int64(off + 11*time.Minute))
		n.until(fmt.Sprintf("at %v it ends with control's clock", off), func() bool {
			ask()
			_, err := n.kv.Get(ctx, links, "theirs")
			return errors.Is(err, hostcall.ErrNotFound)
		})
	}
}
