package listen_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/edge/listen"
	"github.com/selvage-edge/selvage/edge/listen/listentest"
)

// behind is a server that trusts a network, and answers with who asks.
func behind(t *testing.T, trusted string, each int) *rig {
	store, client := listentest.Certificates(t, name)
	r := &rig{sockets: listentest.Open(t), tls: client, config: listen.Config{
		Certificate: store.Get, Linger: 200 * time.Millisecond, ConnectionsPerClient: each, Balancers: []netip.Prefix{netip.MustParsePrefix(trusted)},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.Proto, r.RemoteAddr) }),
	}}
	r.server = listentest.Start(t, r.sockets, r.config)
	return r
}

// saying opens a connection that begins with text.
func (r *rig) saying(t *testing.T, text string, next ...string) (*tls.Conn, error) {
	t.Helper()
	raw, err := net.Dial("tcp", r.sockets.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	if _, err := io.WriteString(raw, text); err != nil {
		return nil, err
	}
	conf := r.tls.Clone()
	conf.NextProtos = next
	c := tls.Client(raw, conf)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return c, c.HandshakeContext(ctx)
}

// who asks once, over HTTP/1.1, and returns the answer.
func who(c net.Conn) (string, error) {
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", name); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

const (
	alice = "PROXY TCP4 192.0.2.1 198.51.100.2 4000 443\r\n"
	bob   = "\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x24\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x0f\xa0\x01\xbb"
	local = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
)

// A trusted balancer says whose its connections are, over both protocols of TCP,
// and they count for those clients; who says nothing is not served.
func TestBehindABalancer(t *testing.T) {
	r := behind(t, "127.0.0.0/8", 1)
	for header, want := range map[string]string{alice: "HTTP/1.1 192.0.2.1:4000", bob: "HTTP/1.1 [2001:db8::1]:4000"} {
		c, err := r.saying(t, header)
		if err != nil {
			t.Fatalf("%q: %v", header, err)
		}
		if got, err := who(c); err != nil || got != want {
			t.Errorf("%q: %q, %v", header, got, err)
		}
		if _, err := r.saying(t, header); err == nil {
			t.Errorf("%q: a second connection, where a client may have one", header)
		}
	}
	if n := r.server.Stats().Refused.Client; n != 2 {
		t.Errorf("%d refused for their client", n)
	}
	c, err := r.saying(t, local)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := who(c); err != nil || got != "HTTP/1.1 "+c.LocalAddr().String() {
		t.Errorf("the balancer itself: %q, %v", got, err)
	}
	if c, err := r.saying(t, ""); err == nil {
		_, err = who(c)
		t.Errorf("without a header: %v", err)
	}
	if n := r.server.Stats(); n.Refused.Handshake != 1 || n.TCP != 3 {
		t.Errorf("%+v", n)
	}
}

func TestBehindABalancerHTTP2(t *testing.T) {
	r := behind(t, "127.0.0.0/8", 10)
	var once sync.Once
	err := errors.New("dialled twice")
	tr := &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: func(context.Context, string, string) (c net.Conn, _ error) {
		once.Do(func() { c, err = r.saying(t, alice, "h2") })
		return c, err
	}}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(must(http.NewRequest(http.MethodGet, r.url("/"), nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "HTTP/2.0 192.0.2.1:4000" {
		t.Errorf("%q, %v", b, err)
	}
}

// From elsewhere a header is no TLS, and nobody is believed.
func TestNotBehindABalancer(t *testing.T) {
	r := behind(t, "10.0.0.0/8", 10)
	for _, header := range []string{alice, bob, local} {
		if _, err := r.saying(t, header); err == nil {
			t.Errorf("%q is taken from anybody", header)
		}
	}
	c, err := r.saying(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := who(c); err != nil || got != "HTTP/1.1 "+c.LocalAddr().String() {
		t.Errorf("%q, %v", got, err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
