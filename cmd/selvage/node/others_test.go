package node

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/control/fleet"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/edge/forward"
	"github.com/selvage-edge/selvage/runtime/function"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func loopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// joins returns what makes nodes of one new fleet.
func joins(t *testing.T) func(name, pop, region string) *identity.Node {
	t.Helper()
	c, _, err := identity.Init(filepath.Join(t.TempDir(), "control"), identity.InitOptions{})
	check(t, err)
	conf, err := c.APITLS([]string{"127.0.0.1"})
	check(t, err)
	mux, l := http.NewServeMux(), loopback(t)
	mux.HandleFunc("GET "+identity.TrustPath, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(c.Anchor.Trust().Bundle())
	})
	mux.HandleFunc("POST "+identity.JoinPath, func(w http.ResponseWriter, r *http.Request) {
		var req identity.JoinRequest
		_ = json.NewDecoder(r.Body).Decode(&req)
		a, err := c.Join(req, []string{"seed:1"}, []string{"control:1"}, []string{"api:1"})
		if err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(a)
	})
	s := &http.Server{Handler: mux, TLSConfig: conf}
	go s.ServeTLS(l, "", "")
	t.Cleanup(func() { s.Close() })
	return func(name, pop, region string) *identity.Node {
		token, _, err := identity.NewJoinToken(c.Fleet, c.Root, []string{l.Addr().String()}, "", 0, time.Now())
		check(t, err)
		n, err := identity.Join(t.Context(), filepath.Join(t.TempDir(), name), token, identity.JoinOptions{Name: name, PoP: pop, Region: region})
		check(t, err)
		return n
	}
}

// gossiping is what a test has gossip say.
type gossiping struct {
	members []fleet.Member
	down    bool
}

func (g *gossiping) Members() ([]fleet.Member, bool) { return g.members, !g.down }

// otherNodes are those that a node of nyc sees.
func otherNodes(t *testing.T, self *identity.Node, g *gossiping, kept ...fleet.Member) *others {
	o := newOthers(self.Member, func() fleet.Site { return fleet.Site{} }, g.Members, kept)
	t.Cleanup(o.close)
	return o
}

func lonAt(addr, region string) fleet.Member {
	return fleet.Member{Name: "lon-1", Health: fleet.Alive, Meta: fleet.Meta{Role: fleet.Node, PoP: "lon", Region: region, Peer: addr}}
}

// answering serves peers of n with h, and returns where.
func answering(t *testing.T, n *identity.Node, h http.HandlerFunc) string {
	t.Helper()
	s, err := peer.NewServer(peer.ServerConfig{Member: n.Member, Handler: h})
	check(t, err)
	l := loopback(t)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Close(now) // what is still under way is cut
		check(t, <-ended)
	})
	return l.Addr().String()
}

func asked(t *testing.T) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", forward.Path, nil)
	check(t, err)
	return r
}

// A node that leaves, or that gossip takes for dead, gets nothing new; what it has
// begun to answer it answers whole, and its client ends then.
func TestUnderWayOutlivesTheList(t *testing.T) {
	join := joins(t)
	goOn := make(chan struct{})
	addr := answering(t, join("lon-1", "lon", "eu"), func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-goOn:
			_, _ = io.WriteString(w, " and half")
		case <-r.Context().Done():
		}
	})
	nyc := join("nyc-1", "nyc", "us")
	for name, gone := range map[string]func(*fleet.Member){
		"it leaves": func(m *fleet.Member) { m.Meta.Leaving = true },
		"dead":      func(m *fleet.Member) { m.Health = fleet.Failed },
		"moved":     func(m *fleet.Member) { m.Meta.Region = "us" },
	} {
		g := &gossiping{members: []fleet.Member{lonAt(addr, "eu")}}
		o := otherNodes(t, nyc, g)
		lon := o.may(function.Placement{})[0]
		resp, err := lon.Node.Do(asked(t))
		check(t, err)
		gone(&g.members[0])
		o.look()
		for _, p := range o.may(function.Placement{Include: []string{"region=eu"}}) {
			t.Errorf("%s: %s still gets what is new", name, p.Name)
		}
		if _, err := lon.Node.Do(asked(t)); !errors.Is(err, errRetired) || !unsent(err) {
			t.Errorf("%s: who still has the old list gets %v", name, err)
		}
		goOn <- struct{}{}
		if b, err := io.ReadAll(resp.Body); string(b) != "half and half" || err != nil {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if c := lon.Node.(*client); c.over() {
			t.Errorf("%s: over before the answer is closed", name)
		}
		resp.Body.Close()
		if _, err := lon.Node.(*client).Client.Do(asked(t)); !errors.Is(err, peer.ErrClosed) {
			t.Errorf("%s: its connections are open: %v", name, err)
		}
		o.look()
		if o.all(); len(o.mu.retired) != 0 {
			t.Errorf("%s: %d are kept", name, len(o.mu.retired))
		}
	}
}

