package geodns

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// cities are 60 places where CDNs have PoPs, with their coordinates.
var cities = []struct {
	name     string
	lat, lon float64
}{
	{"ams", 52.37, 4.90}, {"arn", 59.33, 18.07}, {"ath", 37.98, 23.73}, {"atl", 33.75, -84.39}, {"bcn", 41.39, 2.17},
	{"bkk", 13.76, 100.50}, {"bog", 4.71, -74.07}, {"bom", 19.08, 72.88}, {"bos", 42.36, -71.06}, {"bru", 50.85, 4.35},
	{"bud", 47.50, 19.04}, {"cai", 30.04, 31.24}, {"cgk", -6.21, 106.85}, {"cph", 55.68, 12.57}, {"cpt", -33.92, 18.42},
	{"del", 28.61, 77.21}, {"den", 39.74, -104.99}, {"dfw", 32.78, -96.80}, {"dub", 53.35, -6.26}, {"dxb", 25.20, 55.27},
	{"eze", -34.60, -58.38}, {"fra", 50.11, 8.68}, {"gru", -23.55, -46.63}, {"hel", 60.17, 24.94}, {"hkg", 22.32, 114.17},
	{"hnl", 21.31, -157.86}, {"iad", 38.95, -77.45}, {"icn", 37.57, 126.98}, {"ist", 41.01, 28.98}, {"jnb", -26.20, 28.05},
	{"kbp", 50.45, 30.52}, {"kix", 34.69, 135.50}, {"lax", 34.05, -118.24}, {"lhr", 51.51, -0.13}, {"lim", -12.05, -77.04},
	{"lis", 38.72, -9.14}, {"los", 6.52, 3.38}, {"mad", 40.42, -3.70}, {"mel", -37.81, 144.96}, {"mex", 19.43, -99.13},
	{"mia", 25.76, -80.19}, {"mnl", 14.60, 120.98}, {"mxp", 45.46, 9.19}, {"nbo", -1.29, 36.82}, {"nrt", 35.68, 139.69},
	{"ord", 41.88, -87.63}, {"osl", 59.91, 10.75}, {"otp", 44.43, 26.10}, {"per", -31.95, 115.86}, {"prg", 50.08, 14.44},
	{"scl", -33.45, -70.67}, {"sea", 47.61, -122.33}, {"sin", 1.35, 103.82}, {"sjc", 37.34, -121.89}, {"syd", -33.87, 151.21},
	{"tpe", 25.03, 121.57}, {"vie", 48.21, 16.37}, {"waw", 52.23, 21.01}, {"yyz", 43.65, -79.38}, {"akl", -36.85, 174.76},
}

const clients = 20_000

func world() []PoP {
	var pops []PoP
	for i, c := range cities {
		pops = append(pops, PoP{Name: c.name, Latitude: c.lat, Longitude: c.lon, Located: true, Weight: 1,
			Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 443)}})
	}
	return pops
}

// greatCircle is the haversine formula: another one than Choose's own.
func greatCircle(lat1, lon1, lat2, lon2 float64) float64 {
	const r = math.Pi / 180
	a := math.Pow(math.Sin((lat2-lat1)*r/2), 2) + math.Cos(lat1*r)*math.Cos(lat2*r)*math.Pow(math.Sin((lon2-lon1)*r/2), 2)
	return 2 * earth * math.Asin(math.Sqrt(a))
}

// somewhere is half of the time near a city, where people live, and half anywhere on the globe.
func somewhere(r *rand.Rand) Question {
	q := Question{Located: true, Client: r.Uint64()}
	if c := cities[r.IntN(len(cities))]; r.IntN(2) == 0 {
		q.Latitude = math.Max(-90, math.Min(90, c.lat+r.NormFloat64()*5))
		q.Longitude = math.Mod(c.lon+r.NormFloat64()*5+540, 360) - 180
		return q
	}
	q.Latitude = math.Asin(2*r.Float64()-1) * 180 / math.Pi
	q.Longitude = 360*r.Float64() - 180
	return q
}

// byHand are the PoPs in state s, nearest first.
func byHand(pops []PoP, s State, q Question) []string {
	type far struct {
		name string
		km   float64
	}
	var in []far
	for _, p := range pops {
		if p.State == s {
			in = append(in, far{p.Name, greatCircle(q.Latitude, q.Longitude, p.Latitude, p.Longitude)})
		}
	}
	slices.SortFunc(in, func(a, b far) int { return cmp.Compare(a.km, b.km) })
	var names []string
	for _, p := range in {
		names = append(names, p.name)
	}
	return names
}

