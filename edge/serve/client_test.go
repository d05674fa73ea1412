package serve

import (
	"net/http"
	"net/netip"
	"testing"
)

// Whose word counts: a chain of trusted proxies' for whom they ask, and nobody else's.
func TestClient(t *testing.T) {
	trusting := &Handler{cfg: Config{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}}
	for _, c := range []struct {
		from string
		says []string
		want string
	}{
		{"192.0.2.9:4000", nil, "192.0.2.9:4000"},
		{"192.0.2.9:4000", []string{"198.51.100.1"}, "192.0.2.9:4000"},
		{"[::ffff:192.0.2.9]:4000", nil, "192.0.2.9:4000"},
		{"10.1.1.1:4000", nil, "10.1.1.1:4000"},
		{"10.1.1.1:4000", []string{"198.51.100.1"}, "198.51.100.1:0"},
		{"[::ffff:10.1.1.1]:4000", []string{"198.51.100.1"}, "198.51.100.1:0"},
		{"[fd00::1]:4000", []string{"2001:db8::7"}, "[2001:db8::7]:0"},
		{"10.1.1.1:4000", []string{"203.0.113.66, 198.51.100.1"}, "198.51.100.1:0"},
		{"10.1.1.1:4000", []string{"203.0.113.66, 198.51.100.1 ,10.2.2.2,\tfd00::5"}, "198.51.100.1:0"},
		{"10.1.1.1:4000", []string{"203.0.113.66", "198.51.100.1", "10.2.2.2"}, "198.51.100.1:0"},
		{"10.1.1.1:4000", []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3:0"},
		{"10.1.1.1:4000", []string{"198.51.100.1:1234"}, "198.51.100.1:0"},
		{"10.1.1.1:4000", []string{"[2001:db8::7]:1234"}, "[2001:db8::7]:0"},
		{"10.1.1.1:4000", []string{"[2001:db8::7]"}, "[2001:db8::7]:0"},
		{"10.1.1.1:4000", []string{"::ffff:198.51.100.1"}, "198.51.100.1:0"},
		{"10.1.1.1:4000", []string{"198.51.100.1, unknown"}, "10.1.1.1:4000"},
		{"10.1.1.1:4000", []string{"198.51.100.1, _hidden, 10.2.2.2"}, "10.2.2.2:0"},
		{"10.1.1.1:4000", []string{"198.51.100.1,"}, "10.1.1.1:4000"},
		{"10.1.1.1:4000", []string{"0.0.0.0"}, "10.1.1.1:4000"},
		{"10.1.1.1:4000", []string{"fe80::1%eth0"}, "10.1.1.1:4000"},
		{"nonsense", []string{"198.51.100.1"}, "invalid AddrPort"},
	} {
		r := &http.Request{RemoteAddr: c.from, Header: http.Header{"X-Forwarded-For": c.says}}
		if got := trusting.clientOf(r).String(); got != c.want {
			t.Errorf("from %s, saying %q: %s, want %s", c.from, c.says, got, c.want)
		}
		nobody := &Handler{}
		if got, want := nobody.clientOf(r), nobody.clientOf(&http.Request{RemoteAddr: c.from}); got != want {
			t.Errorf("from %s, saying %q, trusting nobody: %s, want %s", c.from, c.says, got, want)
		}
	}
}

func FuzzForwardedFor(f *testing.F) {
	for _, s := range []string{"203.0.113.66, 198.51.100.1 ,10.2.2.2", ",,,", "[::1]:2", "unknown", "10.0.0.1"} {
		f.Add(s)
	}
	h := &Handler{cfg: Config{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	f.Fuzz(func(t *testing.T, s string) {
		got := h.behind([]string{s})
		if got.IsValid() && (got.Is4In6() || got.Zone() != "" || got.IsUnspecified()) {
			t.Fatalf("%q: %v", s, got)
		}
		// What a client wrote before what a trusted proxy appended changes nothing.
		if told := h.behind([]string{s + ", 192.0.2.1"}); told != netip.MustParseAddr("192.0.2.1") {
			t.Fatalf("%q: %v", s, told)
		}
	})
}
