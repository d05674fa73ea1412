package invoke_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/selvage-edge/selvage/edge/invoke"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/listen"
	"github.com/selvage-edge/selvage/edge/listen/listentest"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

const host = "node.example"

// program is one guest, loaded.
type program struct {
	runner  *guest.Runner
	loaded  *engine.Program
	version function.Version
}

func (p *program) Version() *function.Version { return &p.version }

func (p *program) Invoke(ctx context.Context, ports guest.Ports, x guest.Exchange) (guest.Usage, error) {
	return p.runner.Run(ctx, p.loaded, &p.version, ports, x)
}

// node is a listening server whose routes lead to guests.
type node struct {
	limiter *limit.Limiter
	sockets listentest.Sockets
	tls     *tls.Config
	records chan map[string]any // the access log

	telemetry *telemetry.Telemetry
	last      outcome
}

// Write takes a line of the access log.
func (n *node) Write(p []byte) (int, error) {
	var record map[string]any
	if err := json.Unmarshal(p, &record); err != nil {
		return 0, err
	}
	n.records <- record
	return len(p), nil
}

// awaits has the request's body read ahead.
const awaits = `(i32.store (i32.const 70004) (i32.const 1)) (drop (call $wait (i32.const 70000) (i32.const 1) (i64.const 0)))`

// guests are the bodies of handle, by path.
var guests = map[string]struct {
	text   string
	limits function.Limits
}{
	"/hello": {text: `(data (i32.const 8) "hello")` + handle(`(drop (call $response_write (i32.const 8) (i32.const 5)))`)},
	"/echo": {text: handle(`(local $n i32)
		(loop $l
			(local.set $n (call $request_read (i32.const 0) (i32.const 65536)))
			(if (i32.gt_s (local.get $n) (i32.const 0)) (then
				(drop (call $response_write (i32.const 0) (local.get $n)))
				(br $l))))`), limits: function.Limits{CPU: 30 * time.Second, Wall: 5 * time.Minute}},
	"/echo-behind": {text: handle(`(local $n i32)
		(i32.store (i32.const 70004) (i32.const 1)) (i32.store (i32.const 70012) (i32.const 2))
		(loop $l
			(drop (call $wait (i32.const 70000) (i32.const 1) (i64.const -1)))
			(local.set $n (call $request_read (i32.const 0) (i32.const 65536)))
			(if (i32.gt_s (local.get $n) (i32.const 0)) (then
				(drop (call $wait (i32.const 70008) (i32.const 1) (i64.const -1)))
				(drop (call $response_write (i32.const 0) (local.get $n)))
				(br $l))))`), limits: function.Limits{CPU: 30 * time.Second, Wall: 5 * time.Minute}},
	"/awaits":       {text: handle(awaits + `(drop (call $response_write (i32.const 0) (i32.const 5)))`)},
	"/awaits-much":  {text: handle(awaits + `(drop (call $response_write (i32.const 0) (i32.const 16000)))`)},
	"/awaits-more":  {text: handle(awaits + `(drop (call $response_write (i32.const 0) (i32.const 40000)))`)},
	"/awaits-traps": {text: handle(awaits + `(unreachable)`)},

	"/split":  {text: answer(200, "x", "X-A", "b\r\nSet-Cookie: c=d")},
	"/short":  {text: answer(200, "x", "Content-Length", "10")},
	"/status": {text: answer(700, "x")},
	"/none":   {text: handle(``)},
	"/trap":   {text: handle(`(unreachable)`)},
	"/spin":   {text: handle(`(loop $l (br $l))`)},
	"/half":   {text: handle(`(drop (call $response_write (i32.const 0) (i32.const 40000))) (unreachable)`)},
	"/reader": {text: handle(`(drop (call $request_read (i32.const 0) (i32.const 100)))`), limits: function.Limits{Wall: 50 * time.Millisecond}},
	"/writer": {text: handle(`(loop $l (drop (call $response_write (i32.const 0) (i32.const 65536))) (br $l))`),
		limits: function.Limits{Wall: 300 * time.Millisecond, CPU: 20 * time.Second}},
	"/sleep": {text: handle(`(drop (call $response_write (i32.const 0) (i32.const 1))) (drop (call $response_flush)) (drop (call $sleep (i64.const 60000000000)))`)},
}

func handle(body string) string { return `(func (export "handle") ` + body + `)` }

// answer is a guest that answers with one header.
func answer(status int, body string, header ...string) string {
	var pairs []native.Pair
	if len(header) > 0 {
		pairs = append(pairs, native.Pair{Name: header[0], Value: header[1]})
	}
	list := native.AppendPairs(nil, pairs)
	var text strings.Builder
	for _, c := range list {
		fmt.Fprintf(&text, "\\%02x", c)
	}
	return fmt.Sprintf(`(data (i32.const 100) "%s") (data (i32.const 8) %q)`, text.String(), body) + handle(fmt.Sprintf(`
		(drop (call $response_head (i32.const %d) (i32.const 100) (i32.const %d)))
		(drop (call $response_write (i32.const 8) (i32.const %d)))`, status, len(list), len(body)))
}

