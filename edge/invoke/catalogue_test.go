package invoke_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/edge/fetch"
	"github.com/selvage-edge/selvage/edge/invoke"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// way is one way to fail: a guest, what its client does, and what must come of it.
type way struct {
	kind   fault.Kind
	name   string
	text   string
	limits function.Limits
	limit  string // what the log names besides the kind's own text
	knob   string
	begun  bool                                                                        // the answer breaks off, since it had begun
	drive  func(t *testing.T, n *node, proto string, c http.RoundTripper, path string) // nil: a GET
	only   string                                                                      // the one protocol in which it can happen
	wrap   func(guest.Exchange) guest.Exchange                                         // the node's own failure, for Internal
}

const (
	grows      = `(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)`
	growsTable = `(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) (table.set $t (i32.const 200000) (ref.null func))`
	writeMuch  = `(drop (call $response_write (i32.const 0) (i32.const 40000))) (drop (call $response_flush))`
	readAll    = `(loop $l (br_if $l (i32.gt_s (call $request_read (i32.const 0) (i32.const 65536)) (i32.const 0)))) (drop (call $response_write (i32.const 0) (i32.const 1)))`
)

// ways are the faults of the catalogue, each by a real guest over real connections.
func ways() []way {
	quick := function.Limits{CPU: 20 * time.Millisecond}
	all := []way{
		{kind: fault.CPU, name: "loops", text: handle(`(loop $l (br $l))`), limits: quick, limit: "20ms", knob: "limits.cpu"},
		{kind: fault.CPU, name: "loops-in-start-up", text: `(func (export "selvage_start") (loop $l (br $l)))` + handle(``), limits: quick, limit: "20ms", knob: "limits.cpu"},
		{kind: fault.CPU, name: "floods-cheap-calls", text: handle(`(loop $l (drop (call $clock_now (i32.const 1))) (br $l))`), limits: quick, limit: "20ms", knob: "limits.cpu"},
		{kind: fault.CPU, name: "floods-log", text: handle(`(loop $l (drop (call $log (i32.const 0) (i32.const 0) (i32.const 1000))) (br $l))`), limits: quick, limit: "20ms", knob: "limits.cpu"},
		{kind: fault.CPU, name: "loops-while-streaming", text: handle(writeMuch + `(loop $l (br $l))`), limits: quick, limit: "20ms", knob: "limits.cpu", begun: true},
		{kind: fault.Wall, name: "sleeps", text: handle(`(drop (call $sleep (i64.const 60000000000)))`), limits: function.Limits{Wall: 50 * time.Millisecond}, limit: "50ms", knob: "limits.wall"},
		{kind: fault.Wall, name: "polls-for-ever", text: handle(`(i64.store (i32.const 24) (i64.const -1)) (drop (call $wasi_poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))`),
			limits: function.Limits{Wall: 50 * time.Millisecond}, limit: "50ms", knob: "limits.wall"},
		{kind: fault.Calls, name: "floods-calls", text: handle(`(loop $l (drop (call $kv_open (i32.const 0) (i32.const 0))) (br $l))`),
			limits: function.Limits{HostCalls: 1000, CPU: 10 * time.Second}, limit: "1000 calls", knob: "limits.host_calls"},
		{kind: fault.Calls, name: "floods-flushes", text: handle(`(loop $l (drop (call $response_flush)) (br $l))`),
			limits: function.Limits{HostCalls: 1000, CPU: 10 * time.Second}, limit: "1000 calls", knob: "limits.host_calls", begun: true},
		{kind: fault.Memory, name: "grows", text: handle(grows), limits: function.Limits{MemoryBytes: 4 << 20}, limit: "4194304 bytes", knob: "limits.memory"},
		{kind: fault.Stack, name: "recurses", text: `(func $f (export "handle") (call $f) (call $f))`, limit: "2097152 bytes"},
		{kind: fault.Table, name: "grows-table", text: `(table $t 1 funcref) (func $f) (elem (i32.const 0) $f)` + handle(growsTable), limit: "131072 elements"},
		{kind: fault.Trap, name: "traps", text: handle(`(unreachable)`), limit: "unreachable"},
		{kind: fault.Trap, name: "traps-while-streaming", text: handle(writeMuch + `(unreachable)`), limit: "unreachable", begun: true},
		{kind: fault.Exit, name: "exits", text: handle(`(call $wasi_proc_exit (i32.const 3))`), limit: "proc_exit(3)"},
		{kind: fault.Exit, name: "exits-before-it-answers", text: handle(`(call $wasi_proc_exit (i32.const 0))`), limit: "proc_exit(0)"},
		{kind: fault.NoResponse, name: "never-answers", text: handle(``), limit: "response_head"},
		{kind: fault.Start, name: "too-large-to-start", text: handle(``), limits: function.Limits{MemoryBytes: 64 << 10}, limit: "65536 bytes", knob: "limits.memory"},
		{kind: fault.BodyTooLarge, name: "body-too-large", text: handle(readAll), limits: function.Limits{RequestBody: 1000}, limit: "1000 bytes", knob: "limits.request_body", drive: post(2000)},
		{kind: fault.BodyTooLarge, name: "body-too-large-of-no-length", text: handle(readAll), limits: function.Limits{RequestBody: 1000}, limit: "1000 bytes", knob: "limits.request_body", drive: postOpen},
		{kind: fault.BodyBroken, name: "body-broken", text: handle(readAll), limit: "malformed", drive: postChunks("3\r\nabc\r\nzz\r\n"), only: "h1"},
		{kind: fault.BodyBroken, name: "body-broken-in-an-extension", text: handle(readAll), limit: "chunked", drive: postChunks("5;a\x01\r\nhello\r\n0\r\n\r\n"), only: "h1"},
		{kind: fault.BodySlow, name: "body-slow", text: handle(readAll), limit: "10s", drive: postNothing, only: "h2"}, // it takes its ten seconds
		{kind: fault.Canceled, name: "client-leaves", text: handle(writeMuch + `(drop (call $sleep (i64.const 60000000000)))`), limit: "the client left", begun: true, drive: leave},
		{kind: fault.Busy, name: "busy", text: handle(writeMuch + `(drop (call $sleep (i64.const 60000000000)))`), limits: function.Limits{Concurrency: 1, Queue: 1, QueueWait: 30 * time.Second}, limit: "limit 1", knob: "limits.concurrency", drive: askThrice},
		{kind: fault.Shed, name: "shed", text: handle(writeMuch + `(drop (call $sleep (i64.const 60000000000)))`), limits: function.Limits{Concurrency: 1, QueueWait: 20 * time.Millisecond}, limit: "limit 20ms", knob: "limits.queue_wait", drive: askTwice},
		{kind: fault.Internal, name: "node-fails", text: handle(writeMuch), limit: "the disk is gone", wrap: func(x guest.Exchange) guest.Exchange { return broken{x} }},
	}
	return append(append(all, pointers()...), badAnswers()...)
}

