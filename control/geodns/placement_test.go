package geodns

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/fleet"
	"github.com/selvage-edge/selvage/runtime/function"
)

// regionOf is a coarse one, by longitude.
func regionOf(lon float64) string {
	switch {
	case lon < -30:
		return "am"
	case lon < 45:
		return "eu"
	}
	return "ap"
}

// nodesOf has two nodes in each city, of which the second is large.
func nodesOf() (all []fleet.Member) {
	for i, c := range cities {
		for n, labels := range []string{"", "tier=large"} {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n), 0, byte(i)}), 443)
			all = append(all, fleet.Member{Name: fmt.Sprintf("%s-%d", c.name, n+1), Health: fleet.Alive, Meta: fleet.Meta{
				Role: fleet.Node, PoP: c.name, Region: regionOf(c.lon), Public: at.String(), Labels: labels,
				Site: fleet.Site{Told: true, Located: true, Latitude: c.lat, Longitude: c.lon, Weight: 100},
			}})
		}
	}
	return all
}

func released(name string, p function.Placement, routes ...string) catalog.Release {
	return catalog.Release{Project: "default", Function: name, Number: 1, Routes: routes, Placement: p}
}

// pinnedReleases have a host each, "HOST.edge.test".
var pinnedReleases = []catalog.Release{
	released("eu", function.Placement{Include: []string{"region=eu"}, Residency: true}, "eu.edge.test/*"),
	released("not-eu", function.Placement{Exclude: []string{"region=eu"}, Residency: true}, "not-eu.edge.test/*"),
	released("two", function.Placement{Include: []string{"pop=lhr", "pop=syd"}}, "two.edge.test/*"),
	released("large", function.Placement{Include: []string{"tier=large"}}, "large.edge.test/*"),
	released("node", function.Placement{Include: []string{"node=sin-2"}, Residency: true}, "node.edge.test/*"),
	released("away", function.Placement{Include: []string{"pop=none"}, Residency: true}, "away.edge.test/*"),
	released("free", function.Placement{}, "free.edge.test/*"),
}

// Residency is never broken: whatever fails and drains, a client of a pinned host is sent to
// nodes where the function may run as long as one of them lives, to none that drains while
// one serves, and to the nearest; only when none lives to others, which do not run it.
func TestPlacedInvariants(t *testing.T) {
	hosts, r := HostsOf(pinnedReleases), rand.New(rand.NewPCG(21, 22))
	const rounds = 400
	outside, wrong := 0, 0
	for round := range rounds {
		members := nodesOf()
		dead, drained := r.Float64()*1.2, r.Float64()
		for i := range members {
			switch {
			case round > 0 && r.Float64() < dead:
				members[i].Health = fleet.Failed
			case round > 0 && r.Float64() < drained:
				members[i].Meta.Draining = true
			}
		}
		p, err := newPicture(members, hosts)
		if err != nil {
			t.Fatal(err)
		}
		rel := &pinnedReleases[round%len(pinnedReleases)]
		may, best := mayAnswer(members, rel.Placement)
		for range clients / rounds {
			q := somewhere(r)
			got := chosen(p.table(rel.Function+".edge.test."), q)
			if len(got) == 0 {
				t.Fatalf("round %d: %s: no answer", round, rel.Function)
			}
			for _, c := range got {
				if c.PoP.State != best {
					t.Fatalf("round %d: %s: %s is %s, though others are %s", round, rel.Function, c.PoP.Name, c.PoP.State, best)
				}
				for _, a := range c.PoP.Addresses {
					if !may[a] {
						t.Fatalf("round %d: %s: sent to %v of %s, where it may not run", round, rel.Function, a, c.PoP.Name)
					}
				}
			}
			if best != Dead && !allowedAt(members, rel.Placement, got[0].PoP.Addresses[0]) {
				outside++
			}
			if got[0].PoP.Name != nearestOf(members, may, q) {
				wrong++
			}
		}
	}
	if outside == 0 || wrong > clients/1000 {
		t.Errorf("%d times no node that may answer lived: want some; %d of %d clients not to the nearest", outside, wrong, clients)
	}
}

// mayAnswer are the addresses of whom a client of what is placed so may be sent to, by brute force.
func mayAnswer(members []fleet.Member, p function.Placement) (may map[netip.AddrPort]bool, best State) {
	for _, pinned := range []bool{true, false} {
		for best = Serving; best < Dead || !pinned && best == Dead; best++ {
			may = map[netip.AddrPort]bool{}
			for i := range members {
				if m := &members[i]; stateOf(*m) == best && (!pinned || p.Allows(m.Labels())) {
					may[netip.MustParseAddrPort(m.Meta.Public)] = true
				}
			}
			if len(may) > 0 {
				return may, best
			}
		}
	}
	return nil, states
}

func allowedAt(members []fleet.Member, p function.Placement, at netip.AddrPort) bool {
	i := slices.IndexFunc(members, func(m fleet.Member) bool { return m.Meta.Public == at.String() })
	return p.Allows(members[i].Labels())
}

func nearestOf(members []fleet.Member, may map[netip.AddrPort]bool, q Question) string {
	best, name := 1e9, ""
	for _, m := range members {
		s := m.Meta.Site
		if km := greatCircle(q.Latitude, q.Longitude, s.Latitude, s.Longitude); may[netip.MustParseAddrPort(m.Meta.Public)] && km < best {
			best, name = km, m.Meta.PoP
		}
	}
	return name
}

