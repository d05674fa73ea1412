package serve_test

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// receiver is a real OTLP/HTTP receiver: it decodes what it is sent.
type receiver struct {
	*httptest.Server
	mu  sync.Mutex
	all []*spans.Span
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var body io.Reader = req.Body
		if req.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(req.Body)
			if err != nil {
				t.Error(err)
				return
			}
			body = z
		}
		b, err := io.ReadAll(body)
		var in collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(b, &in)
		}
		if err != nil {
			t.Error(err)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, rs := range in.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				r.all = append(r.all, ss.Spans...)
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// named returns the spans of that name.
func (r *receiver) named(name string) (found []*spans.Span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.all {
		if s.Name == name {
			found = append(found, s)
		}
	}
	return found
}

// oneKey and backend are what a function's calls reach.
type oneKey struct{ hostcall.KV }

func (oneKey) Get(context.Context, hostcall.Namespace, string) (hostcall.Entry, error) {
	return hostcall.Entry{}, hostcall.ErrNotFound
}

type backend struct{ got chan string }

func (b backend) Fetch(_ context.Context, _ *function.Version, r *http.Request) (*http.Response, error) {
	b.got <- r.Header.Get("traceparent")
	return &http.Response{StatusCode: 204, Body: http.NoBody}, nil
}

// traced is a handler whose function reads KV and fetches, as guests do: with Invoke's context.
func traced(t *testing.T, cfg telemetry.TraceConfig) (h *serve.Handler, tr *telemetry.Tracer, got chan string) {
	t.Helper()
	tr, err := telemetry.NewTracer(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	got = make(chan string, 100)
	kv, fetch := tr.TraceKV(oneKey{}), tr.TraceFetch(backend{got})
	h, err = serve.New(serve.Config{Limiter: limit.New(limit.Config{}), Telemetry: telemetry.New(telemetry.Config{Tracer: tr})})
	if err != nil {
		t.Fatal(err)
	}
	h.SetRoutes(table(t, map[string]invoker{"shop.example/*": func(ctx context.Context, w http.ResponseWriter, r *http.Request, _ serve.Meta) (serve.Usage, error) {
		if r.URL.Path == "/fails" {
			return serve.Usage{}, fault.New(fault.CPU, "", nil)
		}
		_, _ = kv.Get(ctx, hostcall.Namespace{Project: "p", Name: "links"}, "secret-key")
		out, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example/x", nil)
		if err != nil {
			return serve.Usage{}, err
		}
		out.Header.Set("traceparent", "what the guest says")
		if _, err := fetch.Fetch(ctx, nil, out); err != nil {
			return serve.Usage{}, err
		}
		w.WriteHeader(http.StatusOK)
		return serve.Usage{CPU: time.Millisecond, MemoryBytes: 1}, nil
	}}))
	return h, tr, got
}

func askFor(h http.Handler, path, traceparent string) {
	r := httptest.NewRequest("GET", "https://shop.example"+path, nil)
	if traceparent != "" {
		r.Header.Set("traceparent", traceparent)
	}
	h.ServeHTTP(httptest.NewRecorder(), r)
}

// next is what the backend was told next.
func next(t *testing.T, got chan string) string {
	t.Helper()
	select {
	case s := <-got:
		return s
	case <-time.After(20 * time.Second):
		t.Fatal("the backend was not asked")
		return ""
	}
}

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	sampled = "00-" + traceID + "-00f067aa0ba902b7-01"
	not     = "00-" + traceID + "-00f067aa0ba902b7-00"
)

// A client's trace goes on through the exchange, the guest, its calls, and to the backend.
func TestTraceGoesThrough(t *testing.T) {
	in := newReceiver(t)
	h, tr, got := traced(t, telemetry.TraceConfig{Endpoint: in.URL + "/v1/traces", Asked: 1})
	askFor(h, "/a", sampled)
	passed := next(t, got)
	askFor(h, "/fails", sampled) // over what is honoured in a second
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	byName := map[string]*spans.Span{}
	for _, s := range in.all {
		byName[s.Name] = s
		if id := hex.EncodeToString(s.TraceId); id != traceID {
			t.Errorf("%s is in trace %s", s.Name, id)
		}
	}
	root := ""
	for name := range byName {
		if strings.HasPrefix(name, "GET ") {
			root = name
		}
	}
	if len(in.all) != 4 || byName[root] == nil || byName["guest"] == nil || byName["kv get"] == nil || byName["fetch GET"] == nil {
		t.Fatalf("spans %v", byName)
	}
	for child, parent := range map[string]string{"guest": root, "kv get": "guest", "fetch GET": "guest"} {
		if string(byName[child].ParentSpanId) != string(byName[parent].SpanId) {
			t.Errorf("%s is not a child of %s", child, parent)
		}
	}
	if hex.EncodeToString(byName[root].ParentSpanId) != "00f067aa0ba902b7" || byName[root].Kind != spans.Span_SPAN_KIND_SERVER {
		t.Errorf("the exchange is not the client's child: %v", byName[root])
	}
	if want := "00-" + traceID + "-" + hex.EncodeToString(byName["fetch GET"].SpanId) + "-01"; passed != want {
		t.Errorf("the backend was told %q, want %q", passed, want)
	}
	if strings.Contains(byName["kv get"].String(), "secret-key") {
		t.Error("a key is told")
	}
	if byName["kv get"].Status.GetCode() != spans.Status_STATUS_CODE_ERROR {
		t.Errorf("what failed is not marked: %v", byName["kv get"])
	}
}

func TestTraceSampling(t *testing.T) {
	in := newReceiver(t)
	h, tr, got := traced(t, telemetry.TraceConfig{Endpoint: in.URL, Ratio: 1})
	askFor(h, "/", "")
	askFor(h, "/fails", "00-nonsense")
	next(t, got)
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(in.named("guest")) != 2 || in.named("guest")[1].Status.GetCode() != spans.Status_STATUS_CODE_ERROR && in.named("guest")[0].Status.GetCode() != spans.Status_STATUS_CODE_ERROR {
		t.Errorf("of all are traced: %v", in.all)
	}

	none := newReceiver(t)
	h, tr, got = traced(t, telemetry.TraceConfig{Endpoint: none.URL})
	askFor(h, "/", not)
	if passed := next(t, got); passed != not {
		t.Errorf("a trace that is not recorded is passed on as %q", passed)
	}
	askFor(h, "/", "")
	if passed := next(t, got); passed != "what the guest says" {
		t.Errorf("without any trace the guest's header became %q", passed)
	}
	for range 50 {
		askFor(h, "/", sampled) // none is honoured with Asked 0
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(none.named("guest")); n > 0 {
		t.Errorf("%d were traced because clients wanted it", n)
	}
}

// A receiver that is not there holds nobody up, and without tracing nothing is done.
func TestTraceWithoutReceiver(t *testing.T) {
	h, tr, got := traced(t, telemetry.TraceConfig{Endpoint: "http://127.0.0.1:1/v1/traces", Ratio: 1})
	for range 20 {
		askFor(h, "/", "")
		next(t, got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_ = tr.Close(ctx) // nobody took them
	if _, err := telemetry.NewTracer(t.Context(), telemetry.TraceConfig{Endpoint: "localhost:4318"}); err == nil {
		t.Error("an endpoint that is no URL")
	}
	off := telemetry.New(telemetry.Config{})
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("traceparent", sampled)
	if n := testing.AllocsPerRun(100, func() {
		s := off.Begin(r, time.Time{})
		run := s.Child("guest")
		if ctx := run.Context(r.Context()); ctx != r.Context() || s.TraceID() != "" {
			t.Error("something is traced")
		}
		run.Done(s, nil)
	}); n != 0 {
		t.Errorf("%v allocations where nothing is traced", n)
	}
}

// What another node does of an exchange is a part of the first node's, whether the client
// sent a trace or this node began one.
func TestTraceGoesOn(t *testing.T) {
	for _, client := range []string{"", sampled} {
		in := newReceiver(t)
		tr, err := telemetry.NewTracer(t.Context(), telemetry.TraceConfig{Endpoint: in.URL, Ratio: 1})
		if err != nil {
			t.Fatal(err)
		}
		lon, _ := nodeTraced(t, tr, invoker(func(context.Context, http.ResponseWriter, *http.Request, serve.Meta) (serve.Usage, error) {
			return serve.Usage{}, nil
		}), false, 0)
		nyc, _ := nodeTraced(t, tr, nil, true, 0, gone, passedTo(t, lon, "lon-1"))
		r := httptest.NewRequest("GET", "https://a.example/", nil)
		if client != "" {
			r.Header.Set("traceparent", client)
		}
		w := httptest.NewRecorder()
		nyc.ServeHTTP(w, r)
		if err := tr.Close(t.Context()); err != nil || w.Code != 200 {
			t.Fatal(w.Code, err)
		}
		both, guests := in.named("GET shop/cart"), in.named("guest")
		if len(both) != 2 || len(guests) != 1 {
			t.Fatalf("spans %v", in.all)
		}
		first, second := both[0], both[1]
		if string(guests[0].ParentSpanId) != string(second.SpanId) {
			first, second = second, first
		}
		if string(second.ParentSpanId) != string(first.SpanId) || string(second.TraceId) != string(first.TraceId) || string(guests[0].ParentSpanId) != string(second.SpanId) {
			t.Errorf("client's trace %q: the second node's span is no child of the first's: %v", client, in.all)
		}
		if want := hex.EncodeToString(first.TraceId); client != "" && want != traceID {
			t.Errorf("in trace %s, not the client's", want)
		}
	}
}