// pointers are lies about where memory is, one for each call that takes a pointer.
func pointers() []way {
	const far = `(i32.const 0x7fffff00)`
	var all []way
	for name, call := range map[string]string{
		"request_head":   far + ` (i32.const 10)`,
		"response_head":  `(i32.const 200) ` + far + ` (i32.const 10)`,
		"response_write": far + ` (i32.const 10)`,
		"log":            `(i32.const 0) ` + far + ` (i32.const 10)`,
		"random":         far + ` (i32.const 10)`,
		"environment":    far + ` (i32.const 10)`,
		"kv_open":        far + ` (i32.const 10)`,
		"kv_get":         `(i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 8) (i32.const 131060)`,
		"kv_ask":         `(i32.const 0) ` + far + ` (i32.const 1)`,
		"kv_take":        `(i32.const 1) (i32.const 0) (i32.const 8) (i32.const 131060)`,
		"kv_list":        `(i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 9) ` + far + ` (i32.const 8)`,
		"fetch_start":    `(i32.const 8) (i32.const -1)`,
		"fetch_write":    `(i32.const 1) ` + far + ` (i32.const 10)`,
		"fetch_head":     `(i32.const 1) ` + far + ` (i32.const 10)`,
		"fetch_read":     `(i32.const 1) ` + far + ` (i32.const 10)`,
		"fetch_trailers": `(i32.const 1) ` + far + ` (i32.const 10)`,
		"fetch_wait":     `(i32.const -4) (i32.const 2) (i64.const 0)`,
		"wait":           `(i32.const -8) (i32.const 2) (i64.const 0)`,
	} {
		all = append(all, way{kind: fault.Pointer, name: "pointer-" + name, text: handle(`(drop (call $` + name + ` ` + call + `))`), limit: "outside"})
	}
	return all
}

