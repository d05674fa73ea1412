package sdktest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/runtime/function"
)

// TestCrossings counts the calls that come back to Go: a request that does one
// thing after another waits in the calls themselves and needs no others.
func TestCrossings(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	defer origin.Close()
	b := bindings
	b.Backends = []function.Backend{{Name: "origin", URL: origin.URL, Private: true}}
	b.Variables = map[string]string{"ORIGIN": origin.URL}
	for _, c := range []struct {
		example, method, target, body string
		want                          uint64
	}{
		{"hello", "GET", "/", "", 0},
		{"hello", "GET", "/json", "", 0},
		{"redirects", "POST", "/s/docs", "https://example.org/docs\n", 5},
		{"redirects", "GET", "/s/docs", "", 2},
		{"httpbin", "GET", "/get", "", 0},
		{"httpbin", "POST", "/post", strings.Repeat("x", 100_000), 17},
		{"httpbin", "GET", "/bytes/100000", "", 1},
		{"proxy", "GET", "/", "", 7},
	} {
		h, _ := exampleWith(t, c.example, b)
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(c.method, c.target, strings.NewReader(c.body)))
		if got := h.mu.usage.Crossings; got != c.want {
			t.Errorf("%s %s %s: %d of %d calls came back, want %d", c.example, c.method, c.target, got, h.mu.usage.HostCalls, c.want)
		}
	}
}
