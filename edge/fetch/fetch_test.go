package fetch

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func client(t *testing.T, c Config) *Client {
	t.Helper()
	if c.Allow == nil {
		c.Allow = loopback
	}
	cl, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func get(ctx context.Context, c *Client, v *function.Version, url string, h http.Header) (*http.Response, error) {
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return nil, err
	}
	if h != nil {
		r.Header = h
	}
	return c.Fetch(ctx, v, r)
}

func readAll(t *testing.T, r *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestOnlyBackends(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host+r.RequestURI) }))
	defer s.Close()
	c, host := client(t, Config{}), strings.TrimPrefix(s.URL, "http://")
	v := bind("https://example.com", s.URL)
	if got, want := fetchAll(t, c, v, s.URL+"/a/../b?x=%20#frag"), host+"/a/../b?x=%20"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, u := range []string{"http://127.0.0.1:1", "https://" + host, "http://other.example", s.URL[:len(s.URL)-1], "http://user@" + host} {
		if _, err := get(context.Background(), c, v, u, nil); !errors.Is(err, hostcall.ErrDenied) && !errors.Is(err, hostcall.ErrInvalid) {
			t.Errorf("%s: %v; want denied", u, err)
		}
	}
	if _, err := get(context.Background(), c, bind(), s.URL, nil); !errors.Is(err, hostcall.ErrDenied) || !strings.Contains(err.Error(), "selvage.toml") {
		t.Errorf("without a binding: %v", err)
	}
}

func fetchAll(t *testing.T, c *Client, v *function.Version, url string) string {
	t.Helper()
	r, err := get(context.Background(), c, v, url, nil)
	return readAll(t, r, err)
}

func TestRedirectsAreTheFunctions(t *testing.T) {
	var hits atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		http.Redirect(w, r, "http://169.254.169.254/", http.StatusFound)
	}))
	defer s.Close()
	r, err := get(context.Background(), client(t, Config{}), bind(s.URL), s.URL, nil)
	if readAll(t, r, err); r.StatusCode != 302 || r.Header.Get("Location") == "" || hits.Load() != 1 {
		t.Errorf("%d %v after %d requests", r.StatusCode, r.Header, hits.Load())
	}
}

func TestHeaders(t *testing.T) {
	got := make(chan http.Header, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
	}))
	defer s.Close()
	c := client(t, Config{CDN: "weft"})
	r, err := get(context.Background(), c, bind(s.URL), s.URL, http.Header{
		"Connection": {"X-Private, close"}, "X-Private": {"1"}, "Te": {"trailers"}, "Upgrade": {"h2c"}, "Proxy-Authorization": {"x"},
		"X-Forwarded-For": {"1.2.3.4"}, "X-Forwarded-Host": {"x"}, "Forwarded": {"for=x"}, "X_forwarded_for": {"1.2.3.4"}, "X-Real-Ip": {"1.2.3.4"},
		"Host": {"evil"}, "Content-Length": {"7"}, "Transfer-Encoding": {"chunked"}, "Expect": {"100-continue"},
		"Accept": {"text/html"}, "Authorization": {"Bearer own"}, "X-Two": {"1", "2"}, "Cdn-Loop": {"other"},
	})
	readAll(t, r, err)
	h := <-got
	for k, want := range map[string]string{
		"Accept": "text/html", "Authorization": "Bearer own", "X-Two": "1,2", "User-Agent": "Selvage", "Cdn-Loop": "other, weft",
	} {
		if v := strings.Join(h[k], ","); v != want {
			t.Errorf("%s: %q, want %q", k, v, want)
		}
		delete(h, k)
	}
	if len(h) > 0 {
		t.Errorf("also sent: %v", h)
	}
	if r.Header.Get("X-Hop") != "" || r.Header.Get("Keep-Alive") != "" || len(r.Header["Set-Cookie"]) != 2 {
		t.Errorf("response headers: %v", r.Header)
	}
}

