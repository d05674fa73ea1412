package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// street is the nodes of one PoP, each with its peer server, who know of one another.
type street struct {
	*control
	mu      sync.Mutex
	houses  []*house
	unheard map[string]bool // membership has not noticed them, or no longer does
}

type house struct {
	*node
	name  string
	addr  string
	asked atomic.Int64              // blobs, of control
	keys  atomic.Int64              // KV keys, of control
	wrap  func(Doer) Doer           // of the way to a neighbour; street.mu guards it
	with  []func(*Config[*version]) // of its agent
	open  func()
	close func()
}

// askCount counts the blobs and keys asked of control.
type askCount struct {
	Doer
	n, keys *atomic.Int64
}

func (a askCount) Do(r *http.Request) (*http.Response, error) {
	if strings.HasPrefix(r.URL.Path, blobsPath) {
		a.n.Add(1)
	}
	if r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, kvPath) {
		a.keys.Add(1)
	}
	return a.Doer.Do(r)
}

func newStreet(t *testing.T, nodes int) *street {
	s := &street{control: newControl(t), unheard: map[string]bool{}}
	for i := range nodes {
		s.build(fmt.Sprint("n", i+1))
	}
	for _, h := range s.houses {
		h.open()
	}
	return s
}

func (s *street) build(name string) *house {
	n := nodeOf(s.t, s.control, s.join(name, "lon"))
	h := &house{node: n, name: name, wrap: func(d Doer) Doer { return d }}
	h.link = askCount{n.link, &h.asked, &h.keys}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	h.addr = l.Addr().String()
	h.close = func() { l.Close() }
	h.node.control = s.control
	s.mu.Lock()
	s.houses = append(s.houses, h)
	s.mu.Unlock()
	clients := map[string]*peer.Client{}
	listed := func() (list []Neighbour) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, o := range s.houses {
			if o == h || s.unheard[o.name] {
				continue
			}
			if clients[o.name] == nil {
				c, err := peer.NewClient(peer.ClientConfig{Member: h.id.Member, Expect: identity.Expect{Kind: identity.KindNode, Name: o.name}, Addresses: []string{o.addr}})
				if err != nil {
					panic(err)
				}
				s.t.Cleanup(c.Close)
				clients[o.name] = c
			}
			list = append(list, Neighbour{o.name, h.wrap(clients[o.name])})
		}
		return list
	}
	h.held = make(chan struct{})
	h.open = func() {
		h.run(append(h.with, func(c *Config[*version]) { c.Neighbours = listed })...)
		srv, err := peer.NewServer(peer.ServerConfig{Member: h.id.Member, Handler: h.agent.PeerHandler()})
		if err != nil {
			s.t.Fatal(err)
		}
		go srv.Serve(l)
		h.close = sync.OnceFunc(func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			srv.Close(ctx)
			h.end()
		})
		s.t.Cleanup(h.close)
	}
	return h
}

// meant returns the house that looks after key, and the others.
func (s *street) meant(key string) (*house, []*house) {
	first := slices.MaxFunc(s.houses, func(a, b *house) int {
		if score(a.name, key) > score(b.name, key) {
			return 1
		}
		return -1
	})
	return first, slices.DeleteFunc(slices.Clone(s.houses), func(h *house) bool { return h == first })
}

// grouped waits until the catalog is followed as it should be: one from control, the rest from it.
func (s *street) grouped(leader *house, others ...*house) {
	s.t.Helper()
	for _, h := range others {
		h.until(h.name+" follows "+leader.name, func() bool { st := h.agent.Stats(); return st.FromNeighbours > 0 && st.Connected })
	}
	leader.until("it serves them", func() bool { return leader.agent.Stats().Relay.Streams >= int64(len(others)) })
}

// A deployment reaches every node of a PoP while control is asked once for each
// blob, and has one follower of the catalog there.
func TestAPoPAsksControlOnceForEachBlob(t *testing.T) {
	s := newStreet(t, 3)
	leader, others := s.meant("log catalog")
	s.grouped(leader, others...)
	const functions = 6
	for i := range functions {
		s.deploy(fmt.Sprint("f", i), routeOf(fmt.Sprintf("f%d.example", i)), fmt.Sprint("code ", i))
	}
	for _, h := range s.houses {
		for i := range functions {
			h.serves(fmt.Sprintf("f%d.example", i), fmt.Sprint("code ", i))
		}
	}
	var asked, control, neighbours, detours int64
	for _, h := range s.houses {
		got := h.agent.Stats().Fetched
		asked, control, neighbours, detours = asked+h.asked.Load(), control+got.FromControl, neighbours+got.FromNeighbours, detours+got.Detours
	}
	// On a machine that stands still for seconds an ask may give up and make a detour.
	if want := int64(2 * functions); asked > want+detours || control != asked || control+neighbours != 3*want {
		t.Errorf("%d blobs on 3 nodes: control was asked %d times, sent %d; neighbours sent %d; %d detours", want, asked, control, neighbours, detours)
	}
}

