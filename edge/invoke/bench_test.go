package invoke_test

import (
	"crypto/tls"
	"net/http"
	"runtime"
	"testing"

	"github.com/selvage-edge/selvage/edge/invoke"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

// sink takes an answer as a protocol's writer would, and keeps its header's map
// so that the figures are this side's alone.
type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(int)             {}
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }

// hello is a handler whose one function answers GET / with a header and a body.
func hello(tb testing.TB) *serve.Handler {
	tb.Helper()
	p := &program{runner: guest.NewRunner(runtime.GOMAXPROCS(0), runtime.GOMAXPROCS(0)),
		loaded: guesttest.Program(tb, guesttest.Guest(tb, answer(200, "hello, world\n", "Content-Type", "text/plain")))}
	p.version = function.Version{ID: function.ID{Project: "p", Name: "hello"}}
	table, err := route.Build([]serve.Entry{{Pattern: host + "/*", Owner: "p/hello",
		Target: &serve.Target{Version: &p.version, Invoker: invoke.New(p, guest.Ports{})}}})
	if err != nil {
		tb.Fatal(err)
	}
	h, err := serve.New(serve.Config{Limiter: limit.New(limit.Config{}), Telemetry: telemetry.New(telemetry.Config{})})
	if err != nil {
		tb.Fatal(err)
	}
	h.SetRoutes(table)
	return h
}

func helloRequest(tb testing.TB) *http.Request {
	tb.Helper()
	r, err := http.NewRequestWithContext(tb.Context(), "GET", "https://"+host+"/", http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	r.RequestURI, r.RemoteAddr = "/", "127.0.0.1:1234"
	r.TLS = &tls.ConnectionState{HandshakeComplete: true, ServerName: host}
	return r
}

// BenchmarkExchange is one exchange of the hello function, from the protocol's
// handler call to its end.
func BenchmarkExchange(b *testing.B) {
	h := hello(b)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		r, w := helloRequest(b), &sink{header: http.Header{}}
		for p.Next() {
			clear(w.header)
			h.ServeHTTP(w, r)
		}
	})
}

// The plain path is counted in allocations, which do not depend on the machine:
// the exchange, the invocation, the identity, and what the answer's header keeps.
func TestExchangeAllocates(t *testing.T) {
	if testing.Short() {
		t.Skip("short runs are those under the race detector, which allocates")
	}
	h := hello(t)
	r, w := helloRequest(t), &sink{header: http.Header{}}
	const most = 8
	if n := testing.AllocsPerRun(1000, func() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}); n > most {
		t.Errorf("%v allocations an exchange, want at most %d", n, most)
	}
}