func TestBadRequests(t *testing.T) {
	c := client(t, Config{})
	many := http.Header{}
	for i := range maxHeaderLines + 1 {
		many.Set(fmt.Sprintf("X-%d", i), "v")
	}
	for name, tt := range map[string]struct {
		method string
		header http.Header
		want   error
	}{
		"connect":            {"CONNECT", nil, hostcall.ErrInvalid},
		"trace":              {"TRACE", nil, hostcall.ErrInvalid},
		"no token":           {"GE T", nil, hostcall.ErrInvalid},
		"a name with colon":  {"GET", http.Header{"A:b": {"c"}}, hostcall.ErrInvalid},
		"a value with CR LF": {"GET", http.Header{"A": {"b\r\nC: d"}}, hostcall.ErrInvalid},
		"many lines":         {"GET", many, hostcall.ErrTooLarge},
		"a long line":        {"GET", http.Header{"A": {strings.Repeat("b", maxHeaderBytes)}}, hostcall.ErrTooLarge},
	} {
		r, _ := http.NewRequest("GET", "http://127.0.0.1:4444/", nil)
		r.Method, r.Header = tt.method, tt.header
		if _, err := c.Fetch(context.Background(), bind("http://127.0.0.1:4444"), r); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

func TestLoops(t *testing.T) {
	h := func(v ...string) http.Header { return http.Header{"Cdn-Loop": v} }
	for _, tt := range []struct {
		in   http.Header
		want int
	}{
		{h(), 0}, {h(""), 0}, {h("other"), 0}, {h("selvage"), 1}, {h("Selvage; v=1, x, selvage"), 2}, {h("selvage", "selvage"), 2},
		{h(`x; a="selvage, selvage"`), 0}, {h(`x; a="\",selvage`), 0}, {h("selvagex, xselvage"), 0},
	} {
		if n := Passes(tt.in, "selvage"); n != tt.want {
			t.Errorf("%q: %d, want %d", tt.in, n, tt.want)
		}
	}
	got := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("Cdn-Loop") }))
	defer s.Close()
	c := client(t, Config{})
	// What the exchange came with counts, whatever the function says.
	ctx := WithLoop(context.Background(), h("selvage, selvage", "selvage"))
	r, err := get(ctx, c, bind(s.URL), s.URL, h("nothing"))
	readAll(t, r, err)
	if v := <-got; v != "selvage, selvage, selvage, selvage" {
		t.Errorf("sent %q", v)
	}
	ctx = WithLoop(context.Background(), h("selvage, selvage, selvage, selvage"))
	if _, err := get(ctx, c, bind(s.URL), s.URL, nil); !errors.Is(err, hostcall.ErrDenied) {
		t.Errorf("the fifth pass: %v", err)
	}
}

func TestTLSAndHTTP2(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	if _, err := get(context.Background(), client(t, Config{}), bind(s.URL), s.URL, nil); !errors.Is(err, hostcall.ErrUnavailable) {
		t.Errorf("an unknown authority: %v", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	if got := fetchAll(t, client(t, Config{Roots: roots}), bind(s.URL), s.URL); got != "HTTP/2.0" {
		t.Errorf("spoke %s", got)
	}
}

func TestNoProxyFromTheEnvironment(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "direct") }))
	defer s.Close()
	if got := fetchAll(t, client(t, Config{}), bind(s.URL), s.URL); got != "direct" {
		t.Error(got)
	}
}

