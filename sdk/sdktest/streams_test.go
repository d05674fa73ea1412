package sdktest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// trickle is an origin of many answers, each of whose lines comes when it is let go.
type trickle struct {
	lines [10][3]chan struct{}
	left  sync.WaitGroup // answers that have not ended
}

func newTrickle() *trickle {
	o := new(trickle)
	for i := range o.lines {
		for k := range o.lines[i] {
			o.lines[i][k] = make(chan struct{})
		}
	}
	o.left.Add(len(o.lines))
	return o
}

func (o *trickle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer o.left.Done()
	i, err := strconv.Atoi(r.URL.Path[1:])
	if err != nil {
		panic(err)
	}
	for k := range o.lines[i] {
		w.(http.Flusher).Flush()
		select {
		case <-o.lines[i][k]:
			fmt.Fprintln(w, k)
		case <-r.Context().Done():
			return
		}
	}
}

// trickling has the guest fetch all answers of o, whose URL is given.
func (o *trickle) trickling(ctx context.Context, t *testing.T, guest, origin string) *bufio.Reader {
	t.Helper()
	all := url.Values{}
	for i := range o.lines {
		all.Add("url", origin+"/"+strconv.Itoa(i))
	}
	r, err := http.NewRequestWithContext(ctx, "GET", guest+"/fetch/trickle?"+all.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return bufio.NewReader(resp.Body)
}

// TestTenAnswersAtOnce: a line is let go only when the one before was seen, and
// those of the answers asked for last come first. A guest that waited for one
// answer would wait for ever.
func TestTenAnswersAtOnce(t *testing.T) {
	o := newTrickle()
	origin := httptest.NewServer(o)
	defer origin.Close()
	_, s := guestServer(t, origin.URL)
	close(o.lines[9][0]) // or the guest's answer would not begin
	got := o.trickling(t.Context(), t, s.URL, origin.URL)
	for k := range o.lines[0] {
		for i := len(o.lines) - 1; i >= 0; i-- {
			if i != 9 || k != 0 {
				close(o.lines[i][k])
			}
			if line, err := got.ReadString('\n'); line != fmt.Sprintln(i, k) || err != nil {
				t.Fatalf("line %d of %d: %q, %v", k, i, line, err)
			}
		}
	}
	if rest, err := io.ReadAll(got); len(rest) > 0 || err != nil {
		t.Errorf("and then %q, %v", rest, err)
	}
}

// TestAllAnswersEndWithTheClient: ten bodies are waited for when the client leaves.
func TestAllAnswersEndWithTheClient(t *testing.T) {
	o := newTrickle()
	origin := httptest.NewServer(o)
	defer origin.Close()
	_, s := guestServer(t, origin.URL)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	for i := range o.lines {
		close(o.lines[i][0])
	}
	got := o.trickling(ctx, t, s.URL, origin.URL)
	for range o.lines {
		if _, err := got.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	o.left.Wait()
}

// TestAnswersWhileItSends: the answer goes on while a backend does not take the
// request, which is larger than all that lies between.
func TestAnswersWhileItSends(t *testing.T) {
	const size = 32 << 20
	take := make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-take:
		case <-r.Context().Done():
		}
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err, " ")
	}))
	defer origin.Close()
	h, s := guestServer(t, origin.URL)
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/fetch/aside?url="+url.QueryEscape(origin.URL), io.LimitReader(zeros{}, size))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for range 1000 {
		if line, err := lines.ReadString('\n'); line != "under way\n" || err != nil {
			t.Fatalf("got %q, %v", line, err)
		}
	}
	close(take)
	rest, err := io.ReadAll(lines)
	if last := strings.TrimLeft(string(rest), "under way\n"); last != fmt.Sprintln(size, "<nil> <nil>") || err != nil {
		t.Errorf("at last %q, %v", last, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.usage.MemoryBytes > size {
		t.Errorf("the guest held %d bytes of it", h.mu.usage.MemoryBytes)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestProxyBothWays: client and origin talk through the proxy, line by line.
func TestProxyBothWays(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := http.NewResponseController(w)
		if err := out.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_ = out.Flush()
		for in := bufio.NewScanner(r.Body); in.Scan(); {
			fmt.Fprintln(w, "heard", in.Text())
			_ = out.Flush()
		}
	}))
	defer origin.Close()
	h, self := exampleWith(t, "proxy", function.Bindings{
		Backends:  []function.Backend{{Name: "origin", URL: origin.URL, Private: true}},
		Variables: map[string]string{"ORIGIN": origin.URL},
	})
	body, say := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), "POST", self+"/talk", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	heard := bufio.NewReader(resp.Body)
	for i := range 10 {
		fmt.Fprintln(say, i)
		if line, err := heard.ReadString('\n'); line != fmt.Sprintln("heard", i) || err != nil {
			t.Fatalf("got %q, %v", line, err)
		}
	}
	say.Close()
	if rest, err := io.ReadAll(heard); len(rest) > 0 || err != nil {
		t.Errorf("and then %q, %v", rest, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t.Logf("%d of %d calls came back to Go", h.mu.usage.Crossings, h.mu.usage.HostCalls)
}

// TestGetsAtOnce: twenty goroutines get, and none is answered before all have
// asked; one more gives up on an answer that does not come.
func TestGetsAtOnce(t *testing.T) {
	h, s := guestServer(t)
	ns := hostcall.Namespace{Project: "default", Name: "store"}
	for i := range 20 {
		if _, err := h.kv.Put(t.Context(), ns, fmt.Sprint("meet", i), make([]byte, i*1000), hostcall.PutOptions{IfRevision: hostcall.AnyRevision}); err != nil {
			t.Fatal(err)
		}
	}
	if _, body := do(t, "GET", s.URL+"/kv-many", ""); body != "190000 true true" {
		t.Errorf("got %q\n%s", body, h.log)
	}
}
