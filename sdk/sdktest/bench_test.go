package sdktest

import (
	"fmt"
	"net/http/httptest"
	"testing"
)

// BenchmarkHello is one request to examples/hello, from invoke inwards: a fresh
// instance, the handler, its end.
func BenchmarkHello(b *testing.B) {
	for _, snapshot := range []bool{true, false} {
		b.Run(fmt.Sprintf("snapshot=%t", snapshot), func(b *testing.B) {
			h := newHost(b, build(b, "../examples/hello"), snapshot)
			r := httptest.NewRequest("GET", "http://hello.test/", nil)
			r.Header.Set("User-Agent", "bench")
			r.Header.Set("Accept", "*/*")
			var cpu, calls float64
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != 200 {
					b.Fatal(w.Code, w.Body, h.log)
				}
				cpu += float64(h.mu.usage.CPU.Microseconds())
				calls += float64(h.mu.usage.Crossings)
			}
			b.ReportMetric(cpu/float64(b.N), "cpu-us/op")
			b.ReportMetric(calls/float64(b.N), "crossings/op")
			b.ReportMetric(float64(h.mu.usage.MemoryBytes), "memory-bytes")
		})
	}
}