func TestStreaming(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		w.WriteHeader(200)
		rc.Flush()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintf(w, "<%s>\n", lines.Text())
			rc.Flush()
		}
	}))
	defer s.Close()
	in, out := io.Pipe()
	r, _ := http.NewRequest("POST", s.URL, in)
	resp, err := client(t, Config{}).Fetch(context.Background(), bind(s.URL), r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for _, w := range []string{"one", "two"} { // each answer comes before the next line is sent
		fmt.Fprintln(out, w)
		if got, err := lines.ReadString('\n'); got != "<"+w+">\n" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	out.Close()
	if _, err := lines.ReadByte(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// TestHostileOrigins answers with raw bytes; every mode must end in an orderly
// error or an orderly response, soon.
func TestHostileOrigins(t *testing.T) {
	ok := "HTTP/1.1 200 OK\r\n"
	modes := map[string]struct {
		say  string
		hang bool // keep the connection open afterwards
		head error
		body error
	}{
		"says nothing":            {"", true, hostcall.ErrUnavailable, nil},
		"closes at once":          {"", false, hostcall.ErrUnavailable, nil},
		"not HTTP":                {"SSH-2.0-OpenSSH_9\r\n\r\n", false, hostcall.ErrUnavailable, nil},
		"half a head":             {ok + "A: b", true, hostcall.ErrUnavailable, nil},
		"a huge head":             {ok + strings.Repeat("A: "+strings.Repeat("b", 1000)+"\r\n", 100) + "\r\n", false, hostcall.ErrUnavailable, nil},
		"endless 1xx":             {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 50) + ok + "Content-Length: 0\r\n\r\n", false, hostcall.ErrUnavailable, nil},
		"a few 1xx":               {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 5) + ok + "Content-Length: 0\r\n\r\n", false, nil, nil},
		"switches protocols":      {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", true, hostcall.ErrUnavailable, nil},
		"two lengths":             {ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", false, hostcall.ErrUnavailable, nil},
		"a negative length":       {ok + "Content-Length: -1\r\n\r\n", false, hostcall.ErrUnavailable, nil},
		"less than the length":    {ok + "Content-Length: 10\r\n\r\nabc", false, nil, hostcall.ErrUnavailable},
		"stops in the body":       {ok + "Content-Length: 10\r\n\r\nabc", true, nil, hostcall.ErrUnavailable},
		"a bad chunk size":        {ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", false, nil, hostcall.ErrUnavailable},
		"a chunk of 2^64":         {ok + "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", false, nil, hostcall.ErrUnavailable},
		"chunks without an end":   {ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", false, nil, hostcall.ErrUnavailable},
		"an unknown encoding":     {ok + "Transfer-Encoding: gzip\r\n\r\nabc", false, hostcall.ErrUnavailable, nil},
		"a name with a space":     {ok + "A b: c\r\n\r\n", false, hostcall.ErrUnavailable, nil},
		"a status of four digits": {"HTTP/1.1 2000 OK\r\n\r\n", false, hostcall.ErrUnavailable, nil},
		"a bare LF":               {"HTTP/1.1 200 OK\nContent-Length: 0\n\n", false, nil, nil},
		"a body without a length": {ok + "\r\nabc", false, nil, nil},
	}
	for name, m := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := raw(t, m.say, m.hang)
			c := client(t, Config{Head: 300 * time.Millisecond, Body: 300 * time.Millisecond})
			r, err := get(context.Background(), c, bind(url), url, nil)
			if !errors.Is(err, m.head) {
				t.Fatalf("head: %v, want %v", err, m.head)
			}
			if err != nil {
				return
			}
			defer r.Body.Close()
			if _, err := io.ReadAll(r.Body); !errors.Is(err, m.body) {
				t.Errorf("body: %v, want %v", err, m.body)
			}
		})
	}
}

// raw serves each connection with the same bytes.
func raw(t *testing.T, say string, hang bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
					return
				}
				io.WriteString(conn, say)
				if hang {
					<-ended
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func TestCancel(t *testing.T) {
	url := raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", true)
	c := client(t, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	r, err := get(ctx, c, bind(url), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := io.ReadAll(r.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestPoolsAreApart(t *testing.T) {
	conns := make(chan string, 10)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { conns <- r.RemoteAddr }))
	defer s.Close()
	c := client(t, Config{})
	one, two := bind(s.URL), bind(s.URL)
	two.ID.Project = "other"
	for _, v := range []*function.Version{one, one, two, one} {
		fetchAll(t, c, v, s.URL)
	}
	a, b, other, d := <-conns, <-conns, <-conns, <-conns
	if a != b || a != d || a == other {
		t.Errorf("connections %s %s %s %s: want one for each function", a, b, other, d)
	}
	if n := c.Stats().Pools; n != 2 {
		t.Errorf("%d pools", n)
	}
	c.Retire(two.ID)
	if n := c.Stats().Pools; n != 1 {
		t.Errorf("%d pools after one function went", n)
	}
}

// TestRebinding asks a name server that answers in turn with an address that is
// open and one that is not: none of the requests reaches the second.
func TestRebinding(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip("no second loopback address:", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	secret, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Skip(err)
	}
	var reached atomic.Int32
	serve := func(l net.Listener, h http.HandlerFunc) {
		s := &http.Server{Handler: h}
		go s.Serve(l)
		t.Cleanup(func() { s.Close() })
	}
	serve(l, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") })
	serve(secret, func(http.ResponseWriter, *http.Request) { reached.Add(1) })

	var asked atomic.Int32
	resolver := names(t, func() [4]byte { return [4]byte{127, 0, 0, byte(1 + asked.Add(1)%2)} })
	c := client(t, Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, Resolver: resolver})
	url := fmt.Sprintf("http://rebind.example:%d", port)
	good, denied := 0, 0
	for range 300 {
		switch r, err := get(context.Background(), c, bind(url), url, nil); {
		case err == nil:
			r.Body.Close()
			good++
		case errors.Is(err, hostcall.ErrDenied):
			denied++
		default:
			t.Fatal(err)
		}
	}
	if reached.Load() != 0 || good == 0 || denied == 0 {
		t.Errorf("reached the refused address %d times; %d good, %d denied", reached.Load(), good, denied)
	}
}

// names is a resolver whose every A record is what address returns.
func names(t *testing.T, address func() [4]byte) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			conn.WriteTo(answer(b[:n], address), from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func answer(question []byte, address func() [4]byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.Additionals = true, nil
	if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
			Body:   &dnsmessage.AResource{A: address()},
		}}
	}
	b, _ := m.Pack()
	return b
}

func TestConfig(t *testing.T) {
	_, err := New(Config{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}, CDN: "a b", Head: -1, Refuse: []netip.AddrPort{{}}})
	for _, want := range []string{"10.0.0.1/8", `"a b"`, "-1ns", "ip:port"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: does not name %s", err, want)
		}
	}
}

// TestPrivateIsSaidTwice: a network that is not public takes the operator's word
// and the manifest's.
func TestPrivateIsSaidTwice(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	for _, tt := range []struct {
		allow   []netip.Prefix
		private bool
		want    error
		said    string
	}{
		{loopback, true, nil, ""},
		{loopback, false, hostcall.ErrAddress, "private = true"},
		{[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, true, hostcall.ErrAddress, "fetch.allow"},
	} {
		v := bind(s.URL)
		v.Bindings.Backends[0].Private = tt.private
		r, err := get(context.Background(), client(t, Config{Allow: tt.allow}), v, s.URL, nil)
		if err == nil {
			r.Body.Close()
		}
		if !errors.Is(err, tt.want) || err != nil && (!errors.Is(err, hostcall.ErrDenied) || !strings.Contains(err.Error(), tt.said)) {
			t.Errorf("allow %v, private %t: %v", tt.allow, tt.private, err)
		}
	}
}

// TestPrivateConnectionsAreNotShared: the connection that a private binding
// opened is not there for one that is not.
func TestPrivateConnectionsAreNotShared(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	c, v := client(t, Config{}), bind(s.URL)
	fetchAll(t, c, v, s.URL)
	v = bind(s.URL)
	v.Bindings.Backends[0].Private = false
	if _, err := get(context.Background(), c, v, s.URL, nil); !errors.Is(err, hostcall.ErrAddress) {
		t.Errorf("got %v", err)
	}
}

// TestTimeouts: each phase has its own, which the binding names.
func TestTimeouts(t *testing.T) {
	const short = 50 * time.Millisecond
	ok := "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
	deaf, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never says a word
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deaf.Close() })
	for _, tt := range []struct {
		name, url  string
		timeouts   function.Timeouts
		head, body error
		said       string
	}{
		{"tls", "https://" + deaf.Addr().String(), function.Timeouts{TLS: short}, hostcall.ErrUnavailable, nil, "TLS handshake timeout"},
		{"first byte", raw(t, "", true), function.Timeouts{FirstByte: short}, hostcall.ErrUnavailable, nil, "timeout awaiting response headers"},
		{"between bytes", raw(t, ok, true), function.Timeouts{Between: short}, nil, hostcall.ErrUnavailable, "stopped sending"},
		{"total, before the head", raw(t, "", true), function.Timeouts{Total: short}, hostcall.ErrUnavailable, nil, "total_timeout"},
		{"total, in the body", raw(t, ok, true), function.Timeouts{Total: 300 * time.Millisecond}, nil, hostcall.ErrUnavailable, "total_timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := bind(tt.url)
			v.Bindings.Backends[0].Timeouts = tt.timeouts
			r, err := get(context.Background(), client(t, Config{}), v, tt.url, nil)
			if tt.head == nil && err == nil {
				defer r.Body.Close()
				_, err = io.ReadAll(r.Body)
			}
			if want := cmp.Or(tt.head, tt.body); !errors.Is(err, want) || !strings.Contains(err.Error(), tt.said) {
				t.Errorf("got %v, want %v with %q", err, want, tt.said)
			}
		})
	}
}

