package edge

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func answerTo(t *testing.T, method string, h http.HandlerFunc) *record {
	t.Helper()
	x := &record{body: strings.NewReader("")}
	invoke(h, head(0, 0, [5]string{method, "http", "h", "/", "HTTP/1.1"}, nil, nil), x)
	return x
}

func TestAnswer(t *testing.T) {
	for _, c := range []struct {
		name, method string
		handler      http.HandlerFunc
		heads        []int
		headers      []string
		body         string
	}{
		{"nothing", "GET", func(http.ResponseWriter, *http.Request) {}, []int{200}, []string{"Content-Length: 0"}, ""},
		{"short", "GET", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<p>") },
			[]int{200}, []string{"Content-Length: 3", "Content-Type: text/html; charset=utf-8"}, "<p>"},
		{"head", "HEAD", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<p>") },
			[]int{200}, []string{"Content-Length: 3", "Content-Type: text/html; charset=utf-8"}, ""},
		{"long", "GET", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("a", 2049)) },
			[]int{200}, []string{"Content-Type: text/plain; charset=utf-8"}, strings.Repeat("a", 2049)},
		{"flushed", "GET", func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush(); io.WriteString(w, "x") },
			[]int{200}, nil, "x"},
		{"no content", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(204)
			if _, err := io.WriteString(w, "x"); !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Error(err)
			}
		}, []int{204}, nil, ""},
		{"early hints", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "a")
			w.Header().Set("Content-Length", "7")
			w.WriteHeader(103)
			w.Header().Del("Content-Length")
			w.WriteHeader(404)
		}, []int{103, 404}, []string{"Content-Length: 0", "Link: a"}, ""},
		{"trailers are no headers", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-T")
			w.Header().Set(http.TrailerPrefix+"X-U", "1")
			w.Header().Set("Content-Type", "a/b")
			io.WriteString(w, "x")
			w.Header().Set("X-T", "1")
		}, []int{200}, []string{"Content-Type: a/b"}, "x"},
		{"injection", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-A", "a\r\nb\x00c\x7f ")
			w.Header()["x y"] = []string{"1"}
		}, []int{200}, []string{"Content-Length: 0", "X-A: a  b c"}, ""},
		{"panic", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Secret", "1")
			io.WriteString(w, "partial")
			panic("bug")
		}, []int{500}, []string{"Content-Length: 22", "Content-Type: text/plain; charset=utf-8", "X-Content-Type-Options: nosniff"}, "Internal Server Error\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := answerTo(t, c.method, c.handler)
			slices.Sort(x.headers)
			if !slices.Equal(x.heads, c.heads) || !slices.Equal(x.headers, c.headers) || x.out.String() != c.body || x.aborted {
				t.Errorf("got %v %q %q aborted %t", x.heads, x.headers, x.out.String(), x.aborted)
			}
		})
	}
}

func TestTrailers(t *testing.T) {
	x := &record{body: strings.NewReader("body"), came: []string{"x-sum", "abc", "X-Late", "1", "x-late", "2"}}
	h := head(flagBody, -1, [5]string{"POST", "http", "h", "/", "HTTP/1.1"}, nil, [][2]string{{"Trailer", "X-Sum, x-never"}})
	invoke(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Trailer) != 2 || r.Header.Get("Trailer") != "" {
			t.Errorf("before the body: %v, %v", r.Trailer, r.Header)
		}
		copied := *r
		io.Copy(w, r.Body)
		if got := r.Trailer; got.Get("X-Sum") != "abc" || !slices.Equal(got["X-Late"], []string{"1", "2"}) || copied.Trailer.Get("X-Sum") != "abc" {
			t.Errorf("after the body: %v", got)
		}
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Sum", "too late to be declared")
		w.Header().Set(http.TrailerPrefix+"X-Undeclared", "a\r\nb")
	}), h, x)
	if x.out.String() != "body" || !slices.Equal(x.sent, []string{"X-Undeclared: a  b"}) {
		t.Errorf("answered %q, trailers %q", x.out.String(), x.sent)
	}
	x = answerTo(t, "GET", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-T, X-Never")
		io.WriteString(w, "x")
		w.Header().Set("X-T", "1")
	})
	if !slices.Equal(x.sent, []string{"X-T: 1"}) {
		t.Errorf("trailers %q", x.sent)
	}
}

func TestAbort(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"panic after the head": func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush(); panic("bug") },
		"abort":                func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x"); panic(http.ErrAbortHandler) },
	} {
		if x := answerTo(t, "GET", h); !x.aborted || x.out.Len() > 0 {
			t.Errorf("%s: aborted %t, body %q", name, x.aborted, x.out.String())
		}
	}
}

// TestClientLeft: a handler learns from its writes that nobody listens.
func TestClientLeft(t *testing.T) {
	x := &record{body: strings.NewReader(""), fails: ErrClosed}
	h := func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).Flush(); !errors.Is(err, ErrClosed) {
			t.Errorf("flush: %v", err)
		}
		if _, err := io.WriteString(w, strings.Repeat("x", 5000)); !errors.Is(err, ErrClosed) {
			t.Errorf("write: %v", err)
		}
	}
	invoke(http.HandlerFunc(h), head(0, 0, [5]string{"GET", "http", "h", "/", "HTTP/1.1"}, nil, nil), x)
	if x.out.Len() > 0 {
		t.Errorf("%d bytes were sent", x.out.Len())
	}
}

func TestRehearsal(t *testing.T) {
	h := rehearsalHandler()
	for i, want := range []struct {
		status int
		least  int64
	}{{http.StatusOK, 40}, {http.StatusCreated, 16}} {
		invoke(h, rehearsalHeads()[i], newRehearsal())
		if writer.err != nil || writer.status != want.status || writer.written < want.least {
			t.Errorf("rehearsal %d: status %d, %d bytes, %v", i, writer.status, writer.written, writer.err)
		}
	}
}
