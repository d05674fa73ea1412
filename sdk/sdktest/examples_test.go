package sdktest

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// example builds an example as its manifest says and serves it from a snapshot.
func example(t *testing.T, name string) (*host, string) {
	t.Helper()
	return exampleWith(t, name, bindings)
}

func exampleWith(t *testing.T, name string, b function.Bindings) (*host, string) {
	t.Helper()
	h := newHostOf(t, exampleModule(t, name), true, b)
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return h, s.URL
}

// exampleModule builds an example as its manifest says.
func exampleModule(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join("../examples", name)
	file := filepath.Join(dir, bundle.ManifestName)
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := bundle.ParseManifest(file, source)
	if err != nil {
		t.Fatal(err)
	}
	make := exec.Command("sh", "-c", m.Build.Command)
	make.Dir = dir
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", m.Build.Command, err, out)
	}
	wasm := filepath.Join(dir, m.Build.Output)
	if info, err := os.Stat(wasm); err == nil {
		t.Logf("%s: %.1f MB", wasm, float64(info.Size())/1e6)
	}
	return wasm
}

func TestHello(t *testing.T) {
	_, url := example(t, "hello")
	if _, got := do(t, "GET", url, ""); got != "hello from fra\n" {
		t.Errorf("got %q", got)
	}
	if _, got := do(t, "GET", url+"/json", ""); !strings.Contains(got, `"pop":"fra"`) || !strings.Contains(got, `"request_id":"req-1"`) {
		t.Errorf("got %q", got)
	}
}

func TestRedirects(t *testing.T) {
	h, url := example(t, "redirects")
	if resp, _ := do(t, "GET", url+"/s/docs", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("no link: %s", resp.Status)
	}
	for _, want := range []int{http.StatusCreated, http.StatusConflict} {
		if resp, body := do(t, "POST", url+"/s/docs", "https://example.org/docs\n"); resp.StatusCode != want {
			t.Errorf("POST: %s %s, want %d", resp.Status, body, want)
		}
	}
	for body, want := range map[string]int{"no url": 400, "ftp://a/b": 400, strings.Repeat("x", 4000): 413} {
		if resp, _ := do(t, "POST", url+"/s/other", body); resp.StatusCode != want {
			t.Errorf("POST %.20q: %s, want %d", body, resp.Status, want)
		}
	}
	resp, _ := do(t, "GET", url+"/s/docs", "")
	if resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != "https://example.org/docs" {
		t.Errorf("GET: %s %v", resp.Status, resp.Header)
	}
	chooseVariants(t, h, url)
}

func chooseVariants(t *testing.T, h *host, url string) {
	t.Helper()
	value := `{"targets":[{"name":"a","url":"https://example.org/a","weight":1},{"name":"b","url":"https://example.org/b","weight":1}]}`
	ns := hostcall.Namespace{Project: "default", Name: "links"}
	if _, err := h.kv.Put(t.Context(), ns, "variant:home page", []byte(value), hostcall.PutOptions{IfRevision: hostcall.AnyRevision}); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 60 {
		resp, body := do(t, "GET", url+"/ab/home%20page", "")
		target, cookies := resp.Header.Get("Location"), resp.Cookies()
		if resp.StatusCode != http.StatusFound || len(cookies) != 1 {
			t.Fatalf("%s %v %s", resp.Status, resp.Header, body)
		}
		seen[target] = true
		again, _ := do(t, "GET", url+"/ab/home%20page", "", "Cookie", cookies[0].Name+"="+cookies[0].Value)
		if got := again.Header.Get("Location"); got != target {
			t.Fatalf("the cookie %v leads to %s, not %s", cookies[0], got, target)
		}
	}
	if len(seen) != 2 {
		t.Errorf("60 browsers saw %v: the draw is not random", seen)
	}
	if resp, _ := do(t, "GET", url+"/ab/other", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("no variant: %s", resp.Status)
	}
}

// binExchanges are requests that go-httpbin answers the same each time.
var binExchanges = []exchange{
	{target: "/get?a=1&b=2", header: http.Header{"X-Test": {"1"}}},
	{target: "/headers"},
	{target: "/post", method: "POST", body: "a=1&b=2", header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}},
	{target: "/put", method: "PUT", body: `{"a":1}`, header: http.Header{"Content-Type": {"application/json"}}},
	{target: "/delete", method: "DELETE"},
	{target: "/anything/x/y", method: "PATCH", body: "raw"},
	{target: "/status/418"},
	{target: "/status/204"},
	{target: "/gzip"},
	{target: "/deflate"},
	{target: "/stream/20"},
	{target: "/bytes/1000?seed=7"},
	{target: "/stream-bytes/5000?seed=7&chunk_size=1000"},
	{target: "/range/1024", header: http.Header{"Range": {"bytes=10-99"}}},
	{target: "/redirect/2"},
	{target: "/relative-redirect/3"},
	{target: "/redirect-to?url=/get"},
	{target: "/cookies", header: http.Header{"Cookie": {"a=b"}}},
	{target: "/cookies/set?k=v"},
	{target: "/basic-auth/u/p"},
	{target: "/basic-auth/u/p", header: http.Header{"Authorization": {"Basic dTpw"}}},
	{target: "/bearer"},
	{target: "/etag/v", header: http.Header{"If-None-Match": {"v"}}},
	{target: "/cache"},
	{target: "/response-headers?X-One=1"},
	{target: "/base64/aGVsbG8="},
	{target: "/encoding/utf8"},
	{target: "/html"},
	{target: "/xml"},
	{target: "/json"},
	{target: "/robots.txt"},
	{target: "/forms/post"},
	{target: "/image/png"},
	{target: "/image", header: http.Header{"Accept": {"image/webp"}}},
	{target: "/links/3/1"},
	{target: "/drip?duration=0s&numbytes=5&delay=0s"},
	{target: "/sse?count=3&duration=100ms", header: http.Header{"Accept": {"text/event-stream"}}},
	{target: "/user-agent"},
	{target: "/missing"},
	{target: "/"},
	{target: "/", method: "HEAD"},
}

// TestHTTPBin compares the guest with the same program on net/http's server.
func TestHTTPBin(t *testing.T) {
	h, url := example(t, "httpbin")
	native := serveNatively(t, "../examples/httpbin")
	for _, x := range binExchanges {
		t.Run(strings.TrimSpace(x.method+" "+x.target), func(t *testing.T) { compareBin(t, native, url, x) })
	}
	if resp, _ := do(t, "GET", url+"/delay/1", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("/delay/1: %s", resp.Status)
	}
	if t.Failed() {
		t.Log(h.log)
	}
}

// compareBin is compare for answers that repeat the client's port and the time.
func compareBin(t *testing.T, native, guest string, x exchange) {
	t.Helper()
	want, got := ask(t, native, x), ask(t, guest, x)
	if masked(want.rest) != masked(got.rest) || masked(want.body) != masked(got.body) {
		t.Errorf("net/http answers\n%s%.2000s\nthe guest\n%s%.2000s", masked(want.rest), masked(want.body), masked(got.rest), masked(got.body))
	}
}

// masked hides what differs between two requests: times and timings.
func masked(s string) string {
	return changing.ReplaceAllString(s, "#")
}

var changing = regexp.MustCompile(`127\.0\.0\.1:\d+|"?timestamp"?: ?\d+|dur=[0-9.]+|Last-Modified: [^\r]*|(Expires|ETag|Etag): [^\r]*`)