// TestConnectTimeout asks a name server that never answers.
func TestConnectTimeout(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	c := client(t, Config{Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", silent.LocalAddr().String())
	}}})
	v := bind("http://nowhere.example")
	v.Bindings.Backends[0].Timeouts.Connect = 50 * time.Millisecond
	if _, err := get(context.Background(), c, v, "http://nowhere.example", nil); !errors.Is(err, hostcall.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestTrailers(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "body")
		w.Header().Set("X-Sum", "42")
	}))
	defer s.Close()
	r, err := get(context.Background(), client(t, Config{}), bind(s.URL), s.URL, nil)
	if body := readAll(t, r, err); body != "body" || r.Trailer.Get("X-Sum") != "42" {
		t.Errorf("got %q, trailers %v", body, r.Trailer)
	}
}

// TestConnectionsAreBounded: one request more than there may be connections waits
// for one, and no connection more is opened.
func TestConnectionsAreBounded(t *testing.T) {
	var now, most atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(10 * time.Millisecond)
		now.Add(-1)
	}))
	defer s.Close()
	c := client(t, Config{Connections: 2})
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			r, err := get(context.Background(), c, bind(s.URL), s.URL, nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.Body.Close()
		})
	}
	all.Wait()
	if n := most.Load(); n > 2 {
		t.Errorf("%d requests at once over 2 connections", n)
	}
}

