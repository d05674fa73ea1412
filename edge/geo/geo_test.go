package geo

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

type (
	m = mmdbtype.Map
	s = mmdbtype.String
)

// write makes a database of the records at path, by rename, as updaters do.
func write(t testing.TB, path, kind string, records map[string]mmdbtype.DataType) {
	t.Helper()
	put(t, path, database(t, kind, records))
}

func put(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func database(t testing.TB, kind string, records map[string]mmdbtype.DataType) []byte {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: kind, IncludeReservedNetworks: true, DisableIPv4Aliasing: true})
	if err != nil {
		t.Fatal(err)
	}
	for network, r := range records {
		_, ipNet, err := net.ParseCIDR(network)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Insert(ipNet, r); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if _, err := tree.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

var maxmind = m{
	"country":      m{"iso_code": s("FR"), "is_in_european_union": mmdbtype.Bool(true), "names": m{"en": s("France")}},
	"subdivisions": mmdbtype.Slice{m{"iso_code": s("IDF"), "names": m{"en": s("Île-de-France")}}},
	"city":         m{"names": m{"en": s("Paris"), "de": s("Paris")}},
	"location":     m{"latitude": mmdbtype.Float64(48.85), "longitude": mmdbtype.Float64(2.35), "time_zone": s("Europe/Paris"), "accuracy_radius": mmdbtype.Uint16(20)},
}

func TestLayouts(t *testing.T) {
	asn := m{"autonomous_system_number": mmdbtype.Uint32(64500), "autonomous_system_organization": s("Example")}
	for _, c := range []struct {
		name   string
		record mmdbtype.DataType
		want   Place
	}{
		{"maxmind city", maxmind, Place{Country: "FR", Region: "IDF", City: "Paris", Located: true, Latitude: 48.85, Longitude: 2.35, TimeZone: "Europe/Paris", EU: true}},
		{"maxmind asn", asn, Place{ASN: 64500, Organization: "Example", Assumed: true}},
		{"dbip city", m{"country": m{"iso_code": s("US")}, "subdivisions": mmdbtype.Slice{m{"names": m{"en": s("New York")}}}, "city": m{"names": m{"en": s("New York")}},
			"location": m{"latitude": mmdbtype.Float32(40.5), "longitude": mmdbtype.Float32(-74)}},
			Place{Country: "US", Region: "New York", City: "New York", Located: true, Latitude: 40.5, Longitude: -74}},
		{"ipinfo location", m{"city": s("Leeds"), "region": s("England"), "region_code": s("ENG"), "country": s("GB"), "lat": s("53.8"), "lng": s("-1.55"), "timezone": s("Europe/London")},
			Place{Country: "GB", Region: "ENG", City: "Leeds", Located: true, Latitude: 53.8, Longitude: -1.55, TimeZone: "Europe/London"}},
		{"ipinfo lite", m{"country": s("Germany"), "country_code": s("DE"), "asn": s("AS64501"), "as_name": s("Beispiel")},
			Place{Country: "DE", ASN: 64501, Organization: "Beispiel", EU: true}},
		{"ip-location-db city", m{"city": s("Perth"), "country_code": s("AU"), "latitude": mmdbtype.Float64(-31.95), "longitude": mmdbtype.Float64(115.86), "state1": s("Western Australia"), "timezone": s("Australia/Perth")},
			Place{Country: "AU", Region: "Western Australia", City: "Perth", Located: true, Latitude: -31.95, Longitude: 115.86, TimeZone: "Australia/Perth"}},
		{"no position on this globe", m{"country_code": s("IT"), "lat": s("NaN"), "lng": s("12")}, Place{Country: "IT", EU: true}},
		{"not of the type expected", m{"country": mmdbtype.Slice{s("x")}, "city": mmdbtype.Uint32(7), "country_code": s("SE")}, Place{Country: "SE", EU: true}},
		{"a text without end", m{"country_code": s("SE"), "city": s(strings.Repeat("x", maxText+1))}, Place{Country: "SE", EU: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.mmdb")
			write(t, path, c.name, map[string]mmdbtype.DataType{"81.2.69.0/24": c.record, "2a02::/32": c.record})
			d := open(t, Config{Files: []string{path}})
			for _, a := range []string{"81.2.69.142", "::ffff:81.2.69.142", "2a02::1", "2a02::1%eth0"} {
				for range 2 { // decoded, and remembered
					if got := d.Lookup(netip.MustParseAddr(a)); got != c.want {
						t.Errorf("%s:\ngot  %+v\nwant %+v", a, got, c.want)
					}
				}
			}
		})
	}
}

func open(t testing.TB, c Config) *DB {
	t.Helper()
	d, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if c.OnEvent == nil && d.Stats().Loaded != len(c.Files) {
		t.Fatalf("loaded %d of %d files", d.Stats().Loaded, len(c.Files))
	}
	return d
}

// What one file lacks comes from the next, but no city of another country.
func TestFilesTogether(t *testing.T) {
	dir := t.TempDir()
	a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	write(t, a, "country", map[string]mmdbtype.DataType{"81.2.0.0/16": m{"country_code": s("GB")}})
	write(t, b, "city", map[string]mmdbtype.DataType{"81.2.69.0/24": maxmind, "82.0.0.0/8": maxmind})
	write(t, c, "asn", map[string]mmdbtype.DataType{"81.0.0.0/8": m{"asn": s("AS1")}})
	d := open(t, Config{Files: []string{a, b, c}})
	if got, want := d.Lookup(netip.MustParseAddr("81.2.69.1")), (Place{Country: "GB", ASN: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := d.Lookup(netip.MustParseAddr("82.1.1.1")); got.City != "Paris" || got.ASN != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestDefault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent.mmdb")
	var told []Event
	d := open(t, Config{Files: []string{path}, Default: Place{Country: "NL", Located: true, Latitude: 52, Longitude: 5}, OnEvent: func(e Event) { told = append(told, e) }})
	if len(told) != 1 || told[0].Err == nil || told[0].Kept {
		t.Fatalf("told %+v", told)
	}
	want := Place{Country: "NL", Located: true, Latitude: 52, Longitude: 5, EU: true, Assumed: true}
	for _, a := range []netip.Addr{netip.MustParseAddr("192.0.2.1"), {}} {
		if got := d.Lookup(a); got != want {
			t.Errorf("%s: got %+v", a, got)
		}
	}
	d.Reload()
	if len(told) != 1 {
		t.Errorf("the same fault was told twice: %+v", told)
	}
	write(t, path, "late", map[string]mmdbtype.DataType{"192.0.2.0/24": m{"country_code": s("JP")}})
	d.Reload()
	if got := d.Lookup(netip.MustParseAddr("192.0.2.1")); got.Country != "JP" || got.Assumed || len(told) != 2 {
		t.Errorf("got %+v, told %+v", got, told)
	}
	if _, err := Open(Config{Default: Place{Country: "Holland"}}); err == nil {
		t.Error("a default that is no country was taken")
	}
	if _, err := Open(Config{Default: Place{Located: true, Latitude: 91}}); err == nil {
		t.Error("a default that is no position was taken")
	}
}

// A new file is taken while lookups go on; a broken one is told, and the old one kept.
func TestReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.mmdb")
	addr := netip.MustParseAddr("81.2.69.142")
	of := func(country string) []byte {
		return database(t, "country", map[string]mmdbtype.DataType{"81.2.69.0/24": m{"country_code": s(country)}})
	}
	put(t, path, of("GB"))
	var told []Event
	d := open(t, Config{Files: []string{path}, OnEvent: func(e Event) { told = append(told, e) }})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if c := d.Lookup(addr).Country; c != "GB" && c != "IE" {
				t.Errorf("country %q", c)
				return
			}
		}
	}()
	put(t, path, of("IE"))
	d.Reload()
	if c := d.Lookup(addr).Country; c != "IE" {
		t.Errorf("country %q after the reload", c)
	}
	good := of("IE")
	for name, text := range map[string][]byte{
		"cut short":      good[:len(good)-20],
		"empty":          {},
		"not a database": []byte("<html>429 Too Many Requests</html>"),
		"no places":      database(t, "words", map[string]mmdbtype.DataType{"81.2.69.0/24": m{"colour": s("green")}}),
		"a broken tree":  append(bytes.Repeat([]byte{0xff}, 512), good[512:]...),
	} {
		n := len(told)
		put(t, path, text)
		d.Reload()
		if len(told) != n+1 || told[n].Err == nil || !told[n].Kept {
			t.Errorf("%s: told %+v", name, told[n:])
		}
		if c := d.Lookup(addr).Country; c != "IE" {
			t.Errorf("%s: country %q", name, c)
		}
	}
	close(stop)
	<-done
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	d.Reload()
	if c := d.Lookup(addr).Country; c != "IE" || d.Stats().Loaded != 1 {
		t.Errorf("country %q after the file was removed", c)
	}
}