// A pin by exclusion holds against gossip that leaves the region out: nothing is sent
// to a node whose certificate says another.
func TestGossipCannotHideARegion(t *testing.T) {
	join := joins(t)
	addr := answering(t, join("lon-1", "lon", "eu"), func(http.ResponseWriter, *http.Request) { t.Error("it was sent there") })
	pin := function.Placement{Exclude: []string{"region=eu"}, Residency: true}
	nyc := join("nyc-1", "nyc", "us")
	for _, c := range []struct {
		region string
		listed int
	}{{"eu", 0}, {"", 1}, {"us", 1}} {
		o := otherNodes(t, nyc, &gossiping{members: []fleet.Member{lonAt(addr, c.region)}})
		peers := o.may(pin)
		if len(peers) != c.listed {
			t.Errorf("region %q: %d nodes, want %d", c.region, len(peers), c.listed)
		}
		for _, p := range peers {
			if _, err := p.Node.Do(asked(t)); !unsent(err) || !errors.Is(err, identity.ErrUntrusted) {
				t.Errorf("region %q: %v", c.region, err)
			}
		}
	}
	par := answering(t, join("par-1", "par", ""), func(http.ResponseWriter, *http.Request) {})
	member := lonAt(par, "")
	member.Name, member.Meta.PoP = "par-1", "par"
	resp, err := otherNodes(t, nyc, &gossiping{members: []fleet.Member{member}}).may(pin)[0].Node.Do(asked(t))
	check(t, err)
	resp.Body.Close()
}

// A new server hands on to whom the last one knew, until gossip has told who is there.
func TestWhoWasThereBefore(t *testing.T) {
	join := joins(t)
	self := join("nyc-1", "nyc", "us")
	path := filepath.Join(t.TempDir(), "members.json")
	me := fleet.Member{Name: "nyc-1", Health: fleet.Alive, Meta: fleet.Meta{Role: fleet.Node, PoP: "nyc", Peer: "127.0.0.1:9"}}
	left := lonAt("127.0.0.1:9", "eu")
	left.Name, left.Health = "lon-2", fleet.Left
	b, err := keep(path, []fleet.Member{me, lonAt("127.0.0.1:9", "eu"), left}, "nyc-1", nil)
	check(t, err)
	if alone, err := keep(path, []fleet.Member{me, left}, "nyc-1", b); err != nil || string(alone) != string(b) {
		t.Errorf("a node that sees nobody keeps %s, %v", alone, err)
	}
	kept, err := fleet.LoadMembers(path)
	check(t, err)
	synctest.Test(t, func(t *testing.T) {
		g := &gossiping{down: true}
		o := otherNodes(t, self, g, kept...)
		expect := func(when string, names ...string) {
			t.Helper()
			o.look()
			peers := o.may(function.Placement{Include: []string{"region=eu"}})
			if len(peers) != len(names) || len(names) == 1 && peers[0].Name != names[0] {
				t.Errorf("%s: %v, want %v", when, peers, names)
			}
		}
		expect("before gossip", "lon-1")
		g.down, g.members = false, []fleet.Member{me}
		expect("gossip knows nobody yet", "lon-1")
		time.Sleep(time.Hour)
		expect("nor after an hour", "lon-1")
		control := fleet.Member{Name: "control-1", Health: fleet.Alive, Meta: fleet.Meta{Role: fleet.Control}}
		g.members = append(g.members, control)
		expect("its first word", "lon-1")
		time.Sleep(settleTime)
		if peers := o.may(function.Placement{}); len(peers) != 0 { // though nothing was heard since
			t.Errorf("gossip does not know it: %v", peers)
		}

		g = &gossiping{members: []fleet.Member{me, lonAt("127.0.0.1:9", "eu")}}
		g.members[1].Health = fleet.Failed
		o = otherNodes(t, self, g, kept...)
		expect("gossip knows that it is dead")
		g.members[1].Health = fleet.Alive
		expect("it lives", "lon-1")
		g.down, g.members = true, nil
		expect("the office is another server's", "lon-1")
	})
}

// At its first start a node is not ready until gossip has told of another member, or has had
// its time; one that was here before knows others.
func TestFirstStartIsNotReadyUntilGossipTold(t *testing.T) {
	self := joins(t)("nyc-1", "nyc", "us")
	synctest.Test(t, func(t *testing.T) {
		g := &gossiping{down: true}
		o := otherNodes(t, self, g)
		time.Sleep(time.Hour)
		if o.unready() == "" {
			t.Error("ready before gossip runs")
		}
		g.down, g.members = false, []fleet.Member{{Name: "nyc-1", Health: fleet.Alive}}
		if o.unready() == "" {
			t.Error("ready when gossip knows only this node")
		}
		g.members = append(g.members, fleet.Member{Name: "control-1", Health: fleet.Alive, Meta: fleet.Meta{Role: fleet.Control}})
		if why := o.unready(); why != "" {
			t.Error("gossip told of control:", why)
		}
		g.down = true
		if why := o.unready(); why != "" {
			t.Error("it was ready once:", why)
		}
		alone := otherNodes(t, self, &gossiping{})
		if alone.unready() == "" {
			t.Error("ready at once, alone")
		}
		time.Sleep(settleTime)
		if why := alone.unready(); why != "" {
			t.Error("alone, and gossip had its time:", why)
		}
		if why := otherNodes(t, self, &gossiping{down: true}, fleet.Member{Name: "lon-1"}).unready(); why != "" {
			t.Error("of a node that was here before:", why)
		}
	})
}