func FuzzLoop(f *testing.F) {
	for _, s := range []string{"", "selvage", `x; a="selvage, selvage"`, `x; a="\",selvage`, ",,,", `"`, `\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n := passes(s, "selvage")
		if n < 0 || n > strings.Count(strings.ToLower(s), "selvage") {
			t.Fatalf("%q: %d", s, n)
		}
		if strings.Count(s, `"`)%2 == 0 && !strings.Contains(s, `\`) && passes(s+", selvage", "selvage") != n+1 {
			t.Fatalf("%q and one more: not %d", s, n+1)
		}
	})
}

// FuzzRequest: whatever headers a function gives, what is sent is one HTTP
// request, to the backend, that names no client.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/a?b", "X-A", "b")
	f.Add("GE T", "/", "Host", "evil")
	f.Add("POST", "//evil/", "X-Forwarded-For", "1.2.3.4")
	f.Add("PUT", "/", "X_Real_Ip\r\n", "a\r\nb")
	f.Add("GET", "/?a HTTP/1.1", "X-A", "b")
	f.Add("GET", "?\u00e9\"<>%zz", "X-A", "b")
	f.Fuzz(func(t *testing.T, method, path, name, value string) {
		u, err := url.Parse("http://backend.example" + path)
		if err != nil || u.Host != "backend.example" {
			return
		}
		c, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := backendOf(u)
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.request(context.Background(), &http.Request{Method: method, URL: u, Header: http.Header{name: {value}}}, b)
		if err != nil {
			return
		}
		var wire bytes.Buffer
		if err := out.Write(&wire); err != nil {
			return
		}
		in := bufio.NewReader(&wire)
		got, err := http.ReadRequest(in)
		if err != nil || in.Buffered() != 0 || got.Host != "backend.example" {
			t.Fatalf("%q %q %q %q: sends what reads as %+v, %v, with %d bytes more", method, path, name, value, got, err, in.Buffered())
		}
		if strings.ContainsAny(got.RequestURI, " \"<>#") || got.URL.Path != out.URL.Path && out.URL.Path != "" {
			t.Fatalf("%q: asks for %q", path, got.RequestURI)
		}
		if got.Header.Get("X-Forwarded-For") != "" || got.Header.Get("Forwarded") != "" || len(got.TransferEncoding) > 0 {
			t.Fatalf("%q: sends %v", name, got.Header)
		}
	})
}
