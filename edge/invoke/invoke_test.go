package invoke

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/edge/geo"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
)

// script stands for a guest: what it does with its exchange is the test's.
type script struct {
	version function.Version
	run     func(ctx context.Context, x guest.Exchange) error
}

func (s *script) Version() *function.Version { return &s.version }

func (s *script) Invoke(ctx context.Context, _ guest.Ports, x guest.Exchange) (guest.Usage, error) {
	stop := context.AfterFunc(ctx, x.Interrupt)
	defer stop()
	return guest.Usage{Started: true}, s.run(ctx, x)
}

// node serves a script the way edge/serve does, and keeps how each exchange ended.
type node struct {
	*httptest.Server
	errs    chan error
	aborted chan bool
}

// noPanic fails the test when net/http reports that it lost track of a
// connection, which it does by a panic of its own.
type noPanic struct{ t *testing.T }

func (l noPanic) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "panic serving") {
		l.t.Errorf("net/http: %s", p)
	}
	return len(p), nil
}

// counting remembers whether a head was sent.
type counting struct {
	http.ResponseWriter
	status int
}

func (w *counting) WriteHeader(status int) {
	if status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *counting) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func serve(t *testing.T, h2 bool, s *script) *node {
	t.Helper()
	n := &node{errs: make(chan error, 8), aborted: make(chan bool, 8)}
	target := New(s, guest.Ports{})
	n.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &counting{ResponseWriter: w}
		_, err := target.Invoke(r.Context(), c, r, telemetry.Meta{RequestID: "r1"})
		n.errs <- err
		n.aborted <- err != nil && c.status != 0
		switch {
		case err != nil && c.status != 0:
			panic(http.ErrAbortHandler)
		case err != nil:
			w.WriteHeader(fault.Of(err).Kind.Status())
		}
	}))
	n.Config.ErrorLog = log.New(noPanic{t}, "", 0)
	n.EnableHTTP2 = h2
	if h2 {
		n.StartTLS()
	} else {
		n.Start()
	}
	t.Cleanup(n.Close)
	return n
}

// answer is a script that sends a head and a body and is done.
func answer(status int, body string, headers ...native.Pair) *script {
	return &script{run: func(_ context.Context, x guest.Exchange) error {
		if err := x.WriteHead(status, native.AppendPairs(nil, headers)); err != nil {
			return err
		}
		return x.Finish([]byte(body))
	}}
}

