package sdktest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// guestServer serves the test guest, from a snapshot.
func guestServer(t *testing.T, backends ...string) (*host, *httptest.Server) {
	t.Helper()
	h := newHost(t, build(t, "guest"), true, backends...)
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return h, s
}

// do makes a request and returns the answer with its body read.
func do(t *testing.T, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return resp, string(b)
}

func TestInfo(t *testing.T) {
	_, s := guestServer(t)
	var got struct {
		Info   map[string]any
		Remote string
		TLS    *struct{ ServerName, NegotiatedProtocol string }
		Warmed bool
	}
	_, body := do(t, "GET", s.URL+"/info", "", "X-Scheme", "https")
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err, body)
	}
	for name, want := range map[string]string{
		"PoP": "fra", "Node": "fra-1", "Region": "eu", "RequestID": "req-1", "Project": "default", "Function": "guest", "Client": got.Remote,
	} {
		if got.Info[name] != want || want == "" {
			t.Errorf("%s is %q, want %q", name, got.Info[name], want)
		}
	}
	if version, _ := got.Info["Version"].(string); !strings.HasPrefix(version, "sha256:") {
		t.Errorf("version %q", got.Info["Version"])
	}
	if got.TLS == nil || got.TLS.ServerName != "127.0.0.1" || got.TLS.NegotiatedProtocol != "http/1.1" {
		t.Errorf("TLS: %+v", got.TLS)
	}
	if !got.Warmed {
		t.Error("edge.Warm's function did not run")
	}
}

func TestVariables(t *testing.T) {
	_, s := guestServer(t)
	if _, got := do(t, "GET", s.URL+"/variable", ""); got != "hello false" {
		t.Errorf("got %q", got)
	}
}

func TestHijackIsNotSupported(t *testing.T) {
	_, s := guestServer(t)
	if _, got := do(t, "GET", s.URL+"/hijack", ""); got != "true" {
		t.Errorf("got %q", got)
	}
}

func TestLog(t *testing.T) {
	h, s := guestServer(t)
	do(t, "GET", s.URL+"/log", "")
	got := h.log.String()
	for _, want := range []string{
		"-4 a detail\n",
		"0 an event user=7 level=gold\n",
		"4 a warning a=1 g.b=\"two words\"\n",
		"8 a failure error=\"unexpected EOF\"\n",
		"0 from package log\n",
		" on stdout\n",
		" on stderr\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the log has no %q:\n%s", want, got)
		}
	}
}

func TestPanics(t *testing.T) {
	h, s := guestServer(t)
	resp, body := do(t, "GET", s.URL+"/panic", "")
	if resp.StatusCode != http.StatusInternalServerError || body != "Internal Server Error\n" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	for _, want := range []string{"panic serving GET /panic: a bug", "responses.go"} {
		if !strings.Contains(h.log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, h.log)
		}
	}
	for _, path := range []string{"/panic/late", "/panic/abort", "/short"} {
		resp, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil || string(body) != "some" {
			t.Errorf("%s: body %q, %v: want a broken answer", path, body, err)
		}
	}
	if !strings.Contains(h.log.String(), "a late bug") || strings.Contains(h.log.String(), "abort Handler") {
		t.Errorf("log:\n%s", h.log)
	}
}