func table(t testing.TB, pops []PoP) *Table {
	t.Helper()
	tab, err := NewTable(pops)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func chosen(tab *Table, q Question) []Choice {
	into := make([]Choice, MaxChoices)
	return into[:tab.Choose(q, into)]
}

// The nearest of 60 PoPs, for at least 99.9 % of 20,000 clients.
func TestNearest(t *testing.T) {
	pops, r := world(), rand.New(rand.NewPCG(1, 2))
	tab, wrong := table(t, pops), 0
	for range clients {
		q := somewhere(r)
		want, got := byHand(pops, Serving, q), chosen(tab, q)
		if len(got) != MaxChoices {
			t.Fatalf("%d choices", len(got))
		}
		for i, c := range got {
			if c.PoP.Name != want[i] {
				wrong++
				break
			}
		}
		if want := greatCircle(q.Latitude, q.Longitude, got[0].PoP.Latitude, got[0].PoP.Longitude); math.Abs(got[0].Km()-want) > .5 {
			t.Fatalf("%s: %v km, by the haversine formula %v", got[0].PoP.Name, got[0].Km(), want)
		}
	}
	t.Logf("of %d clients %d got another order of %d PoPs than brute force", clients, wrong, MaxChoices)
	if wrong > clients/1000 {
		t.Errorf("%d of %d wrong", wrong, clients)
	}
}

// Whatever fails and drains: never a dead or draining PoP while another serves,
// and the nearest of those that are left.
func TestFailuresAndDrains(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	wrong := 0
	for round := range 200 {
		pops := world()
		dead, drained := r.Float64(), r.Float64()
		if round == 0 {
			dead = 1
		}
		var count [states]int
		for i := range pops {
			switch {
			case r.Float64() < dead:
				pops[i].State = Dead
			case r.Float64() < drained:
				pops[i].State = Draining
			}
			count[pops[i].State]++
		}
		best := Serving
		for count[best] == 0 {
			best++
		}
		tab := table(t, pops)
		for range clients / 200 {
			q := somewhere(r)
			want, got := byHand(pops, best, q), chosen(tab, q)
			if len(got) != min(MaxChoices, count[best]) {
				t.Fatalf("%d choices of %d", len(got), count[best])
			}
			for _, c := range got {
				if c.PoP.State != best {
					t.Fatalf("%s is %s, though %d are %s", c.PoP.Name, c.PoP.State, count[best], best)
				}
			}
			if got[0].PoP.Name != want[0] {
				wrong++
			}
		}
	}
	if wrong > clients/1000 {
		t.Errorf("%d of %d wrong", wrong, clients)
	}
}

// A PoP takes the share of its own clients that its weight says, within 2 %;
// the others go to the next, and stay there.
func TestWeights(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, c := range []struct{ weight, load, want float64 }{{1, 0, 1}, {.75, 0, .75}, {.5, .5, .5}, {.1, 0, .1}, {1, .9, .5}, {.5, .9, .25}, {1, 1, .05}} {
		pops := world()
		i := slices.IndexFunc(pops, func(p PoP) bool { return p.Name == "lhr" })
		pops[i].Weight, pops[i].Load = c.weight, c.load
		tab, took := table(t, pops), 0
		for range clients {
			q := Question{Located: true, Latitude: 51.5, Longitude: -.2, Client: r.Uint64()}
			got := chosen(tab, q)
			switch {
			case got[0].PoP.Name == "lhr":
				took++
			case got[0].PoP.Name != "bru":
				t.Fatalf("%s comes after lhr", got[0].PoP.Name)
			case got[len(got)-1].PoP.Name != "lhr" || !got[len(got)-1].Passed:
				t.Fatalf("lhr is not the last resort: %v", got)
			}
		}
		if share := float64(took) / clients; math.Abs(share-c.want) > .02 {
			t.Errorf("weight %v, load %v: took %.3f of its clients, want %v", c.weight, c.load, share, c.want)
		}
	}
}

// PoPs in one city share its clients by weight; when one goes, the other's stay.
func TestSamePlace(t *testing.T) {
	pops := []PoP{world()[0], world()[0], world()[0], world()[40]}
	for i, w := range []float64{1, .5, .5} {
		pops[i].Name, pops[i].Weight = fmt.Sprintf("ams%d", i), w
	}
	tab := table(t, pops)
	less := slices.Clone(pops)
	less[0].State = Dead
	left := table(t, less)
	count, r := map[string]int{}, rand.New(rand.NewPCG(7, 8))
	for range clients {
		q := Question{Located: true, Latitude: 52, Longitude: 5, Client: r.Uint64()}
		first := chosen(tab, q)[0].PoP.Name
		count[first]++
		if now := chosen(left, q)[0].PoP.Name; first != "ams0" && now != first {
			t.Fatalf("%s moved to %s when ams0 died", first, now)
		}
	}
	for name, want := range map[string]float64{"ams0": .5, "ams1": .25, "ams2": .25} {
		if share := float64(count[name]) / clients; math.Abs(share-want) > .02 {
			t.Errorf("%s: %.3f, want %v", name, share, want)
		}
	}
}

// Who cannot be placed is spread by weight; PoPs that cannot be placed come last.
func TestPlaceNotKnown(t *testing.T) {
	pops := world()[:4]
	for i, w := range []float64{1, 1, .5, .5} {
		pops[i].Weight = w
	}
	tab, count, r := table(t, pops), map[string]int{}, rand.New(rand.NewPCG(9, 10))
	for range clients {
		count[chosen(tab, Question{Client: r.Uint64()})[0].PoP.Name]++
	}
	for i, want := range []float64{1. / 3, 1. / 3, 1. / 6, 1. / 6} {
		if share := float64(count[pops[i].Name]) / clients; math.Abs(share-want) > .02 {
			t.Errorf("%s: %.3f, want %.3f", pops[i].Name, share, want)
		}
	}
	pops = world()[:4]
	pops[0].Located = false
	got := chosen(table(t, pops), Question{Located: true, Latitude: pops[0].Latitude, Longitude: pops[0].Longitude})
	if len(got) != 4 || got[3].PoP.Name != pops[0].Name || !math.IsNaN(got[3].Km()) {
		t.Errorf("%v", got)
	}
}

// A weight of 0 is a drain.
func TestWeightZero(t *testing.T) {
	pops := world()[:2]
	pops[0].Weight = 0
	if got := chosen(table(t, pops), Question{Located: true, Latitude: pops[0].Latitude, Longitude: pops[0].Longitude}); len(got) != 1 || got[0].PoP.Name != pops[1].Name {
		t.Errorf("%v", got)
	}
}

func TestTableRefuses(t *testing.T) {
	good := world()[:2]
	for name, spoil := range map[string]func(p []PoP){
		"twice":    func(p []PoP) { p[0].Name = p[1].Name },
		"nameless": func(p []PoP) { p[0].Name = "" },
		"position": func(p []PoP) { p[0].Latitude = math.NaN() },
		"weight":   func(p []PoP) { p[0].Weight = 1.5 },
		"load":     func(p []PoP) { p[0].Load = math.Inf(1) },
		"state":    func(p []PoP) { p[0].State = 9 },
	} {
		pops := slices.Clone(good)
		spoil(pops)
		if _, err := NewTable(pops); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := NewTable(make([]PoP, MaxPoPs+1)); err == nil {
		t.Error("too many: taken")
	}
	if n := len(chosen(table(t, nil), Question{})); n != 0 {
		t.Errorf("%d choices of nothing", n)
	}
}

// many are n PoPs all over the globe.
func many(n int) []PoP {
	r := rand.New(rand.NewPCG(11, 12))
	var pops []PoP
	for i := range n {
		q := somewhere(r)
		pops = append(pops, PoP{Name: fmt.Sprintf("pop%d", i), Latitude: q.Latitude, Longitude: q.Longitude, Located: true, Weight: 1,
			Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 443)}})
	}
	return pops
}

func TestChooseAllocatesNothing(t *testing.T) {
	for _, n := range []int{5, 50, 500} {
		tab, q := table(t, many(n)), Question{Located: true, Latitude: 50, Longitude: 8}
		into := make([]Choice, 4)
		if got := testing.AllocsPerRun(200, func() { tab.Choose(q, into) }); got != 0 {
			t.Errorf("%d PoPs: %v allocations", n, got)
		}
	}
}

func BenchmarkChoose(b *testing.B) {
	for _, n := range []int{5, 20, 60, 200, 500} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			tab, into, r := table(b, many(n)), make([]Choice, MaxChoices), rand.New(rand.NewPCG(1, 1))
			var qs [256]Question
			for i := range qs {
				qs[i] = somewhere(r)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				tab.Choose(qs[i%256], into)
				i++
			}
		})
	}
}
