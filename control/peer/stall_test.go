package peer

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// counted is a body without end that tells when a stream's window of it was read.
type counted struct {
	n    int
	full chan<- struct{}
}

func (c *counted) Read(p []byte) (int, error) {
	before := c.n
	c.n += len(p)
	if before < streamWindow && c.n >= streamWindow {
		c.full <- struct{}{}
	}
	return len(p), nil
}

// Streams that nobody reads, in either direction, leave room for others.
func TestStreamsDoNotStallOthers(t *testing.T) {
	const streams = 64
	full := make(chan struct{}, streams)
	f := newFleet(t)
	addr, _ := serve(t, f.member, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/answers":
			_, _ = io.Copy(w, &counted{full: full}) // until the client leaves
		case "/listens":
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			_, _ = io.Copy(w, r.Body)
		}
	}))
	c := client(t, f.join("edge-1").Member, toControl, addr)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, path := range []string{"/answers", "/listens"} {
		for range streams {
			var body io.Reader
			if path == "/listens" {
				body = &counted{full: full}
			}
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, path, body)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { cancel(); resp.Body.Close() }()
		}
		for i := range streams {
			select {
			case <-full:
			case <-ctx.Done():
				t.Fatalf("%s: %d streams are full, and no more gets any room", path, i)
			}
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/echo", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "hello" {
			t.Errorf("%s: %q, %v", path, b, err)
		}
		resp.Body.Close()
	}
}

// What comes after a body, and is known only then, arrives.
func TestRequestTrailers(t *testing.T) {
	f := newFleet(t)
	addr, _ := serve(t, f.member, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, r.Trailer.Get("X-Sum"))
	}))
	c := client(t, f.join("edge-1").Member, toControl, addr)
	pr, pw := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/x", pr)
	if err != nil {
		t.Fatal(err)
	}
	r.Trailer = http.Header{"X-Sum": nil}
	go func() {
		_, _ = io.WriteString(pw, "body")
		r.Trailer["X-Sum"] = []string{"7"}
		pw.Close()
	}()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "7" {
		t.Errorf("%q, %v", b, err)
	}
}

// The largest head that a client may send has room, with what goes along.
func TestHeadHasRoom(t *testing.T) {
	f := newFleet(t)
	addr, _ := serve(t, f.member, whoami)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 128 {
		r.Header.Add("X-Field", strings.Repeat("a", 32<<10/128))
	}
	r.Header.Set("Selvage-Forward", strings.Repeat("a", 48<<10))
	resp, err := client(t, f.join("edge-1").Member, toControl, addr).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}
