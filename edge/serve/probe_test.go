package serve_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/selvage-edge/selvage/edge/guard"
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
		if r.URL.Path == "/names" {
			_, err := io.WriteString(w, strings.Join(slices.Sorted(maps.Keys(r.Header)), " "))
			return serve.Usage{}, err
		}
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

const lastOK = `GET a.example/last ""`

// post is a POST with the given fields and what follows the head.
func post(version, fields, rest string) string {
	return "POST / HTTP/" + version + "\r\nHost: a.example\r\n" + fields + "\r\n" + rest + last
}

// get is a GET with the given request line and fields, then last.
func get(line, fields string) string { return line + "\r\n" + fields + "\r\n" + last }

// The probes: what net/http by itself lets through, or once did, and what comes
// of each here: the answers on the connection, in order. After a refusal nothing
// more is answered: what follows could be read in two ways.
var probes = []struct{ name, in, want string }{
	{"TE and CL", post("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"), "400"},
	{"CL and TE", post("1.1", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "400"},
	{"TE xchunked", post("1.1", "Transfer-Encoding: xchunked\r\n", ""), "501"},
	{"TE twice", post("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "501"},
	{"TE list", post("1.1", "Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), "501"},
	{"TE before its colon a space", post("1.1", "Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), "400"},
	{"TE on 1.0", post("1.0", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), "400"},
	{"CL twice, equal", post("1.1", "Content-Length: 4\r\nContent-Length: 4\r\n", "body"), "400"},
	{"CL twice, different", post("1.1", "Content-Length: 4\r\nContent-Length: 5\r\n", "body"), "400"},
	{"CL +4", post("1.1", "Content-Length: +4\r\n", "body"), "400"},
	{"CL 4, 4", post("1.1", "Content-Length: 4, 4\r\n", "body"), "400"},
	{"bare LF in the head", "GET / HTTP/1.1\nHost: a.example\n\n" + last, "400"},
	{"folded field", get("GET / HTTP/1.1", "Host: a.example\r\nX: a\r\n b\r\n"), "400"},
	{"bare LF after a chunk size", post("1.1", "Transfer-Encoding: chunked\r\n", "2\nhi\r\n0\r\n\r\n"), "400"},
	{"garbage after a chunk", post("1.1", "Transfer-Encoding: chunked\r\n", "2\r\nhiXX\r\n0\r\n\r\n"), "400"},
	{"two hosts", get("GET / HTTP/1.1", "Host: a.example\r\nHost: b.example\r\n"), "400"},
	{"no host", get("GET / HTTP/1.1", ""), "400"},
	{"user in the host", get("GET / HTTP/1.1", "Host: x@a.example\r\n"), "400"},
	{"absolute form elsewhere", get("GET https://c.example/ HTTP/1.1", "Host: a.example\r\n"), "421, " + lastOK},
	{"port that is none", get("GET / HTTP/1.1", "Host: a.example:80x\r\n"), "400, " + lastOK},
	{"host in capitals with a dot", get("GET / HTTP/1.1", "Host: B.EXAMPLE.\r\n"), `GET b.example/ "", ` + lastOK},
	{"dots and slashes", get("GET /a/../b//c/%2e%2e/%2Fd HTTP/1.1", "Host: a.example\r\n"), `GET a.example/b/%2Fd "", ` + lastOK},
	{"NUL in the path", get("GET /%00 HTTP/1.1", "Host: a.example\r\n"), "400, " + lastOK},
	{"fragment", get("GET /a#b HTTP/1.1", "Host: a.example\r\n"), "400, " + lastOK},
	{"Expect of more than one word", post("1.1", "Expect: y 100-continue\r\nContent-Length: 2\r\n", "hi"), "417"},
	{"underscore for a hyphen", get("GET /names HTTP/1.1", "Host: a.example\r\nX_Forwarded_For: 1\r\nX-Forwarded-For: 2\r\n"), "X-Forwarded-For, " + lastOK},
	{"50,000 lines", "GET / HTTP/1.1\r\nHost: a.example\r\n" + strings.Repeat("X: y\r\n", 50000) + "\r\n", "431"},
	{"129 lines", get("GET / HTTP/1.1", "Host: a.example\r\n"+strings.Repeat("X: y\r\n", 128)), "431"},
	{"one line of 40 KiB", get("GET / HTTP/1.1", "Host: a.example\r\nX: "+strings.Repeat("a", 40<<10)+"\r\n"), "431"},
	{"URL of 17 KiB", get("GET /"+strings.Repeat("a", 17<<10)+" HTTP/1.1", "Host: a.example\r\n"), "414"},
	{"HTTP/1.9", get("GET / HTTP/1.9", "Host: a.example\r\n"), "505"},
	{"method in lower case", get("get / HTTP/1.1", "Host: a.example\r\n"), "400"},
	{"preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + last, "400"},
	{"upgrade to h2c", get("GET / HTTP/1.1", "Host: a.example\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"),
		`GET a.example/ "", ` + lastOK},
}

// more is what must work, and what else must not.
var more = []struct{ name, in, want string }{
	{"good", get("GET /x?y=1 HTTP/1.1", "Host: A.example\r\n"), `GET a.example/x?y=1 "", ` + lastOK},
	{"body", post("1.1", "Content-Length: 2\r\n", "hi"), `POST a.example/ "hi", ` + lastOK},
	{"chunks", post("1.1", "Transfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"), `POST a.example/ "hi", ` + lastOK},
	{"128 lines", get("GET / HTTP/1.1", "Host: a.example\r\n"+strings.Repeat("X: y\r\n", 127)), `GET a.example/ "", ` + lastOK},
	{"host of another certificate", get("GET / HTTP/1.1", "Host: c.example\r\n"), "421, " + lastOK},
	{"unknown host", get("GET / HTTP/1.1", "Host: z.example\r\n"), "421, " + lastOK},
	{"connect", get("CONNECT a.example:443 HTTP/1.1", "Host: a.example:443\r\n"), "501, " + lastOK},
}

func TestProbes(t *testing.T) {
	if len(probes) != 34 {
		t.Errorf("%d probes, want 34", len(probes))
	}
	e := startEdge(t)
	for _, tt := range append(slices.Clone(probes), more...) {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(e.probe(t, tt.in), ", "); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestLimitsOnEveryProtocol: the limits of a head are the same over HTTP/1, 2 and
// 3, to the byte and the line, and so is what is dropped of it.
func TestLimitsOnEveryProtocol(t *testing.T) {
	e := startEdge(t)
	lines := func(n int) http.Header { return http.Header{"X": strings.Split(strings.Repeat("a,", n-1)+"a", ",")} }
	tests := []struct {
		name   string
		path   string
		host   string
		header http.Header
		want   string
	}{
		{"good", "/", "", nil, `200 GET a.example/ ""`},
		{"longest URL", "/" + strings.Repeat("a", guard.MaxURLBytes-1), "", nil, "200"},
		{"long URL", "/" + strings.Repeat("a", guard.MaxURLBytes), "", nil, "414"},
		{"most lines", "/", "", lines(guard.MaxHeadLines - 1), "200"}, // the host is one
		{"many lines", "/", "", lines(guard.MaxHeadLines), "431"},
		{"a field of 31 KiB", "/", "", http.Header{"X": {strings.Repeat("a", 31<<10)}}, "200"},
		{"a field of 33 KiB", "/", "", http.Header{"X": {strings.Repeat("a", 33<<10)}}, "431"},
		{"other host", "/", "c.example", nil, "421"},
		{"host that is none", "/", "a.example:80x", nil, "400"},
		{"NUL", "/%00", "", nil, "400"},
		{"expect", "/", "", http.Header{"Expect": {"y 100-continue"}}, "417"},
		{"untrusted names", "/names", "", http.Header{"X_Under": {"1"}, "Selvage-Verdict": {"1"}, "X-Stays": {"1"}}, "200 X-Stays"},
	}
	for name, rt := range e.clients(t) {
		for _, tt := range tests {
			t.Run(name+"/"+tt.name, func(t *testing.T) {
				if got := e.ask(t, rt, tt.path, tt.host, tt.header); !strings.HasPrefix(got, tt.want) {
					t.Errorf("got %.200s, want %s", got, tt.want)
				}
			})
		}
	}
}

// ask returns status and body.
func (e *edge) ask(t *testing.T, rt http.RoundTripper, path, host string, header http.Header) string {
	t.Helper()
	r, err := http.NewRequestWithContext(listentest.Context(t), "GET", "https://a.example"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	if header != nil {
		r.Header = header
	}
	r.Header["User-Agent"] = nil // what the test does not say is not sent
	resp, err := rt.RoundTrip(r)
	if err != nil && strings.Contains(err.Error(), "advertised limit") {
		return "431" // the client knows our limit and does not even ask
	}
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(resp.StatusCode, " ", string(body))
}

// clients are one per protocol.
func (e *edge) clients(t *testing.T) map[string]http.RoundTripper {
	clients := map[string]http.RoundTripper{}
	for name, set := range map[string]func(p *http.Protocols){"h1": func(p *http.Protocols) { p.SetHTTP1(true) }, "h2": func(p *http.Protocols) { p.SetHTTP2(true) }} {
		p := new(http.Protocols)
		set(p)
		c := &http.Transport{TLSClientConfig: e.tls.Clone(), Protocols: p, DisableCompression: true,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, e.addr)
			}}
		t.Cleanup(c.CloseIdleConnections)
		clients[name] = c
	}
	h3 := &http3.Transport{TLSClientConfig: e.tls, DisableCompression: true,
		Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, e.addr, tc, qc)
		}}
	t.Cleanup(func() { _ = h3.Close() })
	clients["h3"] = h3
	return clients
}
