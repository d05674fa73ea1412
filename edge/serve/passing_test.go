package serve_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/selvage-edge/selvage/edge/listen"
	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/tooltest"
)

// fields is data for a guest: a pair list at 200, and its length.
func fields(pairs ...native.Pair) (data string, length int) {
	list := native.AppendPairs(nil, pairs)
	var text strings.Builder
	for _, c := range list {
		fmt.Fprintf(&text, "\\%02x", c)
	}
	return fmt.Sprintf(`(data (i32.const 200) "%s")`, text.String()), len(list)
}

// headThen answers with a status and fields, then does more.
func headThen(status int, more string, pairs ...native.Pair) wat {
	data, n := fields(pairs...)
	return wat{data: data + `(data (i32.const 8) "hello")`,
		handle: fmt.Sprintf(`(drop (call $response_head (i32.const %d) (i32.const 200) (i32.const %d)))`, status, n) + more}
}

const sayHello = `(drop (call $response_write (i32.const 8) (i32.const 5)))`

// tellHead answers with the request head as the guest sees it.
var tellHead = wat{handle: `(drop (call $response_write (i32.const 1024) (call $request_head (i32.const 1024) (i32.const 60000))))`}

// passing are the guests of the tests below.
func passing() map[string]wat {
	trailers, n := fields(native.Pair{Name: "x-sum", Value: "abc"}, native.Pair{Name: "Content-Length", Value: "7"}, native.Pair{Name: "X-Sum", Value: "def"})
	set := fmt.Sprintf(`(drop (call $response_trailers (i32.const 200) (i32.const %d)))`, n)
	readAll := `(loop $l (br_if $l (i32.gt_s (call $request_read (i32.const 1024) (i32.const 60000)) (i32.const 0))))`
	return map[string]wat{
		"/": hello, "/head": tellHead, "/sleep": sleeper,
		"/refuses":              headThen(403, ""), // without a look at the body
		"/part":                 headThen(206, sayHello, native.Pair{Name: "Content-Range", Value: "bytes 0-4/10"}, native.Pair{Name: "Accept-Ranges", Value: "bytes"}),
		"/length":               headThen(200, sayHello, native.Pair{Name: "Content-Length", Value: "5"}),
		"/hints":                headThen(103, sayHello, native.Pair{Name: "Link", Value: "</a.css>; rel=preload"}),
		"/trailers":             {data: trailers + `(data (i32.const 8) "hello")`, handle: sayHello + set},
		"/trailers-after-flush": {data: trailers + `(data (i32.const 8) "hello")`, handle: sayHello + `(drop (call $response_flush))` + sayHello + set},
		"/request-trailers": {handle: `(if (i32.ne (call $request_trailers (i32.const 1024) (i32.const 60000)) (i32.const -10)) (then (unreachable)))` +
			readAll + `(drop (call $response_write (i32.const 1024) (call $request_trailers (i32.const 1024) (i32.const 60000))))`},
	}
}

// got is what came back.
type got struct {
	*http.Response
	body   string
	inform []string
}

func (d *door) send(t *testing.T, c http.RoundTripper, r *http.Request) got {
	t.Helper()
	var g got
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		g.inform = append(g.inform, fmt.Sprint(code, " ", h.Get("Link")))
		return nil
	}})
	resp, err := c.RoundTrip(r.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	g.Response, g.body = resp, string(body)
	return g
}

func each(t *testing.T, f func(t *testing.T, d *door, name string, c http.RoundTripper)) {
	d := openDoor(t, listen.Config{}, passing())
	for name, c := range d.clients(t) {
		t.Run(name, func(t *testing.T) { f(t, d, name, c) })
	}
}

// told is a body that remembers that it was asked for.
type told struct {
	io.Reader
	asked chan struct{}
	once  sync.Once
}

func (b *told) Read(p []byte) (int, error) {
	b.once.Do(func() { close(b.asked) })
	return b.Reader.Read(p)
}

