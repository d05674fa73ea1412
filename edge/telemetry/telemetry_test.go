package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
)

var sample = Record{
	RequestID: "00ff", Method: "GET", Host: "a.example", Path: "/x", Protocol: "HTTP/2.0", Status: 504,
	BytesIn: 3, BytesOut: 5, Duration: 70 * time.Millisecond, FirstByte: time.Millisecond,
	Project: "shop", Function: "cart", Version: function.DigestOf([]byte("x")),
	Usage: Usage{CPU: 50 * time.Millisecond, MemoryBytes: 2 << 20, HostCalls: 4, Crossings: 2},
	Fault: &fault.Error{Kind: fault.CPU, Limit: "50ms", Knob: "limits.cpu"},
}

func metrics(t *testing.T, tel *Telemetry) string {
	t.Helper()
	w := httptest.NewRecorder()
	tel.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func TestObserve(t *testing.T) {
	var out bytes.Buffer
	log := NewLog(&out, LogConfig{Place: Place{PoP: "fra", Node: "n1"}})
	tel := New(Config{Place: Place{PoP: "fra", Node: "n1"}, Log: log})
	tel.Gauge("routes", "Routes.", func() float64 { return 7 })
	tel.Observe(&sample)
	tel.Observe(&Record{Method: "GET", Protocol: "HTTP/1.1", Status: 404, Refused: "no-route"})
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	text := metrics(t, tel)
	for _, want := range []string{
		`selvage_requests_total{function="cart",pop="fra",project="shop",protocol="h2",status="5xx"} 1`,
		`selvage_requests_total{function="",pop="fra",project="",protocol="h1",status="4xx"} 1`,
		`selvage_faults_total{fault="cpu",function="cart",pop="fra",project="shop"} 1`,
		`selvage_refused_total{pop="fra",reason="no-route"} 1`,
		`selvage_cpu_seconds_total{function="cart",pop="fra",project="shop"} 0.05`,
		`selvage_request_duration_seconds_bucket{function="cart",pop="fra",project="shop",le="0.1"} 1`,
		`selvage_routes{pop="fra"} 7`,
		`go_goroutines`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	checkLine(t, strings.SplitN(out.String(), "\n", 2)[0])
}

func checkLine(t *testing.T, line string) {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	for key, want := range map[string]any{
		"msg": "exchange", "request_id": "00ff", "pop": "fra", "node": "n1", "method": "GET", "host": "a.example", "path": "/x",
		"protocol": "HTTP/2.0", "status": 504., "bytes_in": 3., "bytes_out": 5., "duration_us": 70000., "project": "shop",
		"function": "cart", "cpu_us": 50000., "memory_bytes": 2097152., "host_calls": 4., "crossings": 2., "fault": "cpu",
		"fault_limit": "50ms", "fault_knob": "limits.cpu",
	} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
}

func TestFunctionsAreBounded(t *testing.T) {
	tel := New(Config{Functions: 2})
	for i := range 5 {
		r := sample
		r.Function = fmt.Sprintf("f%d", i)
		tel.Observe(&r)
	}
	tel.Observe(&Record{Status: 404}) // what reached no function keeps its own series
	text := metrics(t, tel)
	if got := strings.Count(text, "selvage_response_bytes_total{"); got != 4 {
		t.Errorf("%d series, want two functions, other and none:\n%s", got, text)
	}
	if want := `selvage_requests_total{function="other",pop="",project="other",protocol="h2",status="5xx"} 3`; !strings.Contains(text, want) {
		t.Errorf("lacks %s", want)
	}
}

// sink is a writer that another goroutine may look into.
type sink struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out sink
		l := NewLog(&out, LogConfig{})
		l.Record(&Record{Path: "one"})
		synctest.Wait()
		if out.String() != "" {
			t.Error("a line did not wait for others")
		}
		time.Sleep(2 * flushEvery)
		synctest.Wait()
		if !strings.Contains(out.String(), "one") {
			t.Error("a line waited longer than it may")
		}
		l.Record(&Record{Path: "two"})
		if err := l.Close(); err != nil || !strings.Contains(out.String(), `"path":"two"`) {
			t.Errorf("after Close: %q, %v", out.String(), err)
		}
		bad := NewLog(failing{}, LogConfig{})
		bad.Record(&Record{})
		if err := bad.Close(); err == nil {
			t.Error("a failed write is not told")
		}
	})
}

func BenchmarkObserve(b *testing.B) {
	log := NewLog(discard{}, LogConfig{})
	defer log.Close()
	tel := New(Config{Log: log})
	b.ReportAllocs()
	for b.Loop() {
		tel.Observe(&sample)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