// Who misses a key asks the node of the PoP that looks after it, which asks control once for all.
func TestAPoPAsksControlOnceForAKey(t *testing.T) {
	s := newStreet(t, 3)
	s.deploy("f", routeOf("f.example")+"[[kv]]\nname = \"links\"\naccess = \"write\"\n", "code")
	for _, h := range s.houses {
		h.serves("f.example", "code")
		h.until("the namespace is followed", func() bool { return len(h.kv.Kept()) == 1 })
	}
	links := hostcall.Namespace{Project: "default", Name: "links"}
	s.call("PUT", "/v1/projects/default/kv/links/keys/k", []byte("v"), 200, nil)
	for _, h := range s.houses {
		h.until("the write is told", func() bool {
			_, err := h.kv.Read(context.Background(), links, []string{"k"}, hostcall.ReadOptions{})
			return err == nil
		})
	}
	for _, key := range []string{"none", "there", "\x00\xff/.. "} {
		if key == "there" {
			s.call("PUT", "/v1/projects/default/kv/links/keys/there", []byte("w"), 200, nil)
		}
		before := s.houses[0].keys.Load() + s.houses[1].keys.Load() + s.houses[2].keys.Load()
		var all sync.WaitGroup
		for i := range 300 {
			all.Go(func() {
				e, err := s.houses[i%3].kv.Get(context.Background(), links, key)
				if key == "there" && string(e.Value) != "w" || key != "there" && !errors.Is(err, hostcall.ErrNotFound) {
					t.Errorf("%q: %q, %v", key, e.Value, err)
				}
			})
		}
		all.Wait()
		asked := s.houses[0].keys.Load() + s.houses[1].keys.Load() + s.houses[2].keys.Load() - before
		// A node whose stream is behind another's asks control itself, and again until it has caught up.
		if asked < 1 || asked > 30 {
			t.Errorf("%q: control was asked %d times", key, asked)
		}
	}
	var owner uint64
	for _, h := range s.houses {
		for _, u := range h.kv.Usage() {
			owner += u.Owner
		}
	}
	if owner == 0 {
		t.Error("no node asked another")
	}
}

// Who dies while others follow it is replaced, at once and without word from membership.
func TestAFollowerThatDiesIsReplaced(t *testing.T) {
	s := newStreet(t, 3)
	leader, others := s.meant("log catalog")
	s.grouped(leader, others...)
	begin := time.Now()
	leader.close()
	s.deploy("f", routeOf("f.example"), "code")
	for _, h := range others {
		h.serves("f.example", "code")
	}
	t.Logf("a release after %s died was live on the others in %v", leader.name, time.Since(begin))
	s.mu.Lock()
	s.unheard[leader.name] = true
	s.houses = others
	s.mu.Unlock()
	next, rest := s.meant("log catalog")
	s.grouped(next, rest...)
	s.deploy("g", routeOf("g.example"), "more")
	for _, h := range others {
		h.serves("g.example", "more")
	}
}

// spoiler is a way to a neighbour on which blobs and batches are spoilt.
type spoiler struct{ Doer }

func (s spoiler) Do(r *http.Request) (*http.Response, error) {
	resp, err := s.Doer.Do(r)
	if err == nil && strings.Contains(r.URL.Path, "/blobs/") && resp.StatusCode == 200 {
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(append(b[:len(b)-1], '!')))
	}
	return resp, err
}

// Bytes from a neighbour that are not the digest's are not taken: control is asked,
// and that neighbour is asked for nothing more.
func TestANeighbourThatLies(t *testing.T) {
	s := newStreet(t, 2)
	leader, others := s.meant("log catalog")
	s.grouped(leader, others...)
	h := others[0]
	s.mu.Lock()
	h.wrap = func(d Doer) Doer { return spoiler{d} }
	s.mu.Unlock()
	code := ""
	for i := 0; ; i++ { // one whose code the other looks after
		code = fmt.Sprint("code ", i)
		if n, other := h.agent.pop.keeper(string(codeOf(code))); other && n.Name == leader.name {
			break
		}
	}
	s.deploy("f", routeOf("f.example"), code)
	h.serves("f.example", code)
	if got := h.agent.Stats().Fetched; got.FromControl != 2 || got.Detours == 0 {
		t.Errorf("fetched: %+v", got)
	}
	h.until("it is told of", func() bool {
		h.node.mu.Lock()
		defer h.node.mu.Unlock()
		return slices.ContainsFunc(h.events, func(e Event) bool {
			return e.Kind == Distrusted && e.Neighbour == leader.name && errors.Is(e.Err, errBlob)
		})
	})
	h.until("it follows control itself", func() bool { st := h.agent.Stats(); return st.FromControl == 1 && st.FromNeighbours == 0 })
	s.deploy("g", routeOf("g.example"), "more")
	h.serves("g.example", "more")
}

