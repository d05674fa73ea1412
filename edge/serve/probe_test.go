package serve_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/listen"
	"github.com/selvage-edge/selvage/edge/listen/listentest"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
)

// edge is the whole edge on loopback, with a function that says what reached it.
type edge struct {
	addr string
	tls  *tls.Config
}

func startEdge(t *testing.T) *edge {
	t.Helper()
	store, client := listentest.Certificates(t, "a.example", "b.example")
	h, err := serve.New(serve.Config{Limiter: limit.New(limit.Config{}), Telemetry: telemetry.New(telemetry.Config{}), Covers: store.Covers})
	if err != nil {
		t.Fatal(err)
	}
	echo := func(_ context.Context, w http.ResponseWriter, r *http.Request, m serve.Meta) (serve.Usage, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return serve.Usage{}, nil
		}
		_, err = fmt.Fprintf(w, "%s %s%s %q", r.Method, m.Authority, m.Target, body)
		return serve.Usage{}, err
	}
	routes := table(t, map[string]invoker{"a.example/*": echo, "b.example/*": echo, "c.example/*": echo})
	h.SetRoutes(routes)
	sockets := listentest.Open(t)
	listentest.Start(t, sockets, listen.Config{Certificate: store.Get, Handler: h})
	return &edge{sockets.Addr(), client}
}

// probe sends raw bytes on a connection of its own and returns the status and
// body of each answer until the server closes.
func (e *edge) probe(t *testing.T, in string) (all []string) {
	t.Helper()
	ctx := listentest.Context(t)
	c, err := (&tls.Dialer{Config: e.tls}).DialContext(ctx, "tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	go func() { _, _ = io.WriteString(c, in) }()
	br := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return all
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return append(all, "cut off")
		}
		if resp.StatusCode == http.StatusOK {
			all = append(all, string(body))
		} else {
			all = append(all, fmt.Sprint(resp.StatusCode))
		}
	}
}

// last is a request after which the connection ends, so that a probe sees
// whether the server still listened.
const last = "GET /last HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"

func TestProbes(t *testing.T) {
	e := startEdge(t)
	const ok = `GET a.example/last ""`
	tests := []struct{ name, in, want string }{
		{"good", "GET /x?y=1 HTTP/1.1\r\nHost: A.example\r\n\r\n" + last, `GET a.example/x?y=1 "", ` + ok},
		{"body, then another", "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi" + last, `POST a.example/ "hi", ` + ok},
		{"chunks, then another", "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n" + last, `POST a.example/ "hi", ` + ok},
		{"both sizes", "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + last, "400"},
		{"xchunked", "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: xchunked\r\n\r\n" + last, "501"},
		{"TE on 1.0", "POST / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + last, "400"},
		{"CL twice", "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n" + last, "400"},
		{"bare LF", "GET / HTTP/1.1\nHost: a.example\n\n" + last, "400"},
		{"fold", "GET / HTTP/1.1\r\nHost: a.example\r\nX: a\r\n b\r\n\r\n" + last, "400"},
		{"LF in a chunk size", "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n" + last, "400"},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n" + last, "400"},
		{"no host", "GET / HTTP/1.1\r\n\r\n" + last, "400"},
		{"user in host", "GET / HTTP/1.1\r\nHost: x@a.example\r\nConnection: close\r\n\r\n", "400"},
		{"absolute form elsewhere", "GET https://c.example/ HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", "421"},
		{"host of another certificate", "GET / HTTP/1.1\r\nHost: c.example\r\nConnection: close\r\n\r\n", "421"},
		{"host of the same certificate", "GET / HTTP/1.1\r\nHost: b.example.\r\nConnection: close\r\n\r\n", `GET b.example/ ""`},
		{"port that is none", "GET / HTTP/1.1\r\nHost: a.example:80x\r\nConnection: close\r\n\r\n", "400"},
		{"dots", "GET /a/../b//c/%2e%2e/%2Fd HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", `GET a.example/b/%2Fd ""`},
		{"NUL", "GET /%00 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", "400"},
		{"fragment", "GET /a#b HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", "400"},
		{"expect", "POST / HTTP/1.1\r\nHost: a.example\r\nExpect: y 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", "417"},
		{"HTTP/1.9", "GET / HTTP/1.9\r\nHost: a.example\r\n\r\n" + last, "505"},
		{"lower case", "get / HTTP/1.1\r\nHost: a.example\r\n\r\n" + last, "400"},
		{"preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"},
		{"h2c", "GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: h2c\r\nConnection: close, Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", `GET a.example/ ""`},
		{"connect", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nConnection: close\r\n\r\n", "501"},
		{"long URL", "GET /" + strings.Repeat("a", 17<<10) + " HTTP/1.1\r\nHost: a.example\r\n\r\n" + last, "414"},
		{"large head", "GET / HTTP/1.1\r\nHost: a.example\r\nX: " + strings.Repeat("a", 40<<10) + "\r\n\r\n" + last, "431"},
		{"many lines", "GET / HTTP/1.1\r\nHost: a.example\r\n" + strings.Repeat("X: y\r\n", 200) + "\r\n" + last, "431"},
		{"endless head", "GET / HTTP/1.1\r\nHost: a.example\r\n" + strings.Repeat("X: y\r\n", 50000), "431"},
		{"unknown host", "GET / HTTP/1.1\r\nHost: z.example\r\nConnection: close\r\n\r\n", "421"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(e.probe(t, tt.in), ", "); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestLimitsOnEveryProtocol sends what is too much over HTTP/2 and HTTP/3.
func TestLimitsOnEveryProtocol(t *testing.T) {
	e := startEdge(t)
	p := new(http.Protocols)
	p.SetHTTP2(true)
	h2 := &http.Transport{TLSClientConfig: e.tls.Clone(), Protocols: p, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, e.addr)
	}}
	defer h2.CloseIdleConnections()
	h3 := &http3.Transport{TLSClientConfig: e.tls, Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
		return quic.DialAddr(ctx, e.addr, tc, qc)
	}}
	defer h3.Close()
	tests := []struct {
		name   string
		path   string
		host   string
		header http.Header
		want   int
	}{
		{"good", "/", "", nil, 200},
		{"long URL", "/" + strings.Repeat("a", 17<<10), "", nil, 414},
		{"large head", "/", "", http.Header{"X": {strings.Repeat("a", 40<<10)}}, 431},
		{"many lines", "/", "", http.Header{"X": strings.Split(strings.Repeat("a,", 150), ",")}, 431},
		{"other host", "/", "c.example", nil, 421},
		{"NUL", "/%00", "", nil, 400},
	}
	for _, tt := range tests {
		for name, rt := range map[string]http.RoundTripper{"h2": h2, "h3": h3} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				r, err := http.NewRequestWithContext(listentest.Context(t), "GET", "https://a.example"+tt.path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Host = tt.host
				if tt.header != nil {
					r.Header = tt.header
				}
				resp, err := rt.RoundTrip(r)
				if err != nil && strings.Contains(err.Error(), "advertised limit") {
					return // the client knows our limit and does not even ask
				}
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if resp.StatusCode != tt.want {
					t.Errorf("status %d, want %d", resp.StatusCode, tt.want)
				}
			})
		}
	}
}