func h(name, value string) native.Pair { return native.Pair{Name: name, Value: value} }

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name, method string
		s            *script
		status       int
		body         string
		headers      map[string]string // "" : must be absent
		fault        fault.Kind
	}{
		{name: "plain", s: answer(200, "hello", h("content-type", "text/plain"), h("X-A", " b ")), status: 200, body: "hello",
			headers: map[string]string{"Content-Type": "text/plain", "X-A": "b", "Content-Length": "5"}},
		{name: "no type is not guessed", s: answer(200, "<html>"), status: 200, body: "<html>", headers: map[string]string{"Content-Type": ""}},
		{name: "empty", s: answer(404, ""), status: 404, headers: map[string]string{"Content-Length": "0"}},
		{name: "204 has no length", s: answer(204, "", h("content-length", "0")), status: 204, headers: map[string]string{"Content-Length": ""}},
		{name: "204 has no body", s: answer(204, "stray"), status: 204},
		{name: "304 has no length", s: answer(304, "", h("content-length", "99")), status: 304, headers: map[string]string{"Content-Length": ""}},
		{name: "head", method: "HEAD", s: answer(200, "hello"), status: 200, headers: map[string]string{"Content-Length": "5"}},
		{name: "head, length given", method: "HEAD", s: answer(200, "", h("Content-Length", "7")), status: 200, headers: map[string]string{"Content-Length": "7"}},
		{name: "head, nothing known", method: "HEAD", s: answer(200, ""), status: 200, headers: map[string]string{"Content-Length": ""}},
		{name: "hop by hop", s: answer(200, "x", h("connection", "x-mine, keep-alive"), h("X-Mine", "1"), h("keep-alive", "1"),
			h("te", "trailers"), h("upgrade", "h2c"), h("transfer-encoding", "chunked"), h("Proxy-Authenticate", "Basic"),
			h("Trailer", "X-T"), h("Alt-Svc", `h3="evil:443"`), h("X-Kept", "1")), status: 200, body: "x",
			headers: map[string]string{"X-Mine": "", "Keep-Alive": "", "Te": "", "Upgrade": "", "Proxy-Authenticate": "", "Trailer": "", "Alt-Svc": "", "X-Kept": "1"}},
		{name: "splitting", s: answer(200, "x", h("X-A", "b\r\nSet-Cookie: c=d")), status: 500, fault: fault.BadResponse, headers: map[string]string{"Set-Cookie": ""}},
		{name: "nul", s: answer(200, "x", h("X-A", "b\x00")), status: 500, fault: fault.BadResponse},
		{name: "name with a space", s: answer(200, "x", h("X A", "b")), status: 500, fault: fault.BadResponse},
		{name: "name with a colon", s: answer(200, "x", h("Trailer:X", "b")), status: 500, fault: fault.BadResponse},
		{name: "empty name", s: answer(200, "x", h("", "b")), status: 500, fault: fault.BadResponse},
		{name: "pseudo header", s: answer(200, "x", h(":status", "404")), status: 500, fault: fault.BadResponse},
		{name: "status 0", s: answer(0, "x"), status: 500, fault: fault.BadResponse},
		{name: "status 101", s: answer(101, "x"), status: 500, fault: fault.BadResponse},
		{name: "status 600", s: answer(600, "x"), status: 500, fault: fault.BadResponse},
		{name: "length too long", s: answer(200, "x", h("content-length", "2")), status: 500, fault: fault.BadResponse},
		{name: "length too short", s: answer(200, "xyz", h("content-length", "2")), status: 500, fault: fault.BadResponse},
		{name: "length no number", s: answer(200, "x", h("content-length", "+1")), status: 500, fault: fault.BadResponse},
		{name: "two lengths", s: answer(200, "x", h("content-length", "1"), h("Content-Length", "2")), status: 500, fault: fault.BadResponse},
		{name: "one length twice", s: answer(200, "x", h("content-length", "1"), h("Content-Length", "1")), status: 200, body: "x"},
		{name: "fault", s: &script{run: func(context.Context, guest.Exchange) error { return fault.New(fault.CPU, "secret detail", nil) }},
			status: 504, fault: fault.CPU},
		{name: "no room", s: &script{run: func(context.Context, guest.Exchange) error { return fault.New(fault.Capacity, "", nil) }}, status: 503, fault: fault.Capacity},
		{name: "foreign error", s: &script{run: func(context.Context, guest.Exchange) error { return errors.New("disk") }}, status: 500, fault: fault.Internal},
		{name: "two heads", s: &script{run: func(_ context.Context, x guest.Exchange) error {
			_ = x.WriteHead(200, nil)
			return x.WriteHead(201, nil)
		}}, status: 500, fault: fault.BadResponse},
	} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/h2=%t", c.name, h2), func(t *testing.T) {
				n := serve(t, h2, c.s)
				method := c.method
				if method == "" {
					method = "GET"
				}
				r, _ := http.NewRequest(method, n.URL, nil)
				res, err := n.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatal(err)
				}
				if res.StatusCode != c.status || c.fault == 0 && string(body) != c.body {
					t.Errorf("got %d %q, want %d %q", res.StatusCode, body, c.status, c.body)
				}
				for name, want := range c.headers {
					if got := res.Header.Get(name); got != want {
						t.Errorf("%s: got %q, want %q", name, got, want)
					}
				}
				if <-n.aborted {
					t.Error("the answer was broken off")
				}
				err = <-n.errs
				if c.fault == 0 && err != nil || c.fault != 0 && (err == nil || fault.Of(err).Kind != c.fault) {
					t.Errorf("got fault %v, want %v", err, c.fault)
				}
			})
		}
	}
}