func start(t *testing.T) *node {
	t.Helper()
	return open(t, limit.New(limit.Config{}), entries(t))
}

// loopback is where backends of tests are.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// open serves the entries.
func open(t *testing.T, l *limit.Limiter, all []serve.Entry) *node {
	t.Helper()
	n := &node{limiter: l, sockets: listentest.Open(t), records: make(chan map[string]any, 100)}
	n.telemetry = telemetry.New(telemetry.Config{Log: telemetry.Direct{W: n}})
	h, err := serve.New(serve.Config{Limiter: l, Telemetry: n.telemetry})
	if err != nil {
		t.Fatal(err)
	}
	table, err := route.Build(all)
	if err != nil {
		t.Fatal(err)
	}
	h.SetRoutes(table)
	store, client := listentest.Certificates(t, host)
	n.tls = client
	listentest.Start(t, n.sockets, listen.Config{Certificate: store.Get, Handler: h, Linger: 200 * time.Millisecond})
	return n
}

// dialTLS opens a connection that speaks HTTP/1.1.
func (n *node) dialTLS(ctx context.Context) (net.Conn, error) {
	conf := n.tls.Clone()
	conf.NextProtos = []string{"http/1.1"}
	return (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", n.sockets.Addr())
}

func entries(t *testing.T) []serve.Entry {
	t.Helper()
	runner := guest.NewRunner(runtime.GOMAXPROCS(0), runtime.GOMAXPROCS(0))
	var entries []serve.Entry
	for path, g := range guests {
		p := &program{runner: runner, loaded: guesttest.Program(t, guesttest.Guest(t, g.text))}
		p.version = function.Version{ID: function.ID{Project: "p", Name: path[1:]}, Limits: g.limits}
		target := &serve.Target{Version: &p.version, Invoker: invoke.New(p, guest.Ports{KV: hostcall.KV(nil)})}
		entries = append(entries, serve.Entry{Pattern: host + path, Owner: p.version.ID.String(), Target: target})
	}
	return entries
}

// clients are one per protocol.
func (n *node) clients(t *testing.T) map[string]http.RoundTripper {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, n.sockets.Addr())
	}
	clients := map[string]http.RoundTripper{}
	for _, major := range []int{1, 2} {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(major == 1)
		protocols.SetHTTP2(major == 2)
		c := &http.Transport{TLSClientConfig: n.tls.Clone(), Protocols: protocols, DialContext: dial}
		t.Cleanup(c.CloseIdleConnections)
		clients[fmt.Sprintf("h%d", major)] = c
	}
	h3 := &http3.Transport{TLSClientConfig: n.tls, Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
		return quic.DialAddr(ctx, n.sockets.Addr(), tc, qc)
	}}
	t.Cleanup(func() { _ = h3.Close() })
	clients["h3"] = h3
	return clients
}

func each(t *testing.T, f func(t *testing.T, n *node, c http.RoundTripper)) {
	n := start(t)
	for name, c := range n.clients(t) {
		t.Run(name, func(t *testing.T) { f(t, n, c) })
	}
}

func request(ctx context.Context, t *testing.T, method, path string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, "https://"+host+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// record waits for the access record of the exchange just made.
func (n *node) record(t *testing.T) map[string]any {
	t.Helper()
	select {
	case r := <-n.records:
		return r
	case <-time.After(time.Minute):
		t.Fatal("no access record")
		return nil
	}
}

func TestGuestsOverHTTP(t *testing.T) {
	each(t, func(t *testing.T, n *node, c http.RoundTripper) {
		for _, w := range []struct {
			path   string
			status int
			fault  any
		}{
			{"/hello", 200, nil},
			{"/split", 500, "bad-response"},
			{"/short", 500, "bad-response"},
			{"/status", 500, "bad-response"},
			{"/none", 500, "no-response"},
			{"/trap", 500, "trap"},
			{"/spin", 504, "cpu"},
		} {
			res, err := c.RoundTrip(request(t.Context(), t, "GET", w.path, nil))
			if err != nil {
				t.Fatal(w.path, err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode != w.status || w.status == 200 && string(body) != "hello" {
				t.Errorf("%s: got %d %q, %v", w.path, res.StatusCode, body, err)
			}
			if res.Header.Get("Set-Cookie") != "" {
				t.Errorf("%s: the response was split", w.path)
			}
			if r := n.record(t); r["fault"] != w.fault {
				t.Errorf("%s: recorded %v", w.path, r)
			}
		}
	})
}

func TestGuestsStreamBothWays(t *testing.T) {
	t.Run("in turn", func(t *testing.T) { streamBothWays(t, "/echo") })
	t.Run("behind", func(t *testing.T) { streamBothWays(t, "/echo-behind") })
}

func streamBothWays(t *testing.T, path string) {
	const size = 64 << 20
	each(t, func(t *testing.T, n *node, c http.RoundTripper) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		r := request(t.Context(), t, "POST", path, io.LimitReader(ones{}, size))
		res, err := c.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		got := counter{last: time.Now()}
		sum, err := io.Copy(&got, res.Body)
		if err != nil || sum != size {
			t.Errorf("%d bytes came back, %v", sum, err)
		}
		t.Logf("at most nothing for %v", got.gap)
		if got.gap > 20*time.Second { // a slow machine is slow throughout; this is a stall
			t.Errorf("nothing came for %v", got.gap)
		}
		runtime.ReadMemStats(&after)
		if after.HeapSys > before.HeapSys+32<<20 {
			t.Errorf("the heap grew by %d bytes", after.HeapSys-before.HeapSys)
		}
		if rec := n.record(t); rec["fault"] != nil {
			t.Errorf("recorded %v", rec)
		}
	})
}

type ones struct{}

func (ones) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 1
	}
	return len(p), nil
}

