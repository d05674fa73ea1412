package fetch

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// inside are URLs that lead, or look as if they led, into the operator's own
// network. A binding of exactly that URL does not help any of them.
var inside = []string{
	// Loopback and "this host", also as resolvers of old read numbers.
	"http://127.0.0.1", "http://127.0.0.1:8080", "http://127.1", "http://127.0.1", "http://127.255.255.254",
	"http://0.0.0.0", "http://0", "http://0.0.0.0:8080", "http://2130706433", "http://0x7f000001", "http://0x7f.1",
	"http://0177.0.0.1", "http://017700000001", "http://127.0.0.01", "http://00000127.0.0.1", "http://127。0。0。1",
	"http://localhost", "http://localhost.", "http://LOCALHOST:80", "http://%6c%6f%63alhost", "http://①②⑦.0.0.1",
	"http://[::1]", "http://[::]", "http://[0:0:0:0:0:0:0:1]", "http://[::1%25lo]", "http://[fe80::1%25eth0]",
	// Private, link-local, shared and other special networks.
	"http://10.0.0.1", "http://10.255.255.255", "http://172.16.0.1", "http://172.31.255.255", "http://192.168.0.1",
	"http://169.254.1.1", "http://100.64.0.1", "http://100.127.255.255", "http://192.0.0.1", "http://192.0.2.1",
	"http://198.18.0.1", "http://198.19.255.255", "http://198.51.100.1", "http://203.0.113.1", "http://192.88.99.1",
	"http://224.0.0.1", "http://239.255.255.250", "http://240.0.0.1", "http://255.255.255.255", "http://0.1.2.3",
	"https://10.0.0.1", "https://192.168.1.1:8443", "http://[fc00::1]", "http://[fd12:3456::1]", "http://[fe80::1]",
	"http://[ff02::1]", "http://[2001:db8::1]", "http://[2001::1]", "http://[100::1]", "http://[5f00::1]", "http://[3fff::1]",
	// Metadata services.
	"http://169.254.169.254", "http://169.254.169.254:80", "http://2852039166", "http://0xa9fea9fe", "http://0251.0376.0251.0376",
	"http://169.254.170.2", "http://100.100.100.200", "http://168.63.129.16", "http://192.0.0.192", "http://[fd00:ec2::254]", "http://[fd20:ce::254]",
	// IPv6 that carries an IPv4 address.
	"http://[::ffff:10.0.0.1]", "http://[::ffff:127.0.0.1]", "http://[::ffff:a9fe:a9fe]", "http://[::10.0.0.1]", "http://[::127.0.0.1]",
	"http://[64:ff9b::a00:1]", "http://[64:ff9b::7f00:1]", "http://[64:ff9b:1::a00:1]", "http://[2002:a00:1::]", "http://[2002:7f00:1::1]",
	"http://[2001:0:53aa:64c:0:0:f5ff:fffe]",
	// Other schemes, other protocols' ports, and more than an origin.
	"file:///etc/passwd", "gopher://10.0.0.1:70", "ftp://example.com", "unix:///run/docker.sock", "dict://127.0.0.1:11211",
	"http://example.com:22", "http://example.com:25", "http://example.com:6667", "http://example.com:0", "http://example.com:99999",
	"http://user:pass@example.com", "http://example.com@127.0.0.1", "http://", "http://exa mple.com", "http://example.com:", "http://-x.example",
}