// What a node serves its neighbours is for nodes of its PoP, and only what its
// catalog names; bytes that rotted on its disk are not passed on.
func TestWhatNeighboursMayHave(t *testing.T) {
	s := newStreet(t, 1)
	h := s.houses[0]
	s.deploy("f", routeOf("f.example"), "code")
	h.serves("f.example", "code")
	get := func(id *identity.Node, d function.Digest) (int, string) {
		t.Helper()
		c, err := peer.NewClient(peer.ClientConfig{Member: id.Member, Expect: identity.Expect{Name: h.name}, Addresses: []string{h.addr}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		resp, err := askBlob(t.Context(), c, d)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	here, far := s.join("n2", "lon"), s.join("n3", "nyc")
	code := codeOf("code")
	if status, body := get(here, code); status != 200 || function.DigestOf([]byte(body)) != code {
		t.Errorf("a neighbour: %d, %d bytes", status, len(body))
	}
	if status, body := get(far, code); status != 403 || !strings.Contains(body, "ask control") {
		t.Errorf("a node of another PoP: %d %s", status, body)
	}
	stray := []byte("something that lies there")
	if err := os.WriteFile(h.agent.blobs.path(function.DigestOf(stray)), stray, 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _ := get(here, function.DigestOf(stray)); status != 404 {
		t.Errorf("what no release names: %d", status)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "blobs", code.Hex()), []byte("rotten"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _ := get(here, code); status != 404 {
		t.Errorf("rotten bytes: %d", status)
	}
	h.until("it says so", func() bool {
		h.node.mu.Lock()
		defer h.node.mu.Unlock()
		return slices.ContainsFunc(h.events, func(e Event) bool { return e.Kind == Rotten && e.Digest == code })
	})
}

// Two nodes that see the PoP differently each ask control; nobody waits for long.
func TestNodesThatSeeThePoPDifferently(t *testing.T) {
	s := newStreet(t, 2)
	leader, others := s.meant("log catalog")
	s.grouped(leader, others...)
	s.mu.Lock()
	s.unheard["n1"], s.unheard["n2"] = true, true
	s.mu.Unlock()
	for _, h := range s.houses {
		h.until("it follows control", func() bool {
			st := h.agent.Stats()
			return st.FromControl == 1 && st.FromNeighbours == 0 && st.Connected
		})
	}
	s.deploy("f", routeOf("f.example"), "code")
	for _, h := range s.houses {
		h.serves("f.example", "code")
	}
	s.mu.Lock()
	clear(s.unheard)
	s.mu.Unlock()
	s.grouped(leader, others...)
}

func TestBlame(t *testing.T) {
	var told []Event
	p := newPop("a", func() []Neighbour { return []Neighbour{{Name: "b"}, {Name: "a"}} }, func(e Event) { told = append(told, e) })
	key := ""
	for i := 0; ; i++ {
		key = fmt.Sprint(i)
		if n, other := p.first(key); other && n.Name == "b" {
			break
		}
	}
	p.Blame("b", io.EOF)
	if _, other := p.first(key); other {
		t.Error("it is asked right after it failed")
	}
	for range 20 {
		p.Blame("b", io.EOF)
	}
	p.Blame("b", fmt.Errorf("x: %w", errBlob))
	if told[0].Took != distrustFailed || told[1].Took != 2*distrustFailed || told[20].Took != distrustMost || told[21].Took != distrustLied {
		t.Errorf("left alone for %v, %v, ... %v, %v", told[0].Took, told[1].Took, told[20].Took, told[21].Took)
	}
}

// The PoP's work is spread, and a node that goes takes only its own share along.
func TestRendezvous(t *testing.T) {
	names := []string{"b", "c", "d"}
	list := func() (all []Neighbour) {
		for _, n := range names {
			all = append(all, Neighbour{Name: n})
		}
		return all
	}
	p := newPop("a", list, func(Event) {})
	before, share := map[string]string{}, map[string]int{}
	for i := range 4000 {
		key := fmt.Sprint(i)
		n, _ := p.first(key)
		before[key] = n.Name
		share[n.Name]++
	}
	for _, n := range []string{"", "b", "c", "d"} {
		if share[n] < 800 || share[n] > 1200 {
			t.Errorf("%q has %d of 4000", n, share[n])
		}
	}
	names = []string{"b", "d"}
	for key, was := range before {
		if n, _ := p.first(key); was != "c" && n.Name != was {
			t.Fatalf("key %s moved from %q to %q though that one lives", key, was, n.Name)
		}
	}
}