// badAnswers are heads that are not HTTP, or would be two answers, and lengths that lie.
func badAnswers() []way {
	var all []way
	for i, h := range [][2]string{
		{"X-A", "b\r\nSet-Cookie: c=d"}, {"X-A", "b\nSet-Cookie: c=d"}, {"X-A", "b\rSet-Cookie: c=d"}, {"X-A", "b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"},
		{"X-A", "b\x00c"}, {"X-A", "b\x7fc"}, {"X-A", "\x01"},
		{"", "b"}, {"X A", "b"}, {"X-A:", "b"}, {"X-A\r\nSet-Cookie", "b"}, {"X-\x00", "b"}, {"X-ä", "b"}, {"(X)", "b"},
		{"Content-Length", "10"}, {"Content-Length", "0"}, {"Content-Length", "-1"}, {"Content-Length", "+1"}, {"Content-Length", "1, 1"}, {"Content-Length", "x"},
		{"Content-Length", "99999999999999999999"},
	} {
		all = append(all, way{kind: fault.BadResponse, name: fmt.Sprintf("header-%d", i), text: answer(200, "x", h[0], h[1])})
	}
	for _, status := range []int{600, 999} {
		all = append(all, way{kind: fault.BadResponse, name: fmt.Sprintf("status-%d", status), text: answer(status, "x"), limit: "status"})
	}
	return append(all,
		way{kind: fault.BadResponse, name: "half-a-list", text: handle(`(drop (call $response_head (i32.const 200) (i32.const 0) (i32.const 5)))`)},
		way{kind: fault.BadResponse, name: "longer-than-it-said", begun: true,
			text: strings.Replace(answer(200, "x", "Content-Length", "3"), `(drop (call $response_write`, `(drop (call $response_write (i32.const 0) (i32.const 2))) (drop (call $response_flush)) (drop (call $response_write (i32.const 0) (i32.const 40000))) (drop (call $response_write`, 1)},
	)
}

// broken is an exchange whose node fails.
type broken struct{ guest.Exchange }

func (broken) WriteBody([]byte) error { return errors.New("the disk is gone") }

// lines keeps what functions log.
type lines struct {
	mu struct {
		sync.Mutex
		text map[string]string // by function
	}
}

func (l *lines) Log(line hostcall.Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.text == nil {
		l.mu.text = map[string]string{}
	}
	l.mu.text[line.Function.Name] += line.Text + "\n"
}

func (l *lines) of(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.text[name]
}

// wrapped is a program whose exchange the test has a hand in.
type wrapped struct {
	*program
	wrap func(guest.Exchange) guest.Exchange
}

func (w wrapped) Invoke(ctx context.Context, ports guest.Ports, x guest.Exchange) (guest.Usage, error) {
	if w.wrap != nil {
		x = w.wrap(x)
	}
	return w.program.Invoke(ctx, ports, x)
}

// deploy makes a route for the guest under its name.
func deploy(t *testing.T, runner *guest.Runner, name, text string, v function.Version, ports guest.Ports, wrap func(guest.Exchange) guest.Exchange) serve.Entry {
	t.Helper()
	p := &program{runner: runner, loaded: guesttest.Program(t, guesttest.Guest(t, text)), version: v}
	p.version.ID = function.ID{Project: "p", Name: name}
	target := &serve.Target{Version: &p.version, Invoker: invoke.New(wrapped{p, wrap}, ports)}
	return serve.Entry{Pattern: host + "/" + name, Owner: p.version.ID.String(), Target: target}
}