// TestContinue: who waits to be asked for its body is asked when the guest wants
// it, and refused without it.
func TestContinue(t *testing.T) {
	each(t, func(t *testing.T, d *door, name string, c http.RoundTripper) {
		body := &told{Reader: strings.NewReader("body"), asked: make(chan struct{})}
		r := d.request(patient(t), t, "POST", "/", body)
		r.ContentLength = 4
		r.Header.Set("Expect", "100-continue")
		if g := d.send(t, c, r); g.StatusCode != 200 || g.body != "hello" || name != "h2" && !slices.Equal(g.inform, []string{"100 "}) {
			t.Errorf("%d %q, %v", g.StatusCode, g.body, g.inform)
		}
		if name == "h1" { // the one client that waits
			body = &told{Reader: strings.NewReader("body"), asked: make(chan struct{})}
			r = d.request(patient(t), t, "POST", "/refuses", body)
			r.ContentLength = 4
			r.Header.Set("Expect", "100-continue")
			if g := d.send(t, c, r); g.StatusCode != 403 || len(g.inform) > 0 {
				t.Errorf("refused: %d, %v", g.StatusCode, g.inform)
			}
			select {
			case <-body.asked:
				t.Error("the body was sent all the same")
			default:
			}
		}
	})
}

// TestHeadAndRange: what a HEAD is answered with, and a part, is the guest's to say.
func TestHeadAndRange(t *testing.T) {
	each(t, func(t *testing.T, d *door, _ string, c http.RoundTripper) {
		for _, path := range []string{"/", "/length"} {
			if g := d.send(t, c, d.request(patient(t), t, "HEAD", path, nil)); g.StatusCode != 200 || g.body != "" || g.ContentLength != 5 {
				t.Errorf("HEAD %s: %d %q, length %d", path, g.StatusCode, g.body, g.ContentLength)
			}
		}
		r := d.request(patient(t), t, "GET", "/part", nil)
		r.Header.Set("Range", "bytes=0-4")
		if g := d.send(t, c, r); g.StatusCode != 206 || g.body != "hello" || g.Header.Get("Content-Range") != "bytes 0-4/10" || g.Header.Get("Accept-Ranges") != "bytes" {
			t.Errorf("a part: %d %q %v", g.StatusCode, g.body, g.Header)
		}
		r = d.request(patient(t), t, "GET", "/head", nil)
		r.Header.Set("Range", "bytes=0-4")
		r.Header.Set("If-Range", `"v1"`)
		if h := guestHead(t, d.send(t, c, r).body); h["Range"] != "bytes=0-4" || h["If-Range"] != `"v1"` {
			t.Errorf("the guest sees %v", h)
		}
	})
}