func TestFaultAfterTheHeadBreaksTheAnswerOff(t *testing.T) {
	broken := map[string]func(x guest.Exchange) error{
		"fault":     func(guest.Exchange) error { return fault.New(fault.Trap, "", nil) },
		"too short": func(x guest.Exchange) error { return x.Finish(nil) },
		"too long":  func(x guest.Exchange) error { return x.WriteBody(make([]byte, 200)) },
	}
	for name, rest := range broken {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/h2=%t", name, h2), func(t *testing.T) {
				n := serve(t, h2, &script{run: func(_ context.Context, x guest.Exchange) error {
					head := native.AppendPairs(nil, []native.Pair{h("content-length", "100")})
					if err := errors.Join(x.WriteHead(200, head), x.WriteBody([]byte("half")), x.Flush()); err != nil {
						return err
					}
					return rest(x)
				}})
				res, err := n.Client().Get(n.URL)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if body, err := io.ReadAll(res.Body); err == nil {
					t.Errorf("the client takes %q for the whole answer", body)
				}
				if !<-n.aborted {
					t.Error("the answer was not broken off")
				}
			})
		}
	}
}

func echo(_ context.Context, x guest.Exchange) error {
	if err := x.WriteHead(200, nil); err != nil {
		return err
	}
	p := make([]byte, 32<<10)
	for {
		n, err := x.ReadBody(p)
		if n > 0 {
			if err := x.WriteBody(p[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return x.Finish(nil)
		}
		if err != nil {
			return err
		}
	}
}

func TestBodiesStreamBothWays(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%t", h2), func(t *testing.T) {
			n := serve(t, h2, &script{run: echo})
			const size = 64 << 20
			res, err := n.Client().Post(n.URL, "application/octet-stream", io.LimitReader(zeros{}, size))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if got, err := io.Copy(io.Discard, res.Body); err != nil || got != size {
				t.Errorf("%d bytes came back, %v", got, err)
			}
			if err := <-n.errs; err != nil {
				t.Error(err)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBodyLimit(t *testing.T) {
	s := &script{run: echo}
	s.version.Limits.RequestBody = 1000
	for _, c := range []struct {
		name string
		body io.Reader
		runs bool
	}{
		{"declared", strings.NewReader(strings.Repeat("x", 1001)), false},
		{"streamed", io.MultiReader(strings.NewReader(strings.Repeat("x", 1001))), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ran := false
			s.run = func(ctx context.Context, x guest.Exchange) error { // reads all, then answers
				ran = true
				p := make([]byte, 100)
				for {
					if _, err := x.ReadBody(p); err == io.EOF {
						return x.Finish(nil)
					} else if err != nil {
						return err
					}
				}
			}
			n := serve(t, false, s)
			res, err := n.Client().Post(n.URL, "text/plain", c.body)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != 413 {
				t.Errorf("got %d, want 413", res.StatusCode)
			}
			err = <-n.errs
			if ran != c.runs {
				t.Errorf("the guest ran: %t, want %t", ran, c.runs)
			}
			if fault.Of(err).Kind != fault.BodyTooLarge || !strings.Contains(err.Error(), "limits.request_body") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// send writes raw to a node and returns the connection.
func send(t *testing.T, n *node, raw string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", n.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMalformedBodyIs400(t *testing.T) {
	n := serve(t, false, &script{run: func(_ context.Context, x guest.Exchange) error {
		_, err := x.ReadBody(make([]byte, 10))
		return err
	}})
	c := send(t, n, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnothex\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != 400 {
		t.Errorf("got %v, %v; want 400", res, err)
	}
	if k := fault.Of(<-n.errs).Kind; k != fault.BodyBroken {
		t.Errorf("fault %v", k)
	}
}

func TestClientGoneWhileReading(t *testing.T) {
	n := serve(t, false, &script{run: func(_ context.Context, x guest.Exchange) error {
		_, err := x.ReadBody(make([]byte, 10))
		return err
	}})
	send(t, n, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").Close()
	if k := fault.Of(<-n.errs).Kind; k != fault.Canceled {
		t.Errorf("fault %v, want canceled", k)
	}
}

func TestInterruptEndsAReadAndTheStatusIsStillSent(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%t", h2), func(t *testing.T) {
			n := serve(t, h2, &script{run: func(_ context.Context, x guest.Exchange) error {
				go func() { time.Sleep(10 * time.Millisecond); x.Interrupt() }()
				if _, err := x.ReadBody(make([]byte, 10)); err == nil {
					return errors.New("the read gave bytes")
				}
				return fault.New(fault.Wall, "", nil)
			}})
			body, w := io.Pipe()
			defer w.Close()
			r, _ := http.NewRequest("POST", n.URL, body)
			res, err := n.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != 504 {
				t.Errorf("got %d, want 504", res.StatusCode)
			}
		})
	}
}

func TestInterruptEndsAWrite(t *testing.T) {
	n := serve(t, false, &script{run: func(_ context.Context, x guest.Exchange) error {
		time.AfterFunc(50*time.Millisecond, x.Interrupt)
		for err := x.WriteHead(200, nil); ; err = x.WriteBody(make([]byte, 64<<10)) {
			if err != nil {
				return err
			}
		}
	}})
	send(t, n, "GET / HTTP/1.1\r\nHost: a\r\n\r\n") // and never reads
	if k := fault.Of(<-n.errs).Kind; k != fault.Canceled {
		t.Errorf("fault %v", k)
	}
	if !<-n.aborted {
		t.Error("the answer was not broken off")
	}
}

func TestEarlyHints(t *testing.T) {
	s := &script{run: func(_ context.Context, x guest.Exchange) error {
		if err := x.WriteHead(103, native.AppendPairs(nil, []native.Pair{h("Link", "</a.css>; rel=preload")})); err != nil {
			return err
		}
		if err := x.WriteHead(200, nil); err != nil {
			return err
		}
		return x.Finish([]byte("ok"))
	}}
	n := serve(t, false, s)
	r := bufio.NewReader(send(t, n, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	first, err := http.ReadResponse(r, nil)
	if err != nil || first.StatusCode != 103 || first.Header.Get("Link") == "" {
		t.Fatalf("got %v, %v", first, err)
	}
	last, err := http.ReadResponse(r, nil)
	if err != nil || last.StatusCode != 200 || last.Header.Get("Link") != "" {
		t.Errorf("got %v, %v", last, err)
	}
	old := bufio.NewReader(send(t, n, "GET / HTTP/1.0\r\nHost: a\r\n\r\n"))
	if only, err := http.ReadResponse(old, nil); err != nil || only.StatusCode != 200 {
		t.Errorf("HTTP/1.0: got %v, %v", only, err)
	}
}

func TestRequestHead(t *testing.T) {
	r := httptest.NewRequest("POST", "http://example.test/a?b=c", strings.NewReader("body"))
	r.Header = http.Header{
		"X-B": {"2"}, "X-A": {"1", "0"}, "Cookie": {"a=1", "b=2"},
		"Connection": {"keep-alive, X-Secret"}, "X-Secret": {"s"}, "Keep-Alive": {"5"}, "Te": {"trailers"},
		"Upgrade": {"h2c"}, "Proxy-Authorization": {"x"}, "Transfer-Encoding": {"chunked"}, "Trailer": {"X"},
	}
	v := &function.Version{ID: function.ID{Project: "p", Name: "f"}, Digest: function.DigestOf(nil)}
	got, err := native.DecodeHead(appendRequestHead(nil, r, v, &telemetry.Meta{
		RequestID: "id", Scheme: "https", Authority: "example.test", Target: "/a?b=c", Protocol: "HTTP/1.1", Place: telemetry.Place{PoP: "fra"},
	}, &geo.Place{Country: "DE", Located: true, Latitude: 50.11, Longitude: 8.68, ASN: 64500, EU: true, Assumed: true}, true))
	if err != nil {
		t.Fatal(err)
	}
	if got.Method != "POST" || got.Scheme != "https" || got.Authority != "example.test" || got.Target != "/a?b=c" ||
		got.Protocol != "HTTP/1.1" || !got.Body || got.ContentLength != 4 {
		t.Errorf("got %+v", got)
	}
	want := "[{Cookie a=1; b=2} {X-A 1} {X-A 0} {X-B 2}]"
	if fmt.Sprint(got.Headers) != want {
		t.Errorf("headers %v, want %s", got.Headers, want)
	}
	if got.Metadata[0] != h("request-id", "id") || got.Metadata[5] != h("project", "p") {
		t.Errorf("metadata %v", got.Metadata)
	}
	wantPlace := []native.Pair{h("country", "DE"), h("latitude", "50.11"), h("longitude", "8.68"), h("asn", "64500"), h("eu", "1"), h("place-assumed", "1")}
	if !slices.Equal(got.Metadata[8:], wantPlace) {
		t.Errorf("place %v, want %v", got.Metadata[8:], wantPlace)
	}
}

// This test and the next pin what net/http does with a body that the guest
// left: the rest must never be taken for a request.
func TestUnreadBodyKeepsTheConnection(t *testing.T) {
	n := serve(t, false, answer(200, "no thanks"))
	const post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
	r := bufio.NewReader(send(t, n, post+"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
	for i := range 2 {
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("answer %d: %v, %v", i, res, err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
	}
	if rest, _ := io.ReadAll(r); len(rest) > 0 {
		t.Errorf("a third answer: %q", rest)
	}
}

func TestAnswerBeforeTheBodyEndsClosesTheConnection(t *testing.T) {
	n := serve(t, false, &script{run: func(_ context.Context, x guest.Exchange) error {
		return errors.Join(x.WriteHead(200, nil), x.WriteBody([]byte("early")), x.Finish(nil))
	}})
	const post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
	answers, err := io.ReadAll(send(t, n, post+"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(answers), "HTTP/1.1 200"); got != 1 {
		t.Errorf("%d answers: %q", got, answers)
	}
	if !strings.Contains(string(answers), "\r\nConnection: close\r\n") {
		t.Errorf("the client is not told that the connection ends: %q", answers)
	}
}

func FuzzCheckHead(f *testing.F) {
	f.Add(200, native.AppendPairs(nil, []native.Pair{h("a", "b"), h("content-length", "3")}))
	f.Add(103, []byte{1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, status int, encoded []byte) {
		head, err := checkHead(status, encoded)
		if err != nil {
			if fault.Of(err).Kind != fault.BadResponse {
				t.Fatalf("%v is not a bad response", err)
			}
			return
		}
		sent := http.Header{}
		head.apply(sent)
		for name, values := range sent {
			if !native.ValidName(name) || native.HopByHop(name) || name == "Alt-Svc" {
				t.Fatalf("header name %q got through", name)
			}
			if strings.ContainsAny(strings.Join(values, ""), "\r\n\x00") {
				t.Fatalf("value %q got through", values)
			}
		}
	})
}

// Where a client is comes from the node alone: what it says itself, in the
// fields of whatever CDN, does not reach the guest.
func TestForgedPlaceIsDropped(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	for _, name := range []string{"Selvage-Geo-Country", "CF-IPCountry", "cf-ipcity", "CloudFront-Viewer-Country", "Fastly-Geo-City", "GeoIP-Country", "X-AppEngine-Country",
		"X-AppEngine-Region", "X-Country-Code", "X-Geo-Country", "X-GeoIP-Country", "X-Vercel-IP-Country"} {
		r.Header.Set(name, "forged")
	}
	kept := []string{"Accept", "Cf-Ray", "Fastly-Client", "Geography", "X-A", "X-Appengine-Trace"}
	for _, name := range kept {
		r.Header.Set(name, "kept")
	}
	var got []string
	for _, p := range requestHeaders(nil, r) {
		got = append(got, p.Name)
	}
	if !slices.Equal(got, kept) {
		t.Errorf("got %v, want %v", got, kept)
	}
}
