package guard

import (
	"strings"
	"testing"
)

func TestHost(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	tests := []struct {
		in, host, port string
		ok             bool
	}{
		{"example.com", "example.com", "", true},
		{"EXAMPLE.Com", "example.com", "", true},
		{"example.com.", "example.com", "", true},
		{"example.com:443", "example.com", "443", true},
		{"example.com.:0443", "example.com", "443", true},
		{"example.com:", "example.com", "", true},
		{"xn--bcher-kva.example", "xn--bcher-kva.example", "", true},
		{"a_b.example", "a_b.example", "", true},
		{"127.0.0.1:8443", "127.0.0.1", "8443", true},
		{"[::1]", "[::1]", "", true},
		{"[2001:DB8:0:0::1]:8443", "[2001:db8::1]", "8443", true},
		{label63 + ".example", label63 + ".example", "", true},
		{"", "", "", false},
		{".", "", "", false},
		{".example.com", "", "", false},
		{"example..com", "", "", false},
		{"example.com..", "", "", false},
		{"a:80x", "", "", false},
		{"a:65536", "", "", false},
		{"a:0", "", "", false},
		{"a:-1", "", "", false},
		{"a:+1", "", "", false},
		{"a:80:80", "", "", false},
		{"user@example.com", "", "", false},
		{"exa mple.com", "", "", false},
		{"ex%61mple.com", "", "", false},
		{"bücher.example", "", "", false},
		{"example.com/x", "", "", false},
		{"*.example.com", "", "", false},
		{"[::1", "", "", false},
		{"[::1]x", "", "", false},
		{"[fe80::1%25eth0]", "", "", false},
		{"[1.2.3.4]", "", "", false},
		{"a" + label63 + ".example", "", "", false},
		{strings.Repeat("a.", 127), "", "", true},
		{strings.Repeat("a.", 127) + "aa", "", "", false},
		{"a\x00b", "", "", false},
	}
	for _, tt := range tests {
		host, port, err := Host(tt.in)
		if (err == nil) != tt.ok {
			t.Errorf("Host(%q): error %v, want ok %v", tt.in, err, tt.ok)
			continue
		}
		if tt.host != "" && (host != tt.host || port != tt.port) {
			t.Errorf("Host(%q) = %q, %q, want %q, %q", tt.in, host, port, tt.host, tt.port)
		}
	}
}

func TestPath(t *testing.T) {
	tests := []struct{ in, want string }{ // want "": refused
		{"/", "/"},
		{"/a/b", "/a/b"},
		{"/a/b/", "/a/b/"},
		{"/.well-known/x", "/.well-known/x"},
		{"/a/../b//c/%2e%2e/%2Fd", "/b/%2Fd"},
		{"/a/./b", "/a/b"},
		{"/a/.", "/a/"},
		{"/a/..", "/"},
		{"/a/b/..", "/a/"},
		{"/..", "/"},
		{"/../../etc/passwd", "/etc/passwd"},
		{"/a/%2E%2e/b", "/b"},
		{"//a///b//", "/a/b/"},
		{"/a%2fb", "/a%2Fb"},
		{"/%7euser", "/~user"},
		{"/%41%2d%5F", "/A-_"},
		{"/%2541", "/%2541"},
		{"/a%20b", "/a%20b"},
		{"/%c3%a9", "/%C3%A9"},
		{"/\xc3\xa9", "/%C3%A9"},
		{`/a|b\c`, "/a%7Cb%5Cc"},
		{"/a;b=c,d@e:f!$&'()*+", "/a;b=c,d@e:f!$&'()*+"},
		{"/...", "/..."},
		{"/a/...b", "/a/...b"},
		{"/%25%32%66", "/%252f"},
		{"", ""},
		{"a", ""},
		{"*", ""},
		{"/%00", ""},
		{"/%", ""},
		{"/%2", ""},
		{"/%zz", ""},
		{"/a b", ""},
		{"/a#b", ""},
		{"/a?b", ""},
		{"/a\x00", ""},
		{"/a\r\n", ""},
		{"/a\x7f", ""},
	}
	for _, tt := range tests {
		got, err := Path(tt.in)
		if (err == nil) != (tt.want != "") || got != tt.want {
			t.Errorf("Path(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestQuery(t *testing.T) {
	tests := []struct {
		in, want string
		ok       bool
	}{
		{"", "", true},
		{"a=b&c=%zz&d=1%", "a=b&c=%zz&d=1%", true},
		{"a=\xc3\xa9", "a=%C3%A9", true},
		{"a?b/c", "a?b/c", true},
		{"a b", "", false},
		{"a#b", "", false},
		{"a\nb", "", false},
	}
	for _, tt := range tests {
		if got, err := Query(tt.in); got != tt.want || (err == nil) != tt.ok {
			t.Errorf("Query(%q) = %q, %v", tt.in, got, err)
		}
	}
}

// FuzzCanon checks that what is canonical stays so, and that nothing dangerous is.
func FuzzCanon(f *testing.F) {
	for _, s := range []string{"/a/../b//c/%2e%2e/%2Fd", "/%25%32%66", "/", "//", "/a/..;/b", "/%7E/\xff", "/%2e/%2e%2e/..%2f"} {
		f.Add("Example.COM.:0443", s, "a=b%")
	}
	f.Add("[2001:DB8::0:1]:1", "/x", "\xff")
	f.Fuzz(func(t *testing.T, authority, path, query string) {
		if host, port, err := Host(authority); err == nil {
			again, none, err := Host(host)
			if err != nil || again != host || none != "" {
				t.Errorf("Host(%q) = %q, but Host of that is %q, %q, %v", authority, host, again, none, err)
			}
			if p, _ := canonicalPort(port); p != port {
				t.Errorf("port %q of %q is not canonical", port, authority)
			}
		}
		if p, err := Path(path); err == nil {
			checkCanonicalPath(t, p)
		}
		if q, err := Query(query); err == nil {
			if again, err := Query(q); err != nil || again != q {
				t.Errorf("Query(%q) = %q, %v: not stable", q, again, err)
			}
		}
	})
}

func checkCanonicalPath(t *testing.T, p string) {
	t.Helper()
	if again, err := Path(p); err != nil || again != p {
		t.Errorf("Path(%q) = %q, %v: not stable", p, again, err)
	}
	for i, seg := range strings.Split(p, "/") {
		if seg == "." || seg == ".." || seg == "" && i > 0 && i < strings.Count(p, "/") {
			t.Errorf("%q has the segment %q", p, seg)
		}
	}
	if strings.ContainsAny(p, " #?\\\x00\r\n") || strings.Contains(p, "%00") {
		t.Errorf("%q has a byte it must not have", p)
	}
}

func BenchmarkCanon(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Host("api.example.com:8443"); err != nil {
			b.Fatal(err)
		}
		if _, err := Path("/v1/projects/default/functions/hello/releases/42"); err != nil {
			b.Fatal(err)
		}
	}
}
