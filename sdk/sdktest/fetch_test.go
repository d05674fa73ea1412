package sdktest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/selvage-edge/selvage/runtime/function"
)

// TestFetchLetsOthersRun: while a request waits for its answer, other goroutines
// run, timers fire and contexts end.
func TestFetchLetsOthersRun(t *testing.T) {
	var once sync.Once
	letGo := make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/let-go":
			once.Do(func() { close(letGo) })
		case "/held":
			select {
			case <-letGo:
			case <-r.Context().Done():
			}
		default:
			<-r.Context().Done()
		}
	}))
	defer origin.Close()
	_, s := guestServer(t, origin.URL)
	if _, body := do(t, "GET", s.URL+"/fetch/beside?url="+url.QueryEscape(origin.URL), ""); body != "200" {
		t.Errorf("beside: %q", body)
	}
	if _, body := do(t, "GET", s.URL+"/fetch/deadline?url="+url.QueryEscape(origin.URL), ""); body != "true\ntrue\ntrue\n" {
		t.Errorf("deadline: %q", body)
	}
}

func TestFetchTrailer(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "42")
	}))
	defer origin.Close()
	_, s := guestServer(t, origin.URL)
	if _, body := do(t, "GET", s.URL+"/fetch/trailer?url="+url.QueryEscape(origin.URL), ""); body != "body <nil> [42] []" {
		t.Errorf("got %q", body)
	}
}

// page is an origin whose page links to itself, and which answers in pieces that
// cut a link in two; the second piece comes only when the first was seen.
type page struct {
	url  string
	seen chan struct{}
}

func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Server", "secret/1.0")
	h.Set("X-Pop", r.Header.Get("X-Edge-Pop"))
	switch r.URL.Path {
	case "/page":
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Etag", `"1"`)
		fmt.Fprint(w, `<a href="`, p.url, `/one">one</a>`, "\n", `<a href="`, p.url[:9])
		w.(http.Flusher).Flush()
		<-p.seen
		fmt.Fprint(w, p.url[9:], `/two">two</a>`)
	case "/moved":
		http.Redirect(w, r, p.url+"/page", http.StatusFound)
	case "/binary":
		h.Set("Content-Type", "application/octet-stream")
		fmt.Fprint(w, p.url)
	case "/broken":
		h.Set("Content-Type", "text/plain")
		h.Set("Content-Length", "100")
		fmt.Fprint(w, "some")
	default:
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.Method, " ", r.URL.RequestURI(), " ", n, " ", r.Host, " ", r.Header.Get("Cookie"), r.Header.Get("Accept-Encoding"))
	}
}

func TestProxy(t *testing.T) {
	p := &page{seen: make(chan struct{})}
	origin := httptest.NewServer(p)
	defer origin.Close()
	p.url = origin.URL
	_, self := exampleWith(t, "proxy", function.Bindings{
		Backends:  []function.Backend{{Name: "origin", URL: origin.URL, Private: true}},
		Variables: map[string]string{"ORIGIN": origin.URL},
	})

	r, err := http.NewRequestWithContext(t.Context(), "GET", self+"/page", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	if one, err := lines.ReadString('\n'); one != `<a href="`+self+`/one">one</a>`+"\n" || err != nil {
		t.Errorf("the first piece: %q, %v", one, err)
	}
	close(p.seen)
	if two, err := io.ReadAll(lines); string(two) != `<a href="`+self+`/two">two</a>` || err != nil {
		t.Errorf("the second piece: %q, %v", two, err)
	}
	h := resp.Header
	if h.Get("Server") != "" || h.Get("Etag") != "" || h.Get("X-Proxied-By") != "selvage" || h.Get("X-Pop") != "fra" {
		t.Errorf("headers %v", h)
	}

	if resp, _ := do(t, "GET", self+"/moved", ""); resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != self+"/page" {
		t.Errorf("redirect: %s %v", resp.Status, resp.Header)
	}
	if resp, body := do(t, "GET", self+"/binary", ""); body != p.url || resp.ContentLength != int64(len(p.url)) {
		t.Errorf("binary: %q, length %d", body, resp.ContentLength)
	}
	host := strings.TrimPrefix(origin.URL, "http://")
	if _, body := do(t, "PUT", self+"/up?a=b", strings.Repeat("up ", 100_000), "Cookie", "a=b"); body != "PUT /up?a=b 300000 "+host+" identity" {
		t.Errorf("upload: %q", body)
	}
	if resp, err := http.Get(self + "/broken"); err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil {
			t.Error("half an answer looks like all of it")
		}
	}
	origin.Close()
	if resp, body := do(t, "GET", self+"/page", ""); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("without an origin: %s %s", resp.Status, body)
	}
}
