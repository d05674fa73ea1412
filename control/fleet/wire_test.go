package fleet

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestMetaRoundTrip(t *testing.T) {
	for _, m := range []Meta{
		{Role: Node, PoP: "lon", Region: "eu-west.1", Public: "192.0.2.1:443", Peer: "[2001:db8::1]:9000", Version: "v1.2.3+abc"},
		{Role: Control},
		{Role: Node, PoP: "x", Public: "edge.example.com:443"},
		{Role: NameServer, Draining: true, Site: Site{Told: true}},
		{Role: Node, PoP: "x", Labels: "tier=large,gpu=no"},
		{Role: Node, PoP: "x", Leaving: true, Site: Site{Told: true, Located: true, Latitude: -89.123456, Longitude: 179.999999, Weight: 100, Load: 7,
			V4: netip.MustParseAddr("192.0.2.1"), V6: netip.MustParseAddr("2001:db8::1")}, Labels: "tier=large"},
		{Role: Node, PoP: "x", Site: Site{Told: true, Weight: 50, V6: netip.MustParseAddr("2001:db8::1")}},
	} {
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeMeta(append(b, "of a newer version"...))
		if err != nil || got != m {
			t.Errorf("%+v came back as %+v, %v", m, got, err)
		}
	}
	for _, m := range []Meta{
		{}, {Role: 9, PoP: "lon"}, {Role: Node}, {Role: Node, PoP: "Lon"}, {Role: Node, PoP: "lon", Region: "-"},
		{Role: Node, PoP: "lon", Public: "nowhere"}, {Role: Node, PoP: "lon", Peer: ":1"}, {Role: Node, PoP: "lon", Version: "a b"}, {Role: Node, PoP: "lon", Version: strings.Repeat("v", 65)},
		{Role: Node, PoP: "lon", Public: strings.Repeat("a", 200) + ":1"},
		{Role: Node, PoP: "lon", Site: Site{Weight: 101}}, {Role: Node, PoP: "lon", Site: Site{Located: true, Latitude: math.NaN()}},
		{Role: Node, PoP: "lon", Labels: "tier"}, {Role: Node, PoP: "lon", Labels: "pop=nyc"}, {Role: Node, PoP: "lon", Labels: "a=b,"}, {Role: Node, PoP: "lon", Labels: strings.Repeat("a", 63) + "=" + strings.Repeat("b", 63) + ",c=d"},
		{Role: Node, PoP: "lon", Site: Site{V4: netip.MustParseAddr("::1")}}, {Role: Node, PoP: "lon", Site: Site{V6: netip.MustParseAddr("fe80::1%eth0")}},
	} {
		if _, err := m.Encode(); err == nil {
			t.Errorf("%+v was encoded", m)
		}
	}
}

func FuzzMeta(f *testing.F) {
	b, _ := Meta{Role: Node, PoP: "lon", Region: "eu", Public: "192.0.2.1:443", Peer: "192.0.2.1:9", Version: "v1"}.Encode()
	f.Add(b)
	b, _ = Meta{Role: Node, PoP: "lon", Site: Site{Told: true, Located: true, V4: netip.MustParseAddr("192.0.2.1"), V6: netip.MustParseAddr("2001:db8::1")}}.Encode()
	f.Add(b)
	b, _ = Meta{Role: Node, PoP: "lon", Site: Site{Told: true}, Labels: "tier=large"}.Encode()
	f.Add(b)
	f.Add([]byte{metaVersion, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMeta(b)
		if err != nil {
			return
		}
		again, err := m.Encode()
		if err != nil || len(again) > 512 {
			t.Fatalf("%+v: %d bytes, %v", m, len(again), err)
		}
		if n, err := DecodeMeta(again); err != nil || n != m {
			t.Fatalf("%+v came back as %+v, %v", m, n, err)
		}
	})
}

func TestHeadsRoundTrip(t *testing.T) {
	hs := []Head{{"catalog", 1, 2}, {"kv/p/n", 1<<64 - 1, 1<<64 - 1}}
	got, err := decodeHeads(encodeHeads(hs))
	if err != nil || !reflect.DeepEqual(got, hs) {
		t.Errorf("%v, %v", got, err)
	}
	table := newHeads(func() int { return 1 })
	for i := range MaxHeads {
		if _, err := table.raise(Head{Log: fmt.Sprint("log-", i), Epoch: 1, Sequence: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := table.raise(Head{Log: "one more", Epoch: 1}); err == nil {
		t.Error("more logs than the bound")
	}
	if news := table.learn([]byte{headsVersion, 3, 'x'}); news != nil || table.refused.Load() != 1 {
		t.Errorf("half a head: %v, %d refused", news, table.refused.Load())
	}
	if n := len(encodeHeads(table.snapshot())); n > 64<<10 {
		t.Errorf("a full table is %d bytes", n)
	}
}

func FuzzHeads(f *testing.F) {
	f.Add(encodeHeads([]Head{{"catalog", 1, 2}, {"kv/p/n", 3, 4}}))
	f.Add([]byte{headsVersion, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		hs, err := decodeHeads(b)
		if err != nil {
			return
		}
		again, err := decodeHeads(encodeHeads(hs))
		if err != nil || !reflect.DeepEqual(again, hs) {
			t.Fatalf("%v came back as %v, %v", hs, again, err)
		}
	})
}

func FuzzSeeds(f *testing.F) {
	f.Add([]byte(`{"version":1,"seeds":[{"name":"n1","address":"192.0.2.1:7946","seen":"2026-01-02T03:04:05Z"}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := decodeSeeds(b)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "seeds")
		if err := writeSeeds(path, list); err != nil {
			t.Skip(err) // a year that JSON does not write
		}
		out, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := decodeSeeds(out); err == nil && len(again) != len(list) {
			t.Fatalf("%v came back as %v", list, again)
		}
	})
}

func TestSeedsAreBounded(t *testing.T) {
	s, err := loadSeeds("")
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxSeeds + 10 {
		s.seen(Member{Name: fmt.Sprintf("n%d", i), Gossip: address(i)})
	}
	s.mu.byName["n5000"] = seed{Name: "n5000", Address: address(1), Seen: time.Now().Add(-2 * seedLife)}
	if n := len(s.list()); n > maxSeeds {
		t.Errorf("%d seeds", n)
	}
	if _, ok := s.mu.byName["n5000"]; ok {
		t.Error("a seed of two months ago is remembered")
	}
	if _, err := decodeSeeds(bytes.Repeat([]byte(" "), maxSeedsFile+1)); err == nil {
		t.Error("a huge file was read")
	}
}
