package guard

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func parse(t *testing.T, head string) *http.Request {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		t.Fatalf("net/http refuses it already: %v", err)
	}
	return r
}

func TestRequest(t *testing.T) {
	many := strings.Repeat("X: y\r\n", MaxHeadLines)
	wide := "X: " + strings.Repeat("y", MaxHeadBytes) + "\r\n"
	tests := []struct {
		name, head string
		status     int // 0: let in
		canon      Canon
	}{
		{"plain", "GET /a?b=c HTTP/1.1\r\nHost: Example.com:8443\r\n", 0, Canon{"example.com", "8443", "/a", "b=c"}},
		{"default port", "GET / HTTP/1.1\r\nHost: example.com:443\r\n", 0, Canon{"example.com", "", "/", ""}},
		{"absolute form", "GET http://evil.example/x?y HTTP/1.1\r\nHost: example.com\r\n", 0, Canon{"evil.example", "", "/x", "y"}},
		{"absolute form, no path", "GET http://evil.example?y HTTP/1.1\r\nHost: example.com\r\n", 0, Canon{"evil.example", "", "/", "y"}},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n", 0, Canon{"a", "", "*", ""}},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\n", 0, Canon{"a", "", "/", ""}},
		{"HTTP/1.0 without host", "GET / HTTP/1.0\r\n", 400, Canon{}},
		{"bad port", "GET / HTTP/1.1\r\nHost: a:80x\r\n", 400, Canon{}},
		{"NUL", "GET /%00 HTTP/1.1\r\nHost: a\r\n", 400, Canon{}},
		{"fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n", 400, Canon{}},
		{"lower-case method", "get / HTTP/1.1\r\nHost: a\r\n", 400, Canon{}},
		{"connect", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n", 501, Canon{}},
		{"HTTP/1.9", "GET / HTTP/1.9\r\nHost: a\r\n", 505, Canon{}},
		{"expect", "GET / HTTP/1.1\r\nHost: a\r\nExpect: y 100-continue\r\n", 417, Canon{}},
		{"expect twice", "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n", 417, Canon{}},
		{"long URL", "GET /" + strings.Repeat("a", MaxURLBytes) + " HTTP/1.1\r\nHost: a\r\n", 414, Canon{}},
		{"many lines", "GET / HTTP/1.1\r\nHost: a\r\n" + many, 431, Canon{}},
		{"large head", "GET / HTTP/1.1\r\nHost: a\r\n" + wide, 431, Canon{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := new(Guard).Request(parse(t, tt.head+"\r\n"))
			if tt.status == 0 {
				if err != nil || c != tt.canon {
					t.Fatalf("got %+v, %v, want %+v", c, err, tt.canon)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) || e.Status != tt.status {
				t.Fatalf("got %v, want status %d", err, tt.status)
			}
		})
	}
}

func TestRequestDropsHeaders(t *testing.T) {
	r := parse(t, "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1\r\nX-Forwarded-For: 2\r\n"+
		"Selvage-Request-Id: mine\r\nselvage-verdict: x 1\r\n\r\n")
	if _, err := new(Guard).Request(r); err != nil {
		t.Fatal(err)
	}
	if len(r.Header) != 1 || r.Header.Get("X-Forwarded-For") != "2" {
		t.Fatalf("headers left: %v", r.Header)
	}
}

func TestMisdirected(t *testing.T) {
	g := Guard{Covers: func(sni, host string) bool { return sni == "a.example" && host == "b.example" }}
	tests := []struct {
		sni, host string
		status    int
	}{
		{"a.example", "a.example", 0},
		{"A.example", "a.example.", 0},
		{"a.example", "b.example", 0}, // the certificate covers both
		{"a.example", "c.example", 421},
		{"b.example", "a.example", 421},
		{"", "c.example", 0}, // no SNI: the routes decide
	}
	for _, tt := range tests {
		r := parse(t, fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\n\r\n", tt.host))
		r.TLS = &tls.ConnectionState{ServerName: tt.sni, HandshakeComplete: true}
		_, err := g.Request(r)
		var e *Error
		if got := errors.As(err, &e); got != (tt.status != 0) || got && e.Status != tt.status {
			t.Errorf("SNI %q, host %q: %v, want %d", tt.sni, tt.host, err, tt.status)
		}
	}
	r := parse(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	r.TLS = &tls.ConnectionState{}
	if _, err := g.Request(r); !errors.Is(err, errEarly) {
		t.Errorf("before the handshake: %v, want 425", err)
	}
}
