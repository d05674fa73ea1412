package serve_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
)

// invoker is a function of the test's own.
type invoker func(ctx context.Context, w http.ResponseWriter, r *http.Request, m serve.Meta) (serve.Usage, error)

func (f invoker) Invoke(ctx context.Context, w http.ResponseWriter, r *http.Request, m serve.Meta) (serve.Usage, error) {
	return f(ctx, w, r, m)
}

// node is a Handler with its log.
type node struct {
	*serve.Handler
	limiter *limit.Limiter
	tel     *telemetry.Telemetry
	mu      sync.Mutex
	log     bytes.Buffer
}

func (n *node) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log.Write(p)
}

// lines returns the access log so far.
func (n *node) lines(t *testing.T) (all []map[string]any) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for dec := json.NewDecoder(bytes.NewReader(n.log.Bytes())); dec.More(); {
		var line map[string]any
		if err := dec.Decode(&line); err != nil {
			t.Fatal(err)
		}
		all = append(all, line)
	}
	return all
}

func newNode(t testing.TB, routes map[string]invoker) *node {
	t.Helper()
	n := &node{limiter: limit.New(limit.Config{Rand: func(int64) int64 { return 2 }})}
	place := telemetry.Place{PoP: "fra", Node: "fra-1", Region: "eu"}
	n.tel = telemetry.New(telemetry.Config{Place: place, Log: telemetry.Direct{W: n, Place: place}})
	h, err := serve.New(serve.Config{Limiter: n.limiter, Telemetry: n.tel, Place: place})
	if err != nil {
		t.Fatal(err)
	}
	n.Handler = h
	if routes != nil {
		n.SetRoutes(table(t, routes))
	}
	return n
}

func table(t testing.TB, routes map[string]invoker) *serve.Routes {
	t.Helper()
	var entries []serve.Entry
	for pattern, f := range routes {
		v := &function.Version{
			ID: function.ID{Project: "shop", Name: "cart"}, Digest: function.DigestOf([]byte(pattern)),
			Limits: function.Limits{Concurrency: 1, Queue: 1, QueueWait: 2 * time.Second},
		}
		entries = append(entries, serve.Entry{Pattern: pattern, Owner: v.ID.String(), Target: &serve.Target{Version: v, Invoker: f}})
	}
	routed, err := route.Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	return routed
}

func ask(n *node, method, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	n.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w
}