func TestInsideIsNotReached(t *testing.T) {
	c, err := New(Config{Connect: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, raw := range inside {
		r, err := http.NewRequest("GET", raw, nil)
		if err != nil {
			continue // not even a URL
		}
		_, err = c.Fetch(context.Background(), bind(raw), r)
		if !errors.Is(err, hostcall.ErrDenied) && !errors.Is(err, hostcall.ErrInvalid) {
			t.Errorf("%s: %v; want denied or invalid", raw, err)
		}
	}
	if n := len(inside); n < 80 {
		t.Errorf("%d URLs, want 80 or more", n)
	}
}

func bind(urls ...string) *function.Version {
	v := &function.Version{ID: function.ID{Project: "p", Name: "f"}}
	for _, u := range urls {
		v.Bindings.Backends = append(v.Bindings.Backends, function.Backend{Name: "b", URL: u, Private: true})
	}
	return v
}

func TestPublic(t *testing.T) {
	for _, s := range []string{"1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.167.1.1", "198.20.0.1", "223.255.255.255", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8"} {
		if !public(netip.MustParseAddr(s).Unmap()) {
			t.Errorf("%s: not taken for public", s)
		}
	}
}

func TestGate(t *testing.T) {
	g := newGate(
		[]netip.Prefix{
			netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8"),
			netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("100.100.100.200/32"), netip.MustParsePrefix("::1/128"),
		},
		[]netip.AddrPort{netip.MustParseAddrPort("127.0.0.11:9000"), netip.MustParseAddrPort("0.0.0.0:9001"), netip.MustParseAddrPort("8.8.8.8:443")},
	)
	for s, open := range map[string]bool{
		"127.0.0.1:8080":           true,
		"10.1.2.3:80":              true,
		"10.2.0.1:80":              false,
		"[fd00::1]:80":             true,
		"[fd00:ec2::254]:80":       false, // a metadata service needs an entry of its own
		"169.254.169.254:80":       false,
		"169.254.7.7:80":           true,
		"100.100.100.200:80":       true,
		"100.100.100.201:80":       false,
		"127.0.0.11:9000":          false, // the fleet's own, whatever is allowed
		"[::ffff:127.0.0.11]:9000": false,
		"127.0.0.11:9002":          true,
		"127.0.0.5:9001":           false, // reached there, since it listens everywhere
		"[::1]:9001":               false,
		"8.8.8.8:443":              false,
		"8.8.8.8:80":               true,
		"[fe80::1%eth0]:80":        false,
	} {
		err := g.control(context.Background(), "tcp4", s, nil)
		if (err == nil) != open {
			t.Errorf("%s: %v, want open %v", s, err, open)
		}
	}
	if err := g.control(context.Background(), "udp4", "8.8.8.8:53", nil); err == nil {
		t.Error("UDP was let through")
	}
}

func TestBackend(t *testing.T) {
	for in, want := range map[string]string{
		"https://Example.COM":            "https://example.com",
		"https://example.com.":           "https://example.com",
		"https://example.com:443":        "https://example.com",
		"http://example.com:443/":        "http://example.com:443",
		"HTTP://example.com:8080":        "http://example.com:8080",
		"https://[2606:4700:0::1]":       "https://[2606:4700::1]",
		"http://[::ffff:8.8.8.8]:81":     "http://8.8.8.8:81",
		"https://xn--bcher-kva.example":  "https://xn--bcher-kva.example",
		"https://a_b.example":            "https://a_b.example",
		"https://example.com/path":       "",
		"https://example.com?q":          "",
		"https://example.com#f":          "",
		"https://example.com#":           "",
		"https://u@example.com":          "",
		"example.com":                    "",
		"https:example.com":              "",
		"ws://example.com":               "",
		"https://bücher.example":         "",
		"https://example.com:080":        "",
		"https://example..com":           "",
		"https://*.example.com":          "",
		"https://1.2.3":                  "",
		"https://1.2.3.4.5":              "",
		"https://example.0x1":            "",
		"https://[fe80::1%25eth0]:443":   "",
		"https://example.com:443:443":    "",
		"https://example.com%00.evil.to": "",
	} {
		b, err := ParseBackend(in)
		if got := b.String(); want == "" && err == nil || want != "" && (err != nil || got != want) {
			t.Errorf("%s: %q, %v; want %q", in, got, err, want)
		}
	}
}

func FuzzBackend(f *testing.F) {
	for _, u := range inside {
		f.Add(u)
	}
	f.Add("https://example.com:8443")
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ParseBackend(s)
		if err != nil {
			return
		}
		again, err := ParseBackend(b.String())
		if err != nil || again != b {
			t.Fatalf("%q is %+v, which reads as %+v, %v", s, b, again, err)
		}
		u, err := url.Parse(b.String())
		if err != nil || u.Scheme != b.Scheme || u.User != nil {
			t.Fatalf("%q is %s, which net/url reads as %v, %v", s, b, u, err)
		}
		if _, _, err := net.SplitHostPort(net.JoinHostPort(b.Host, "1")); err != nil {
			t.Fatal(err)
		}
	})
}