// TestStreaming has a conversation: each word is answered before the next is said.
func TestStreaming(t *testing.T) {
	_, s := guestServer(t)
	pr, pw := io.Pipe()
	defer pw.Close()
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/chat", pr)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, word := range []string{"one", "two", "three"} {
		if _, err := io.WriteString(pw, word); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(word)+2)
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != "<"+word+">" {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

func TestKV(t *testing.T) {
	_, s := guestServer(t)
	steps := []struct {
		method, target, body string
		status               int
		want                 string // "": not looked at
		header               [2]string
	}{
		{"GET", "/kv/a", "", 409, "", [2]string{"X-Status", "-2"}},
		{"PUT", "/kv/a", "one", 200, "1", [2]string{}},
		{"GET", "/kv/a", "", 200, "one", [2]string{"X-Revision", "1"}},
		{"PUT", "/kv/a?if=absent", "two", 409, "", [2]string{"X-Status", "-4"}},
		{"PUT", "/kv/a?if=7", "two", 409, "", [2]string{"X-Status", "-4"}},
		{"PUT", "/kv/a?if=1", "two", 200, "2", [2]string{}},
		{"PUT", "/kv/a?ttl=-1s", "two", 409, "", [2]string{"X-Status", "-1"}},
		{"PUT", "/kv/b?ttl=1m", "expires", 200, "3", [2]string{}},
		{"GET", "/kv/b", "", 200, "expires", [2]string{"X-Expires", "true"}},
		{"PUT", "/kv/empty", "", 200, "4", [2]string{}},
		{"GET", "/kv/empty", "", 200, "", [2]string{}},
		{"PUT", "/kv/big", strings.Repeat("big ", 50000), 200, "5", [2]string{}},
		{"GET", "/kv/big", "", 200, strings.Repeat("big ", 50000), [2]string{}},
		{"DELETE", "/kv/a?if=1", "", 409, "", [2]string{"X-Status", "-4"}},
		{"DELETE", "/kv/a", "", 200, "true", [2]string{}},
		{"GET", "/kv/a", "", 409, "", [2]string{"X-Status", "-2"}},
		{"PUT", "/kv/" + strings.Repeat("k", 513), "x", 409, "", [2]string{"X-Status", "-6"}},
		{"GET", "/kv?prefix=b", "", 200, "b\nbig\n", [2]string{}},
		{"GET", "/unbound", "", 409, "", [2]string{"X-Status", "-3"}},
	}
	for _, x := range steps {
		resp, body := do(t, x.method, s.URL+x.target, x.body)
		if resp.StatusCode != x.status || x.want != "" && body != x.want {
			t.Errorf("%s %.40s: %d %.100q, want %d %.100q", x.method, x.target, resp.StatusCode, body, x.status, x.want)
		}
		if got := resp.Header.Get(x.header[0]); x.header[0] != "" && got != x.header[1] {
			t.Errorf("%s %.40s: %s is %q, want %q", x.method, x.target, x.header[0], got, x.header[1])
		}
	}
}

func TestKVBeyondTheBasics(t *testing.T) {
	_, s := guestServer(t)
	const want = `put <nil>
entry v about true 5ms <nil>
strong v 0s <nil>
at least v <nil>
a future true
long metadata true
sum -21 <nil>
sum -42 <nil>
no number true
many 3 -42 about 300000 <nil>
too many true
key m about <nil>
`
	if resp, body := do(t, "GET", s.URL+"/kv-more", ""); resp.StatusCode != 200 || body != want {
		t.Errorf("%d:\n%s", resp.StatusCode, body)
	}
}

func TestKVListsInPages(t *testing.T) {
	_, s := guestServer(t)
	var want strings.Builder
	for i := range 40 {
		key := fmt.Sprintf("page-%03d", i)
		fmt.Fprintln(&want, key)
		do(t, "PUT", s.URL+"/kv/"+key, "x")
	}
	if _, got := do(t, "GET", s.URL+"/kv?prefix=page-&page=7", ""); got != want.String() {
		t.Errorf("got %q", got)
	}
}

func TestFetch(t *testing.T) {
	gate := newGate(3)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/meet":
			gate.wait()
		case "/moved":
			http.Redirect(w, r, "/here", http.StatusFound)
		case "/large":
			w.Write(bytes.Repeat([]byte("x"), 1<<20))
		case "/broken":
			w.Header().Set("Content-Length", "10")
			w.Write([]byte("five!"))
		default:
			w.Header().Set("X-Origin", r.Method+" "+r.URL.RequestURI())
			w.WriteHeader(http.StatusAccepted)
			n, _ := io.Copy(w, r.Body)
			fmt.Fprint(w, " ", n, " ", r.ContentLength, " ", r.Header.Get("X-Test"))
		}
	}))
	defer origin.Close()
	_, s := guestServer(t, origin.URL)
	to := func(path, target string) string { return s.URL + path + "?url=" + url.QueryEscape(target) }

	resp, body := do(t, "GET", to("/fetch", origin.URL+"/a?b=c#d"), "")
	if resp.StatusCode != http.StatusAccepted || resp.Header.Get("X-Origin") != "GET /a?b=c" || body != " 0 0 " {
		t.Errorf("%d %v %q", resp.StatusCode, resp.Header, body)
	}
	if _, body = do(t, "GET", to("/fetch", origin.URL+"/moved"), ""); body != " 0 0 " {
		t.Errorf("redirect: %q", body)
	}
	if _, body = do(t, "GET", to("/fetch", origin.URL+"/large"), ""); len(body) != 1<<20 {
		t.Errorf("large: %d bytes", len(body))
	}
	if _, body = do(t, "POST", to("/fetch/proxy", origin.URL+"/up"), strings.Repeat("up ", 100000), "X-Test", "t"); !strings.HasSuffix(body, " 300000 300000 t") {
		t.Errorf("proxy: %d bytes, %.100q", len(body), body)
	}
	resp, body = do(t, "GET", to("/fetch", "http://127.0.0.1:8001/"), "")
	if resp.Header.Get("X-Status") != "-3" {
		t.Errorf("unbound backend: %v %s", resp.Header, body)
	}
	if resp, err := http.Get(to("/fetch", origin.URL+"/broken")); err == nil {
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != "five!" {
			t.Errorf("broken: %q", b)
		}
	}
	many := s.URL + "/fetch/many?" + url.Values{"url": {origin.URL + "/meet", origin.URL + "/meet", origin.URL + "/meet"}}.Encode()
	if _, body = do(t, "GET", many, ""); strings.Count(body, "<nil>") != 3 {
		t.Errorf("many: %q", body)
	}
}

// A gate lets nobody pass until n have come: it proves that requests are under
// way at once.
type gate struct {
	wg   sync.WaitGroup
	open chan struct{}
}

func newGate(n int) *gate {
	g := &gate{open: make(chan struct{})}
	g.wg.Add(n)
	go func() { g.wg.Wait(); close(g.open) }()
	return g
}

func (g *gate) wait() {
	g.wg.Done()
	select {
	case <-g.open:
	case <-time.After(8 * time.Second):
	}
}

// TestRandomness shows what the package doc says of a snapshot and randomness:
// what start-up made of a seed each request finds again, what the runtime draws
// is another in each.
func TestRandomness(t *testing.T) {
	_, s := guestServer(t)
	var seen []map[string]any
	for range 8 {
		_, body := do(t, "GET", s.URL+"/random", "")
		var got map[string]any
		d := json.NewDecoder(strings.NewReader(body))
		d.UseNumber()
		if err := d.Decode(&got); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		seen = append(seen, got)
	}
	for what, first := range seen[0] {
		same := 1
		for _, other := range seen[1:] {
			if other[what] == first {
				same++
			}
		}
		// A map of 26 keys has few orders: two of the requests may get the same.
		if frozen := strings.HasPrefix(what, "start "); frozen != (same == len(seen)) {
			t.Errorf("%s: %d of %d requests got %v; the package doc says otherwise", what, same, len(seen), first)
		}
	}
}
