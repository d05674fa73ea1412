package serve_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/edge/forward"
	"github.com/selvage-edge/selvage/edge/serve"
)

// picky is a node that reads n bytes of a request's body, and then says that it may not answer.
func picky(t *testing.T, n int64) forward.Peer {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.CopyN(io.Discard, r.Body, n); err != nil {
			t.Error(err)
		}
		forward.Mark(w.Header(), "placement")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return forward.Peer{Name: "picky-1", PoP: "par", Node: dialed{s.Client(), s.Listener.Addr().String()}}
}

// echo answers with the request's body and a trailer of it.
var echo = invoker(func(_ context.Context, w http.ResponseWriter, r *http.Request, _ serve.Meta) (serve.Usage, error) {
	b, err := io.ReadAll(r.Body)
	_, _ = io.WriteString(w, string(b)+r.Body.(interface{ Trailer() http.Header }).Trailer().Get("X-Sum"))
	return serve.Usage{}, err
})

// posted sends a body in two pieces, with a trailer; the second once it is to go on.
func posted(t *testing.T, n http.Handler, first, then string, http2 bool) (status int, body string) {
	t.Helper()
	s := httptest.NewUnstartedServer(n)
	s.EnableHTTP2 = http2
	s.StartTLS()
	defer s.Close()
	pr, pw := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, pr)
	if err != nil {
		t.Fatal(err)
	}
	r.Host, r.Trailer = "a.example", http.Header{"X-Sum": nil}
	go func() {
		_, _ = io.WriteString(pw, first)
		_, _ = io.WriteString(pw, then) // or the node does not want it
		r.Trailer["X-Sum"] = []string{"7"}
		pw.Close()
	}()
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// A node that refuses does so at no cost: the next gets all of the body, and so does
// this node's own function when nobody takes it.
func TestRefusedWithBody(t *testing.T) {
	lon, _ := nodeWith(t, echo, false, 0)
	to := passedTo(t, lon, "lon-1")
	for _, http2 := range []bool{false, true} {
		nyc, fw := nodeWith(t, nil, true, 0, picky(t, 5), gone, to)
		if status, body := posted(t, nyc, "first", "then", http2); status != 200 || body != "firstthen7" {
			t.Errorf("the next: %d %q, %+v", status, body, fw.Stats())
		}
		nyc, fw = nodeWith(t, echo, true, 0, picky(t, 5), gone)
		if status, body := posted(t, nyc, "first", "then", http2); status != 200 || body != "firstthen7" {
			t.Errorf("here: %d %q, %+v", status, body, fw.Stats())
		}
		large := strings.Repeat("x", 1<<20)
		nyc, fw = nodeWith(t, nil, true, 0, to)
		if status, body := posted(t, nyc, large, "then", http2); status != 200 || body != large+"then7" {
			t.Errorf("a large one: %d, %d bytes, %+v", status, len(body), fw.Stats())
		}
		nyc, fw = nodeWith(t, nil, true, 0, picky(t, 0), to) // which has not begun to read
		if status, body := posted(t, nyc, large, "then", http2); status != 200 || body != large+"then7" {
			t.Errorf("a large one, at the second: %d, %d bytes, %+v", status, len(body), fw.Stats())
		}
		nyc, fw = nodeWith(t, nil, true, 0, picky(t, 100<<10), to)
		if status, _ := posted(t, nyc, large, "", http2); status != 502 || fw.Stats().Nowhere != 1 {
			t.Errorf("more than is kept: %d, %+v", status, fw.Stats())
		}
	}
}

// An answer may end while the client still sends: so does its exchange.
func TestEarlyAnswerEnds(t *testing.T) {
	lon, _ := nodeWith(t, invoker(func(_ context.Context, w http.ResponseWriter, _ *http.Request, _ serve.Meta) (serve.Usage, error) {
		_, err := io.WriteString(w, "enough")
		return serve.Usage{}, err
	}), false, 0)
	nyc, _ := nodeWith(t, nil, true, 0, passedTo(t, lon, "lon-1"))
	for _, http2 := range []bool{false, true} {
		over := make(chan struct{}, 1)
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			nyc.ServeHTTP(w, r)
			over <- struct{}{}
		}))
		s.EnableHTTP2 = http2
		s.StartTLS()
		pr, pw := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, pr)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "a.example"
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		<-over // the client has sent nothing yet, and reads nothing
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "enough" {
			t.Errorf("%q, %v", b, err)
		}
		resp.Body.Close()
		pw.Close()
		s.Close()
	}
}

// duplexed counts what changes how a connection is used.
type duplexed struct {
	*httptest.ResponseRecorder
	asked int
}

func (d *duplexed) EnableFullDuplex() error { d.asked++; return nil }

// The client's connection is left as it is until another node answers.
func TestDuplexWhenAnswered(t *testing.T) {
	lon, _ := nodeWith(t, echo, false, 0)
	for _, c := range []struct {
		peer          forward.Peer
		status, asked int
	}{{gone, 503, 0}, {picky(t, 4), 503, 0}, {passedTo(t, lon, "lon-1"), 200, 1}} {
		nyc, _ := nodeWith(t, nil, true, 0, c.peer)
		w := &duplexed{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest("POST", "https://a.example/", strings.NewReader("body"))
		if nyc.ServeHTTP(w, r); w.Code != c.status || w.asked != c.asked {
			t.Errorf("%s: %d, asked %d times", c.peer.Name, w.Code, w.asked)
		}
	}
}