// TestEveryFaultHasAGuest walks the catalogue: for each kind there is a guest, or
// more, that fails so, over each version of HTTP; the client sees the kind's
// status, the function's log says the limit and the key, the metric counts.
func TestEveryFaultHasAGuest(t *testing.T) {
	log, runner := &lines{}, guest.NewRunner(runtime.GOMAXPROCS(0), runtime.GOMAXPROCS(0))
	all := ways()
	var entries []serve.Entry
	tested := map[fault.Kind]bool{fault.Capacity: true} // TestAFullNode
	for _, w := range all {
		tested[w.kind] = true
		ports := guest.Ports{Log: log, KV: emptyKV{}}
		v := function.Version{Limits: w.limits, Bindings: function.Bindings{KV: []function.KVBinding{{Name: "links", Namespace: "links"}}}}
		entries = append(entries, deploy(t, runner, w.name, w.text, v, ports, w.wrap))
	}
	for _, k := range fault.Kinds() {
		if !tested[k] {
			t.Errorf("%s: no guest of this test fails so; add one to ways", k)
		}
	}
	n := open(t, limit.New(limit.Config{}), entries)
	for proto, c := range n.clients(t) {
		for _, w := range all {
			if w.only == "" || w.only == proto {
				t.Run(proto+"/"+w.name, func(t *testing.T) { w.check(t, n, log, proto, c) })
			}
		}
	}
	metrics := n.metrics()
	for _, w := range all {
		if want := fmt.Sprintf(`selvage_faults_total{fault="%s",function="%s"`, w.kind, w.name); !strings.Contains(metrics, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
}

func (w *way) check(t *testing.T, n *node, log *lines, proto string, c http.RoundTripper) {
	drive := w.drive
	if drive == nil {
		drive = ask
	}
	status, err := driveOnce(t, drive, n, proto, c, "/"+w.name)
	switch {
	case w.begun && err == nil:
		t.Errorf("the client takes what it got for a whole answer")
	case !w.begun && (err != nil || status != w.kind.Status()):
		t.Errorf("status %d, %v; want %d", status, err, w.kind.Status())
	}
	r := n.failed(t)
	if r["fault"] != w.kind.String() || w.knob != "" && r["fault_knob"] != w.knob {
		t.Errorf("recorded %v", r)
	}
	if text, _ := r["fault_error"].(string); !strings.Contains(text, w.limit) || !strings.Contains(text, w.kind.Text()) || !strings.Contains(text, w.knob) {
		t.Errorf("recorded %q, without %q or %q", text, w.limit, w.knob)
	}
	if w.kind.Shed() || w.kind == fault.Start || w.kind == fault.BodyTooLarge && r["cpu_us"] == float64(0) {
		return // it did not run: the access record alone tells
	}
	if text := log.of(w.name); !strings.Contains(text, w.kind.Text()) || !strings.Contains(text, w.limit) {
		t.Errorf("the function's log says %q, without %q", text, w.limit)
	}
}

// outcome is carried out of drive by ask and its like.
type outcome struct {
	status int
	err    error
}

func driveOnce(t *testing.T, drive func(*testing.T, *node, string, http.RoundTripper, string), n *node, proto string, c http.RoundTripper, path string) (int, error) {
	t.Helper()
	n.last = outcome{}
	drive(t, n, proto, c, path)
	return n.last.status, n.last.err
}

func ask(t *testing.T, n *node, _ string, c http.RoundTripper, path string) {
	n.send(c, request(t.Context(), t, "GET", path, nil))
}

// send sends r and notes what came of it.
func (n *node) send(c http.RoundTripper, r *http.Request) {
	res, err := c.RoundTrip(r)
	if err != nil {
		n.last.err = err
		return
	}
	defer res.Body.Close()
	_, err = io.ReadAll(res.Body)
	n.last = outcome{res.StatusCode, err}
	if res.Header.Get("Set-Cookie") != "" {
		n.last.err = errors.New("the response was split")
	}
}

func post(size int64) func(*testing.T, *node, string, http.RoundTripper, string) {
	return func(t *testing.T, n *node, _ string, c http.RoundTripper, path string) {
		r := request(t.Context(), t, "POST", path, io.LimitReader(ones{}, size))
		r.ContentLength = size
		n.send(c, r)
	}
}

func postOpen(t *testing.T, n *node, _ string, c http.RoundTripper, path string) {
	n.send(c, request(t.Context(), t, "POST", path, io.LimitReader(ones{}, 2000)))
}

// postNothing begins a body and sends none of it.
func postNothing(t *testing.T, n *node, _ string, c http.RoundTripper, path string) {
	body, w := io.Pipe()
	defer w.Close()
	n.send(c, request(t.Context(), t, "POST", path, body))
}

// postChunks speaks HTTP/1.1 by hand.
func postChunks(chunks string) func(*testing.T, *node, string, http.RoundTripper, string) {
	return func(t *testing.T, n *node, _ string, _ http.RoundTripper, path string) { n.sendChunks(t, path, chunks) }
}

func (n *node) sendChunks(t *testing.T, path, chunks string) {
	t.Helper()
	conn, err := n.dialTLS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n%s", path, host, chunks)
	text, err := io.ReadAll(conn)
	_, _ = fmt.Sscanf(string(text), "HTTP/1.1 %d", &n.last.status)
	if n.last.status == 0 {
		n.last.err = err
	}
}

// leave reads a byte and goes away.
func leave(t *testing.T, n *node, _ string, c http.RoundTripper, path string) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	res, err := c.RoundTrip(request(ctx, t, "GET", path, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := res.Body.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_, n.last.err = io.ReadAll(res.Body)
}

// askTwice holds one request open while it makes another.
func askTwice(t *testing.T, n *node, _ string, c http.RoundTripper, path string) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	res, err := c.RoundTrip(request(ctx, t, "GET", path, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	n.send(c, request(t.Context(), t, "GET", path, nil))
}

// askThrice holds one request open and has another wait while it makes a third.
func askThrice(t *testing.T, n *node, proto string, c http.RoundTripper, path string) {
	ctx, cancel := context.WithCancel(t.Context())
	var waits sync.WaitGroup
	defer waits.Wait()
	defer cancel()
	res, err := c.RoundTrip(request(ctx, t, "GET", path, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	waits.Go(func() {
		if res, err := c.RoundTrip(request(ctx, t, "GET", path, nil)); err == nil {
			res.Body.Close()
		}
	})
	for n.limiter.Stats().Waiting == 0 {
		time.Sleep(time.Millisecond)
	}
	n.send(c, request(t.Context(), t, "GET", path, nil))
}

// failed is the next record with a fault in it, but for that of a request that askTwice or askThrice holds open.
func (n *node) failed(t *testing.T) map[string]any {
	t.Helper()
	for {
		r := n.record(t)
		if r["fault"] != nil && !((r["function"] == "busy" || r["function"] == "shed") && r["fault"] == "canceled") {
			return r
		}
	}
}

func (n *node) metrics() string {
	w := httptest.NewRecorder()
	n.telemetry.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// TestAFullNode: over the node's own limit a request is told to come back.
func TestAFullNode(t *testing.T) {
	runner := guest.NewRunner(1, 1)
	n := open(t, limit.New(limit.Config{Node: 1, Queue: -1}), []serve.Entry{
		deploy(t, runner, "holds", handle(writeMuch+`(drop (call $sleep (i64.const 60000000000)))`), function.Version{}, guest.Ports{}, nil),
	})
	for proto, c := range n.clients(t) {
		n.last = outcome{}
		askTwice(t, n, proto, c, "/holds")
		if n.last.status != fault.Capacity.Status() {
			t.Errorf("%s: %+v", proto, n.last)
		}
		if r := n.record(t); r["fault"] != "capacity" || r["fault_knob"] == "" {
			t.Errorf("recorded %v", r)
		}
		n.record(t) // of the one that was held
	}
}

// emptyKV has no keys.
type emptyKV struct{ hostcall.KV }

func (emptyKV) Get(context.Context, hostcall.Namespace, string) (hostcall.Entry, error) {
	return hostcall.Entry{}, hostcall.ErrNotFound
}

// refusal is a guest that is refused once, or more, and answers with the status it read.
type refusal struct {
	kind   fault.Refusal
	text   string
	limits function.Limits
	status int32
	said   []string
}

// subrequest lays a fetch request down at 600 and defines $start, which sends it.
func subrequest(method, url string, headers ...native.Pair) string {
	b := native.AppendPairs(native.AppendString(native.AppendString(nil, method), url), headers)
	b = append(b, 0, 0, 0, 0)
	var text strings.Builder
	for _, c := range b {
		fmt.Fprintf(&text, "\\%02x", c)
	}
	return fmt.Sprintf(`(data (i32.const 600) "%s") (func $start (result i32) (call $fetch_start (i32.const 600) (i32.const %d)))`, text.String(), len(b))
}

// tells is a handle that answers with a status: the value of call.
func tells(before, call string) string {
	return handle(`(local $a i32) ` + before + ` (i32.store (i32.const 0) ` + call + `) (drop (call $response_write (i32.const 0) (i32.const 4)))`)
}

func refused(backend string) []refusal {
	const get = `(call $kv_get (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200) (i32.const 5) (i32.const 300))`
	const head = `(call $fetch_head (call $start) (i32.const 2000) (i32.const 1000))`
	one := function.Limits{Subrequests: 1, SubrequestsNow: 1}
	return []refusal{
		{fault.LogFull, tells(`(drop (call $log (i32.const 0) (i32.const 0) (i32.const 200)))`, `(i32.const 0)`), function.Limits{LogBytes: 100}, 0, []string{"100 bytes", "limits.log"}},
		{fault.SecondHead, tells(`(drop (call $response_head (i32.const 200) (i32.const 0) (i32.const 0)))`, `(call $response_head (i32.const 404) (i32.const 0) (i32.const 0))`), function.Limits{}, -10, nil},
		{fault.LargeHead, tells(``, `(call $response_head (i32.const 200) (i32.const 0) (i32.const 1001))`), function.Limits{ResponseHead: 1000}, -6, []string{"1000 bytes", "limits.response_head"}},
		{fault.Subrequests, subrequest("GET", backend) + tells(`(drop (call $fetch_close (call $start)))`, `(call $start)`), one, -8, []string{"limit 1", "limits.subrequests"}},
		{fault.SubrequestsNow, subrequest("GET", backend) + tells(`(drop (call $start))`, `(call $start)`), function.Limits{SubrequestsNow: 1}, -8, []string{"limit 1", "limits.subrequests_now"}},
		{fault.NotBound, subrequest("GET", "https://elsewhere.example") + tells(``, head), function.Limits{}, -3, []string{"https://elsewhere.example", "selvage.toml"}},
		{fault.Address, subrequest("GET", "http://127.0.0.1:9999") + tells(``, head), function.Limits{}, -3, []string{"127.0.0.1:9999", "private"}},
		{fault.BadSubrequest, subrequest("GET", backend, native.Pair{Name: "X-A", Value: "b\r\nHost: c"}) + tells(``, `(call $start)`), function.Limits{}, -1, []string{"X-A"}},
		{fault.LargeAnswer, subrequest("GET", backend+"/large") + tells(`(local.set $a (call $start)) (drop (call $fetch_read (local.get $a) (i32.const 2000) (i32.const 100)))`,
			`(call $fetch_read (local.get $a) (i32.const 2000) (i32.const 1000))`), function.Limits{SubrequestBody: 500}, -6, []string{"500 bytes", "limits.subrequest_body"}},
		{fault.Ended, tells(``, `(call $fetch_read (i32.const 7) (i32.const 2000) (i32.const 10))`), function.Limits{}, -1, []string{"subrequest 7"}},
		{fault.BadWait, tells(``, `(call $wait (i32.const 0) (i32.const 1) (i64.const 0))`), function.Limits{}, -1, []string{"entry 0 waits for 0x0"}},
		{fault.KVOperations, tells(`(drop `+get+`)`, get), function.Limits{KVOperations: 1}, -8, []string{"limit 1", "limits.kv_operations"}},
		{fault.KVNow, tells(`(loop $l (drop (call $kv_ask (i32.const 0) (i32.const 100) (i32.const 1))) (local.set $a (i32.add (local.get $a) (i32.const 1)))
			(br_if $l (i32.lt_u (local.get $a) (i32.const 32))))`, `(call $kv_ask (i32.const 0) (i32.const 100) (i32.const 1))`), function.Limits{}, -8, []string{"limit 32"}},
		{fault.KVDenied, `(data (i32.const 100) "orders")` + tells(``, `(call $kv_open (i32.const 100) (i32.const 6))`), function.Limits{}, -3, []string{`"orders"`, "kv"}},
	}
}

// TestEveryRefusalHasAGuest walks the refusals: the guest reads the status, its
// log says why, the record and the metric count, and the client is answered.
func TestEveryRefusalHasAGuest(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush() // no length is known
		if r.URL.Path == "/large" {
			_, _ = io.CopyN(w, ones{}, 1000)
		}
	}))
	t.Cleanup(origin.Close)
	out, err := fetch.New(fetch.Config{Allow: loopback})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(out.Close)
	log, runner, all := &lines{}, guest.NewRunner(runtime.GOMAXPROCS(0), runtime.GOMAXPROCS(0)), refused(origin.URL)
	var entries []serve.Entry
	for _, r := range all {
		v := function.Version{Limits: r.limits, Bindings: function.Bindings{
			KV:       []function.KVBinding{{Name: "links", Namespace: "links"}},
			Backends: []function.Backend{{Name: "origin", URL: origin.URL, Private: true}, {Name: "inside", URL: "http://127.0.0.1:9999"}},
		}}
		entries = append(entries, deploy(t, runner, r.kind.String(), r.text, v, guest.Ports{Log: log, KV: emptyKV{}, Fetch: out}, nil))
	}
	n := open(t, limit.New(limit.Config{}), entries)
	c := n.clients(t)["h2"]
	for _, r := range all {
		t.Run(r.kind.String(), func(t *testing.T) { r.check(t, n, log, c) })
	}
	metrics := n.metrics()
	for _, k := range fault.Refusals() {
		if !slices.ContainsFunc(all, func(r refusal) bool { return r.kind == k }) {
			t.Errorf("%s: no guest of this test is refused so; add one to refused", k)
		}
		if want := fmt.Sprintf(`selvage_refused_calls_total{function="%s"`, k); !strings.Contains(metrics, want) || !strings.Contains(metrics, fmt.Sprintf(`refusal="%s"`, k)) {
			t.Errorf("the metrics have no %s", want)
		}
	}
}

func (r *refusal) check(t *testing.T, n *node, log *lines, c http.RoundTripper) {
	res, err := c.RoundTrip(request(t.Context(), t, "GET", "/"+r.kind.String(), nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || len(body) != 4 || int32(binary.LittleEndian.Uint32(body)) != r.status {
		t.Errorf("got %d %x, %v; want status %d in it", res.StatusCode, body, err, r.status)
	}
	rec := n.record(t)
	counts, _ := rec["refused_calls"].(map[string]any)
	if counts[r.kind.String()] != float64(1) || rec["fault"] != nil {
		t.Errorf("recorded %v", rec)
	}
	text := log.of(r.kind.String())
	for _, want := range append(r.said, "refused "+r.kind.Text()) {
		if !strings.Contains(text, want) {
			t.Errorf("the function's log says %q, without %q", text, want)
		}
	}
}