// problem checks an answer of the node's own.
func problem(t *testing.T, w *httptest.ResponseRecorder, status int, reason string) {
	t.Helper()
	var p struct {
		Type, Title, Detail, Reason string
		Status                      int
		RequestID                   string `json:"request_id"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("body %q: %v", w.Body, err)
	}
	if w.Code != status || p.Status != status || p.Reason != reason {
		t.Errorf("answered %d %+v, want %d %s", w.Code, p, status, reason)
	}
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type %q", got)
	}
	if p.RequestID == "" || p.RequestID != w.Header().Get(serve.RequestIDHeader) {
		t.Errorf("request id %q in the body, %q in the header", p.RequestID, w.Header().Get(serve.RequestIDHeader))
	}
}

func TestInvoke(t *testing.T) {
	var got serve.Meta
	n := newNode(t, map[string]invoker{"a.example/x/*": func(_ context.Context, w http.ResponseWriter, r *http.Request, m serve.Meta) (serve.Usage, error) {
		got = m
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Mine", "1")
		w.Header().Set(serve.RequestIDHeader, "forged")
		w.WriteHeader(http.StatusCreated)
		_, err := io.WriteString(w, "hello")
		return serve.Usage{CPU: 3e6, MemoryBytes: 1 << 20, HostCalls: 2, Crossings: 1}, err
	}})
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "https://A.example:8443/x/../x//y?token=secret", strings.NewReader("body"))
	r.Header.Set("Selvage-Request-Id", "mine")
	n.ServeHTTP(w, r)
	if w.Code != 201 || w.Body.String() != "hello" || w.Header().Get("X-Mine") != "1" || w.Header().Get("Server") != "selvage" {
		t.Errorf("answered %d %q %v", w.Code, w.Body, w.Header())
	}
	id := w.Header().Get(serve.RequestIDHeader)
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		t.Errorf("request id %q, want 32 hex digits", id)
	}
	if got.RequestID != id || got.Authority != "a.example:8443" || got.Target != "/x/y?token=secret" || got.Place.PoP != "fra" ||
		got.Client.String() != "192.0.2.1:1234" || got.Scheme != "https" {
		t.Errorf("meta %+v", got)
	}
	line := n.lines(t)[0]
	for key, want := range map[string]any{
		"request_id": id, "host": "a.example", "path": "/x/y", "status": 201., "bytes_in": 4., "bytes_out": 5.,
		"project": "shop", "function": "cart", "cpu_us": 3000., "host_calls": 2., "crossings": 1., "level": "INFO",
	} {
		if line[key] != want {
			t.Errorf("log: %s is %v, want %v", key, line[key], want)
		}
	}
	if strings.Contains(n.log.String(), "secret") {
		t.Error("the query is in the log")
	}
}

func TestOwnAnswers(t *testing.T) {
	n := newNode(t, map[string]invoker{"a.example/*": nil})
	problem(t, ask(n, "GET", "https://b.example/"), 404, "no-route")
	problem(t, ask(n, "GET", "https://a.example:99999/"), 400, "port")
	problem(t, ask(n, "GET", "https://a.example/%00"), 400, "path-nul")
	problem(t, ask(n, "GET", "https://a.example/"+strings.Repeat("a", 17<<10)), 414, "url-too-long")
	problem(t, ask(newNode(t, nil), "GET", "https://a.example/"), 503, "not-ready")
	if w := ask(n, "HEAD", "https://b.example/"); w.Code != 404 || w.Body.Len() > 0 {
		t.Errorf("HEAD: %d with %d bytes", w.Code, w.Body.Len())
	}
	if got := n.lines(t)[0]["refused"]; got != "no-route" {
		t.Errorf("log: refused is %v", got)
	}
}

// What functions send to one another in a circle ends (RFC 8586).
func TestLoop(t *testing.T) {
	n := newNode(t, map[string]invoker{"a.example/*": func(_ context.Context, w http.ResponseWriter, _ *http.Request, _ serve.Meta) (serve.Usage, error) {
		_, err := io.WriteString(w, "round")
		return serve.Usage{}, err
	}})
	for passes, status := range map[int]int{1: 200, 4: 200, 5: 508} {
		r := httptest.NewRequest("GET", "https://a.example/", nil)
		r.Header.Set("CDN-Loop", strings.Repeat("selvage, ", passes)+"other")
		w := httptest.NewRecorder()
		if n.ServeHTTP(w, r); w.Code != status {
			t.Errorf("after %d passes: %d, want %d", passes, w.Code, status)
		}
	}
}

func TestFaults(t *testing.T) {
	tests := []struct {
		name   string
		f      invoker
		status int
		reason string
	}{
		{"fault", func(_ context.Context, w http.ResponseWriter, _ *http.Request, _ serve.Meta) (serve.Usage, error) {
			w.Header().Set("Set-Cookie", "half")
			return serve.Usage{}, &fault.Error{Kind: fault.CPU, Limit: "50ms", Knob: "limits.cpu", Detail: "private"}
		}, 504, "cpu"},
		{"other error", func(context.Context, http.ResponseWriter, *http.Request, serve.Meta) (serve.Usage, error) {
			return serve.Usage{}, errors.New("private")
		}, 500, "internal"},
		{"panic", func(context.Context, http.ResponseWriter, *http.Request, serve.Meta) (serve.Usage, error) {
			panic("private")
		}, 500, "internal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t, map[string]invoker{"a.example/*": tt.f})
			w := ask(n, "GET", "https://a.example/")
			problem(t, w, tt.status, tt.reason)
			if strings.Contains(w.Body.String(), "private") || w.Header().Get("Set-Cookie") != "" {
				t.Errorf("the client sees %q %v", w.Body, w.Header())
			}
			line := n.lines(t)[0]
			if line["fault"] != tt.reason || !strings.Contains(line["fault_error"].(string), "private") || line["status"] != float64(tt.status) {
				t.Errorf("log: %v", line)
			}
			if s := n.limiter.Stats(); s.Running != 0 {
				t.Errorf("still admitted: %+v", s)
			}
		})
	}
}

// TestCutOff checks that a failure after the head never looks like a whole answer.
func TestCutOff(t *testing.T) {
	for name, f := range map[string]invoker{
		"fault": func(_ context.Context, w http.ResponseWriter, _ *http.Request, _ serve.Meta) (serve.Usage, error) {
			_, _ = io.WriteString(w, "half")
			return serve.Usage{}, fault.New(fault.Trap, "", nil)
		},
		"panic": func(_ context.Context, w http.ResponseWriter, _ *http.Request, _ serve.Meta) (serve.Usage, error) {
			_, _ = io.WriteString(w, "half")
			panic("oops")
		},
		"abort": func(context.Context, http.ResponseWriter, *http.Request, serve.Meta) (serve.Usage, error) {
			panic(http.ErrAbortHandler)
		},
	} {
		n := newNode(t, map[string]invoker{"a.example/*": f})
		func() {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler {
					t.Errorf("%s: the handler ended with %v, want ErrAbortHandler", name, p)
				}
			}()
			ask(n, "GET", "https://a.example/")
		}()
		if len(n.lines(t)) != 1 {
			t.Errorf("%s: not recorded", name)
		}
	}
}

// A function has one place here, and one may wait for it, for two seconds.
func TestAdmission(t *testing.T) { synctest.Test(t, testAdmission) }

func testAdmission(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	n := newNode(t, map[string]invoker{"a.example/*": func(context.Context, http.ResponseWriter, *http.Request, serve.Meta) (serve.Usage, error) {
		inside <- struct{}{}
		<-leave
		return serve.Usage{}, nil
	}})
	var first sync.WaitGroup
	first.Go(func() { ask(n, "GET", "https://a.example/") })
	<-inside
	begin := time.Now()
	var second sync.WaitGroup
	var late *httptest.ResponseRecorder
	second.Go(func() { late = ask(n, "GET", "https://a.example/") })
	synctest.Wait()
	busy := ask(n, "GET", "https://a.example/")
	if took := time.Since(begin); took != 0 {
		t.Errorf("a full queue was answered after %v", took)
	}
	problem(t, busy, 503, "busy")
	second.Wait()
	if took := time.Since(begin); took != 2*time.Second {
		t.Errorf("who waits was answered after %v", took)
	}
	problem(t, late, 503, "shed")
	for _, w := range []*httptest.ResponseRecorder{busy, late} {
		if got := w.Header().Get("Retry-After"); got != "3" {
			t.Errorf("Retry-After %q, want 3", got)
		}
	}
	ctx, gone := context.WithCancel(t.Context())
	time.AfterFunc(time.Second, gone)
	func() {
		defer func() {
			if p := recover(); p != http.ErrAbortHandler {
				t.Errorf("a client that left: %v", p)
			}
		}()
		n.ServeHTTP(neverWritten{t}, httptest.NewRequestWithContext(ctx, "GET", "https://a.example/", nil))
	}()
	var third *httptest.ResponseRecorder
	second.Go(func() { third = ask(n, "GET", "https://a.example/") })
	time.Sleep(time.Second)
	leave <- struct{}{}
	<-inside
	close(leave)
	first.Wait()
	second.Wait()
	if third.Code != 200 {
		t.Errorf("who waited for the place was answered %d", third.Code)
	}
	checkShed(t, n)
}

// neverWritten is a client's that left.
type neverWritten struct{ t *testing.T }

func (w neverWritten) Header() http.Header { return http.Header{} }
func (w neverWritten) WriteHeader(status int) {
	w.t.Errorf("a client that left was answered %d", status)
}
func (w neverWritten) Write(p []byte) (int, error) { return len(p), nil }

// checkShed looks at what testAdmission left in the log and the metrics.
func checkShed(t *testing.T, n *node) {
	t.Helper()
	want := []struct {
		fault       string
		queued      float64
		shed, limit any
	}{
		{"busy", 0, true, "1"}, {"shed", 2e6, true, "2s"}, {"canceled", 1e6, nil, nil}, {"", 0, nil, nil}, {"", 1e6, nil, nil},
	}
	lines := n.lines(t)
	for i, w := range want {
		l := lines[i]
		kind, _ := l["fault"].(string)
		queued, _ := l["queue_us"].(float64)
		if kind != w.fault || queued != w.queued || l["shed"] != w.shed || l["fault_limit"] != w.limit {
			t.Errorf("line %d is %v, want %+v", i, l, w)
		}
	}
	metrics := httptest.NewRecorder()
	n.tel.ServeHTTP(metrics, httptest.NewRequest("GET", "/metrics", nil))
	for _, kind := range []string{"busy", "shed"} {
		if want := `selvage_faults_total{fault="` + kind + `",function="cart",pop="fra",project="shop"} 1`; !strings.Contains(metrics.Body.String(), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// TestSwap swaps tables while exchanges run: each sees one whole table.
func TestSwap(t *testing.T) {
	say := func(s string) invoker {
		return func(_ context.Context, w http.ResponseWriter, _ *http.Request, _ serve.Meta) (serve.Usage, error) {
			_, err := io.WriteString(w, s)
			return serve.Usage{}, err
		}
	}
	n := newNode(t, map[string]invoker{"a.example/*": say("one")})
	two := table(t, map[string]invoker{"a.example/*": say("two")})
	w := ask(n, "GET", "https://a.example/")
	n.SetRoutes(two)
	w2 := ask(n, "GET", "https://a.example/")
	if w.Body.String() != "one" || w2.Body.String() != "two" || n.Routes() != two {
		t.Errorf("before %q, after %q", w.Body, w2.Body)
	}
}

func TestAdmin(t *testing.T) {
	n := newNode(t, nil)
	admin := n.Admin()
	status := func(path string) (int, string) {
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	if code, _ := status("/healthz"); code != 200 {
		t.Errorf("/healthz: %d", code)
	}
	if code, why := status("/readyz"); code != 503 || !strings.Contains(why, "route") {
		t.Errorf("/readyz without routes: %d %q", code, why)
	}
	n.SetRoutes(table(t, map[string]invoker{"*/*": nil}))
	if code, _ := status("/readyz"); code != 200 {
		t.Errorf("/readyz: %d", code)
	}
	n.SetDraining(true)
	if code, why := status("/readyz"); code != 503 || !strings.Contains(why, "draining") {
		t.Errorf("/readyz while draining: %d %q", code, why)
	}
	ask(n, "GET", "https://a.example/")
	if code, text := status("/metrics"); code != 200 || !strings.Contains(text, "selvage_request_duration_seconds_count") {
		t.Errorf("/metrics: %d\n%s", code, text)
	}
}

func TestConfig(t *testing.T) {
	if _, err := serve.New(serve.Config{}); err == nil || !strings.Contains(err.Error(), "Limiter") || !strings.Contains(err.Error(), "Telemetry") {
		t.Errorf("error %v", err)
	}
}

func BenchmarkExchange(b *testing.B) {
	n := newNode(b, map[string]invoker{"a.example/*": func(_ context.Context, w http.ResponseWriter, _ *http.Request, _ serve.Meta) (serve.Usage, error) {
		_, err := io.WriteString(w, "hello")
		return serve.Usage{MemoryBytes: 1}, err
	}})
	r := httptest.NewRequest("GET", "https://a.example/x", nil)
	b.ReportAllocs()
	for b.Loop() {
		n.ServeHTTP(&discard{header: http.Header{}}, r)
		n.log.Reset()
	}
}

type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}