// guestHead decodes the header fields of what tellHead answered.
func guestHead(t *testing.T, body string) map[string]string {
	t.Helper()
	head, err := native.DecodeHead([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, p := range head.Headers {
		all[p.Name] += p.Value
	}
	return all
}

// TestHopByHop: what is between the client and us, and what claims to be from
// us, does not reach a guest.
func TestHopByHop(t *testing.T) {
	d := openDoor(t, listen.Config{}, map[string]wat{"/head": tellHead})
	c := d.dial(t, "http/1.1")
	fmt.Fprintf(c, "GET /head HTTP/1.1\r\nHost: %s\r\nUpgrade: h2c\r\nConnection: close, Upgrade, HTTP2-Settings, X-Hop\r\nHTTP2-Settings: AAMAAABk\r\n"+
		"X-Hop: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\nX_Under: 1\r\nSelvage-Request-Id: 1\r\nX-Stays: 1\r\n\r\n", doorName)
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := bytes.Cut(all, []byte("\r\n\r\n"))
	if h := guestHead(t, string(body)); len(h) != 1 || h["X-Stays"] != "1" {
		t.Errorf("the guest sees %v", h)
	}
}

func TestEarlyHints(t *testing.T) {
	each(t, func(t *testing.T, d *door, _ string, c http.RoundTripper) {
		g := d.send(t, c, d.request(patient(t), t, "GET", "/hints", nil))
		if g.StatusCode != 200 || g.body != "hello" || !slices.Equal(g.inform, []string{"103 </a.css>; rel=preload"}) || g.Header.Get("Link") != "" {
			t.Errorf("%d %q %v, %q", g.StatusCode, g.body, g.Header, g.inform)
		}
	})
}

func TestTrailers(t *testing.T) {
	each(t, func(t *testing.T, d *door, _ string, c http.RoundTripper) {
		for path, body := range map[string]string{"/trailers": "hello", "/trailers-after-flush": "hellohello"} {
			g := d.send(t, c, d.request(patient(t), t, "GET", path, nil))
			if g.StatusCode != 200 || g.body != body || len(g.Trailer) != 1 || !slices.Equal(g.Trailer["X-Sum"], []string{"abc", "def"}) {
				t.Errorf("%s: %d %q, trailers %v", path, g.StatusCode, g.body, g.Trailer)
			}
		}
		r := d.request(patient(t), t, "POST", "/request-trailers", io.MultiReader(strings.NewReader("body")))
		r.Trailer = http.Header{"X-Sum": {"abc"}, "X_under": {"1"}, "Selvage-Verdict": {"1"}, "X-Two": {"1", "2"}}
		pairs, err := native.DecodePairs([]byte(d.send(t, c, r).body))
		if want := []native.Pair{{Name: "X-Sum", Value: "abc"}, {Name: "X-Two", Value: "1"}, {Name: "X-Two", Value: "2"}}; err != nil || !slices.Equal(pairs, want) {
			t.Errorf("the guest sees %v, %v", pairs, err)
		}
		r = d.request(patient(t), t, "GET", "/head", http.NoBody)
		if g := d.send(t, c, r); g.StatusCode != 200 {
			t.Errorf("afterwards: %d", g.StatusCode)
		}
	})
}

// TestLeavingEndsTheGuest: a guest in a host call ends when its client leaves,
// before it has answered anything, by cancelling or by hanging up.
func TestLeavingEndsTheGuest(t *testing.T) {
	each(t, func(t *testing.T, d *door, name string, c http.RoundTripper) {
		ctx, leave := context.WithCancel(patient(t))
		failed := make(chan error, 1)
		r := d.request(ctx, t, "GET", "/sleep", nil)
		go func() {
			resp, err := c.RoundTrip(r)
			if err == nil {
				_ = resp.Body.Close()
			}
			failed <- err
		}()
		wait(t, "it runs", func() bool { return d.server.Stats().Exchanges == 1 })
		leave()
		if r := d.record(t); r["fault"] != "canceled" || r["status"] != 499. {
			t.Errorf("recorded %v", r)
		}
		if err := <-failed; err == nil {
			t.Error("it was answered")
		}
		wait(t, "it has ended", func() bool { return d.server.Stats().Exchanges == 0 })
	})
}

// TestCurlTrailers has somebody else's client see trailers and hints.
func TestCurlTrailers(t *testing.T) {
	tooltest.Path(t, "curl", "curl")
	d := openDoor(t, listen.Config{}, passing())
	for _, option := range []string{"--http1.1", "--http2"} {
		for path, want := range map[string][]string{"/trailers-after-flush": {"x-sum: abc", "x-sum: def"}, "/hints": {" 103", "link: </a.css>"}, "/part": {" 206", "content-range: bytes 0-4/10"}} {
			out, err := exec.CommandContext(patient(t), "curl", "-skD-", "-o/dev/null", option, "--connect-to", "::"+d.sockets.Addr(),
				"https://"+doorName+path).CombinedOutput()
			for _, w := range want {
				if err != nil || !strings.Contains(strings.ToLower(string(out)), w) {
					t.Errorf("%s %s: no %q in %s, %v", option, path, w, out, err)
				}
			}
		}
	}
}