// counter fails on any byte that is not 1, and notes the longest time without any.
type counter struct {
	last time.Time
	gap  time.Duration
}

func (c *counter) Write(p []byte) (int, error) {
	now := time.Now()
	c.gap, c.last = max(c.gap, now.Sub(c.last)), now
	for _, b := range p {
		if b != 1 {
			return 0, fmt.Errorf("byte %d came back", b)
		}
	}
	return len(p), nil
}

func TestHalfAnAnswerIsBrokenOff(t *testing.T) {
	each(t, func(t *testing.T, n *node, c http.RoundTripper) {
		res, err := c.RoundTrip(request(t.Context(), t, "GET", "/half", nil))
		if err == nil {
			defer res.Body.Close()
			_, err = io.ReadAll(res.Body)
		}
		if err == nil {
			t.Error("the client takes half an answer for a whole one")
		}
		if r := n.record(t); r["fault"] != "trap" {
			t.Errorf("recorded %v", r)
		}
	})
}

func TestWallEndsAReadAndIsAnswered(t *testing.T) {
	each(t, func(t *testing.T, n *node, c http.RoundTripper) {
		body, w := io.Pipe()
		defer w.Close()
		go func() { _, _ = io.WriteString(w, "") }()
		res, err := c.RoundTrip(request(t.Context(), t, "POST", "/reader", body))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 504 {
			t.Errorf("got %d", res.StatusCode)
		}
		if r := n.record(t); r["fault"] != "wall" {
			t.Errorf("recorded %v", r)
		}
	})
}

func TestWallEndsAWriteToAClientThatDoesNotRead(t *testing.T) {
	each(t, func(t *testing.T, n *node, c http.RoundTripper) {
		begin := time.Now()
		res, err := c.RoundTrip(request(t.Context(), t, "GET", "/writer", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if r := n.record(t); r["fault"] != "wall" {
			t.Errorf("recorded %v", r)
		}
		if took := time.Since(begin); took > 20*time.Second { // not by what else would end it: the default of 30 s
			t.Errorf("it took %v", took)
		}
	})
}

func TestClientGoneEndsTheGuest(t *testing.T) {
	each(t, func(t *testing.T, n *node, c http.RoundTripper) {
		ctx, leave := context.WithCancel(t.Context())
		res, err := c.RoundTrip(request(ctx, t, "GET", "/sleep", nil))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := bufio.NewReader(res.Body).ReadByte(); err != nil {
			t.Fatal(b, err)
		}
		leave()
		res.Body.Close()
		if r := n.record(t); r["fault"] != "canceled" {
			t.Errorf("recorded %v", r)
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	each(t, func(t *testing.T, n *node, c http.RoundTripper) {
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				res, err := c.RoundTrip(request(t.Context(), t, "POST", "/echo", strings.NewReader("some bytes")))
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				if b, err := io.ReadAll(res.Body); string(b) != "some bytes" || err != nil {
					t.Errorf("got %q, %v", b, err)
				}
			})
		}
		all.Wait()
		for range 50 {
			n.record(t)
		}
	})
}

// TestAnswersWhileTheBodyIsAwaited: a client that sends none of its request is
// answered in full, though the node is reading ahead of the guest.
func TestAnswersWhileTheBodyIsAwaited(t *testing.T) {
	each(t, func(t *testing.T, n *node, c http.RoundTripper) {
		for _, w := range []struct {
			path         string
			status, size int
		}{{"/awaits", 200, 5}, {"/awaits-much", 200, 16000}, {"/awaits-more", 200, 40000}, {"/awaits-traps", 500, -1}} {
			never, end := io.Pipe()
			defer time.AfterFunc(time.Minute, func() { end.Close() }).Stop() // or net/http waits for it when it failed
			res, err := c.RoundTrip(request(t.Context(), t, "POST", w.path, never))
			if err != nil {
				t.Fatal(w.path, err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			end.Close()
			if err != nil || res.StatusCode != w.status || w.size >= 0 && len(body) != w.size {
				t.Errorf("%s: got %d, %d bytes, %v", w.path, res.StatusCode, len(body), err)
			}
			n.record(t)
		}
	})
}