// The routes of all functions say where a host's requests may be answered: of the
// host itself, and of the less specific ones that its other paths are left to.
func TestHostsOf(t *testing.T) {
	eu, us := function.Placement{Include: []string{"region=eu"}}, function.Placement{Include: []string{"region=us"}, Residency: true}
	h := HostsOf([]catalog.Release{
		released("whole", eu, "a.example/*"),
		released("part", eu, "b.example/api/*", "x.wild.example/only"),
		released("rest", us, "b.example/*"),
		released("wild", us, "*.wild.example/*"),
		released("deep", eu, "*.deep.wild.example/v1"),
		released("mixed", eu, "c.example/eu/*"), released("open", function.Placement{}, "c.example/*"),
		released("all", eu, "*/health"),
	})
	both := "region=eu; or region=us; residency"
	for name, want := range map[string]string{
		"a.example.": "region=eu", "b.example.": both, "c.example.": "", "x.wild.example.": both, "y.wild.example.": "region=us; residency",
		"z.y.wild.example.": "region=us; residency", "q.deep.wild.example.": both, "wild.example.": "region=eu", "other.example.": "region=eu", ".": "region=eu",
	} {
		if got := h.pins[h.of(name)].String(); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if HostsOf([]catalog.Release{released("open", function.Placement{}, "a.example/*")}) != nil {
		t.Error("nothing is placed, and hosts are told apart")
	}
}

// What hosts cost is bounded: sets of placements, and tables by the nodes that they come to.
func TestHostsAreBounded(t *testing.T) {
	var all []catalog.Release
	for i := range 3 * MaxPins {
		all = append(all, released(fmt.Sprint(i), function.Placement{Include: []string{fmt.Sprintf("pop=p%d", i)}}, fmt.Sprintf("h%d.example/*", i)))
	}
	h := HostsOf(all)
	if len(h.pins) != MaxPins || h.over != 2*MaxPins+1 {
		t.Errorf("%d sets, %d over", len(h.pins), h.over)
	}
	same := []catalog.Release{released("a", function.Placement{Include: []string{"pop=lhr"}}, "a.example/*"), released("b", function.Placement{Include: []string{"node=lhr-1", "node=lhr-2"}}, "b.example/*")}
	p, err := newPicture(nodesOf(), HostsOf(same))
	if err != nil || p.table("a.example.") != p.table("b.example.") || p.table("a.example.") == p.all {
		t.Errorf("two tables of the same nodes, or none: %v", err)
	}
}

func TestPlacedAllocatesNothing(t *testing.T) {
	p, err := newPicture(nodesOf(), HostsOf(pinnedReleases))
	if err != nil {
		t.Fatal(err)
	}
	into, q := make([]Choice, 4), Question{Located: true, Latitude: 50, Longitude: 8}
	if got := testing.AllocsPerRun(200, func() { p.table("eu.edge.test.").Choose(q, into) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// Over the wire, also by an alias, which is asked for by its own name; and explained.
func TestPlacedAnswers(t *testing.T) {
	s := start(t, Config{Answers: 1})
	here := released("here", function.Placement{Include: []string{"region=am"}, Residency: true}, "www.edge.example.net/*", "shop.edge.example.net/*")
	members := nodesOf()
	fleetIs := func() {
		t.Helper()
		if err := s.SetFleet(members, HostsOf([]catalog.Release{here})); err != nil {
			t.Fatal(err)
		}
	}
	sent := func(host, pop string) Explanation {
		t.Helper()
		m := ask(t, s, "udp", question(host, dns.TypeA, "81.2.69.0/24"))
		at := m.Answer[len(m.Answer)-1].(*dns.A).A.String()
		if i := slices.IndexFunc(members, func(m fleet.Member) bool { return m.Meta.Public == at+":443" }); i < 0 || members[i].Meta.PoP != pop {
			t.Errorf("%s: sent to %s, want %s", host, at, pop)
		}
		e, err := s.Explain(netip.MustParseAddr("81.2.69.142"), host)
		if err != nil || len(e.Answers) == 0 {
			t.Fatal(e, err)
		}
		return e
	}
	fleetIs()
	e := sent("www.edge.example.net", "bos")
	if e.Placement != "region=am; residency" || e.PoPs[0].PoP != "bos" || !strings.Contains(e.Why, "where its functions may run") {
		t.Errorf("%+v", e)
	}
	if last := e.PoPs[len(e.PoPs)-1]; !strings.Contains(last.Why, "may not run there") {
		t.Errorf("nearer ones are not told: %+v", e.PoPs)
	}
	sent("shop.edge.example.net", "bos")
	if e := sent("a.apps.edge.example.net", "lhr"); e.Placement != "" {
		t.Errorf("%+v", e)
	}
	for i := range members {
		if members[i].Meta.Region == "am" {
			members[i].Health = fleet.Failed
		}
	}
	fleetIs()
	if e := sent("www.edge.example.net", "lhr"); !strings.Contains(e.Why, "no node where its functions may run lives") {
		t.Errorf("%+v", e)
	}
}

// What each change of a fleet of 120 nodes costs, with hosts pinned to as many sets as are told apart.
func BenchmarkPicture(b *testing.B) {
	var all []catalog.Release
	for i := range MaxPins - 1 {
		p := function.Placement{Include: []string{"pop=" + cities[i%len(cities)].name, "pop=" + cities[i*7%len(cities)].name}}
		all = append(all, released(fmt.Sprint(i), p, fmt.Sprintf("h%d.example/*", i)))
	}
	members, hosts := nodesOf(), HostsOf(all)
	for b.Loop() {
		if _, err := newPicture(members, hosts); err != nil {
			b.Fatal(err)
		}
	}
}