// A lookup of what was met before allocates nothing.
func TestLookupAllocatesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.mmdb")
	write(t, path, "x", map[string]mmdbtype.DataType{"81.2.69.0/24": m{"country_code": s("GB")}})
	d := open(t, Config{Files: []string{path}})
	if !d.Stats().Oldest.After(time.Now().Add(-time.Hour)) {
		t.Errorf("stats %+v", d.Stats())
	}
	if n := testing.AllocsPerRun(100, func() { d.Lookup(netip.MustParseAddr("81.2.69.142")) }); n != 0 {
		t.Errorf("%v allocations a lookup", n)
	}
}

// FuzzFile opens whatever it is given and looks addresses up in it.
func FuzzFile(f *testing.F) {
	f.Add(database(f, "city", map[string]mmdbtype.DataType{"81.2.69.0/24": maxmind}), []byte{81, 2, 69, 142})
	f.Add(database(f, "asn", map[string]mmdbtype.DataType{"2a02::/32": m{"asn": s("AS1")}}), netip.MustParseAddr("2a02::1").AsSlice())
	f.Fuzz(func(t *testing.T, text, address []byte) {
		db := &DB{}
		one := &file{broken: &db.broken}
		if one.parse(text) != nil {
			return
		}
		a, _ := netip.AddrFromSlice(address)
		if !a.IsValid() {
			return
		}
		db.files.Store(&[]*file{one})
		p := db.Lookup(a)
		if p.Country != "" && !validCountry(p.Country) || p.Located && !ValidPosition(p.Latitude, p.Longitude) || len(p.City) > 3*maxText {
			t.Errorf("%+v", p)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	path := filepath.Join(b.TempDir(), "a.mmdb")
	records := map[string]mmdbtype.DataType{}
	for i := range 4096 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(1 + i>>8), byte(i)}), 16)
		r := m{"country": maxmind["country"], "location": m{"latitude": mmdbtype.Float64(float64(i%180) - 90), "longitude": mmdbtype.Float64(float64(i % 180))}}
		records[p.String()] = r
	}
	write(b, path, "city", records)
	d := open(b, Config{Files: []string{path}})
	b.ReportAllocs()
	var i uint32
	for b.Loop() {
		i += 0x9e3779b9
		d.Lookup(netip.AddrFrom4([4]byte{byte(1 + i>>24&15), byte(i >> 16), byte(i >> 8), byte(i)}))
	}
}

// Run takes a changed file by itself.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a.mmdb")
		write(t, path, "x", map[string]mmdbtype.DataType{"81.2.69.0/24": m{"country_code": s("GB")}})
		d := open(t, Config{Files: []string{path}})
		ctx, stop := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { d.Run(ctx) })
		write(t, path, "x", map[string]mmdbtype.DataType{"81.2.69.0/24": m{"country_code": s("IE")}})
		time.Sleep(look + time.Second)
		synctest.Wait()
		if c := d.Lookup(netip.MustParseAddr("81.2.69.142")).Country; c != "IE" {
			t.Errorf("country %q", c)
		}
		stop()
		run.Wait()
	})
}
