package geodns

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/control/fleet"
)

func member(name, pop string, health fleet.Health, change func(*fleet.Meta)) fleet.Member {
	m := fleet.Member{Name: name, Health: health, Meta: fleet.Meta{Role: fleet.Node, PoP: pop, Region: "eu", Public: "192.0.2.1:8443",
		Site: fleet.Site{Told: true, Located: true, Latitude: 51.5, Longitude: -.1, Weight: 100}}}
	if change != nil {
		change(&m.Meta)
	}
	return m
}

func TestPoPsOf(t *testing.T) {
	address := func(a string) func(*fleet.Meta) { return func(m *fleet.Meta) { m.Public = a } }
	got := PoPsOf([]fleet.Member{
		{Name: "control-1", Health: fleet.Alive, Meta: fleet.Meta{Role: fleet.Control}},
		member("lon-1", "lon", fleet.Failed, address("192.0.2.1:443")),
		member("lon-2", "lon", fleet.Alive, func(m *fleet.Meta) { m.Public, m.Site.Load = "192.0.2.2:443", 20 }),
		member("lon-3", "lon", fleet.Alive, func(m *fleet.Meta) { m.Draining, m.Public = true, "192.0.2.3:443" }),
		member("lon-4", "lon", fleet.Alive, func(m *fleet.Meta) {
			m.Public, m.Site.Load, m.Site.Weight = "edge.example.net:443", 40, 50
			m.Site.V4, m.Site.V6 = netip.MustParseAddr("198.51.100.4"), netip.MustParseAddr("2001:db8::4")
		}),
		member("nyc-1", "nyc", fleet.Alive, func(m *fleet.Meta) { m.Leaving = true }),
		member("old-1", "old", fleet.Alive, func(m *fleet.Meta) { m.Site = fleet.Site{} }), // of a version that does not tell
		member("sin-1", "sin", fleet.Failed, nil),
		member("syd-1", "syd", fleet.Left, nil),
	})
	at := func(all ...string) (list []netip.AddrPort) {
		for _, a := range all {
			list = append(list, netip.MustParseAddrPort(a))
		}
		return list
	}
	place := PoP{Region: "eu", Located: true, Latitude: 51.5, Longitude: -.1, Weight: 1}
	want := []PoP{place, place, {Name: "old", Region: "eu", Weight: 1, Addresses: at("192.0.2.1:8443")}, place}
	want[0].Name, want[0].Load, want[0].Addresses = "lon", .3, at("192.0.2.2:443", "198.51.100.4:443", "[2001:db8::4]:443")
	want[1].Name, want[1].State, want[1].Addresses = "nyc", Draining, at("192.0.2.1:8443")
	want[3].Name, want[3].State, want[3].Addresses = "sin", Dead, at("192.0.2.1:8443")
	got[0].Load = float64(int(got[0].Load*1000+.5)) / 1000
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\ngot  %+v\nwant %+v", got, want)
	}
	table(t, got)
}

// Answers follow the fleet within 5 s of its knowing.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{Zones: testZones, Where: where, Answers: 1})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var now []fleet.Member
		ctx, stop := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() {
			s.Follow(ctx, func() []fleet.Member {
				mu.Lock()
				defer mu.Unlock()
				return now
			}, nil)
		})
		for i, want := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2"} {
			health := fleet.Alive
			if i == 1 {
				health = fleet.Failed
			}
			mu.Lock()
			now = []fleet.Member{
				member("lon-1", "lon", health, func(m *fleet.Meta) { m.Draining = i == 3 }),
				member("nyc-1", "nyc", fleet.Alive, func(m *fleet.Meta) { m.Site.Longitude, m.Public = -74, "192.0.2.2:443" }),
			}
			mu.Unlock()
			time.Sleep(5 * time.Second)
			e, err := s.Explain(netip.MustParseAddr("81.2.69.142"), "www.edge.example.net")
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("www.edge.example.net. 20 IN A %s", want); len(e.Answers) == 0 || e.Answers[0] != got {
				t.Errorf("%d: %q, want %q", i, e.Answers, got)
			}
		}
		stop()
		run.Wait()
	})
}
