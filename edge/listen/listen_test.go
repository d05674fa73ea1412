package listen_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/selvage-edge/selvage/bench/load"
	"github.com/selvage-edge/selvage/edge/listen"
	"github.com/selvage-edge/selvage/edge/listen/listentest"
	"github.com/selvage-edge/selvage/runtime/tooltest"
)

const name = "node.example"

// rig is one server on its sockets and what clients need.
type rig struct {
	sockets listentest.Sockets
	server  *listen.Server
	config  listen.Config // to start another one on the same sockets
	tls     *tls.Config
}

func start(t *testing.T, h http.Handler) *rig {
	t.Helper()
	store, client := listentest.Certificates(t, name)
	r := &rig{sockets: listentest.Open(t), tls: client, config: listen.Config{Certificate: store.Get, Handler: h, Linger: 200 * time.Millisecond}}
	r.server = listentest.Start(t, r.sockets, r.config)
	return r
}

func (r *rig) url(path string) string { return "https://" + name + path }

// client returns a RoundTripper for one protocol, over connections of its own.
func (r *rig) client(t *testing.T, protocol load.Protocol) http.RoundTripper {
	t.Helper()
	if protocol == load.H3 {
		rt := &http3.Transport{
			TLSClientConfig: r.tls,
			Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
				return quic.DialAddr(ctx, r.sockets.Addr(), tc, qc)
			},
		}
		t.Cleanup(func() { _ = rt.Close() })
		return rt
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(protocol == load.H1)
	protocols.SetHTTP2(protocol == load.H2)
	rt := &http.Transport{
		TLSClientConfig: r.tls.Clone(), Protocols: protocols,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, r.sockets.Addr())
		},
	}
	t.Cleanup(rt.CloseIdleConnections)
	return rt
}

var major = map[load.Protocol]int{load.H1: 1, load.H2: 2, load.H3: 3}

func each(t *testing.T, f func(t *testing.T, p load.Protocol)) {
	for _, p := range []load.Protocol{load.H1, load.H2, load.H3} {
		t.Run(string(p), func(t *testing.T) { f(t, p) })
	}
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(listentest.Context(t), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestProtocols(t *testing.T) {
	r := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || !r.TLS.HandshakeComplete || r.TLS.ServerName != name {
			http.Error(w, "no TLS state", http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, r.ProtoMajor)
	}))
	each(t, func(t *testing.T, p load.Protocol) {
		resp, err := r.client(t, p).RoundTrip(request(t, "GET", r.url("/"), nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != fmt.Sprint(major[p]) || resp.ProtoMajor != major[p] {
			t.Errorf("answered %q over %s, %v", body, resp.Proto, err)
		}
		want := fmt.Sprintf(`h3=":%d"; ma=86400`, r.sockets.TCP.Addr().(*net.TCPAddr).Port)
		if p == load.H3 {
			want = ""
		}
		if got := resp.Header.Get("Alt-Svc"); got != want {
			t.Errorf("Alt-Svc %q, want %q", got, want)
		}
	})
}

// TestStreaming echoes line by line: each side waits for the other, so neither
// body may be held back.
func TestStreaming(t *testing.T) {
	r := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex() // HTTP/1 only
		buf := make([]byte, 1<<10)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				_, _ = w.Write(bytes.ToUpper(buf[:n]))
				_ = control.Flush()
			}
			if err != nil {
				return
			}
		}
	}))
	each(t, func(t *testing.T, p load.Protocol) {
		body, send := io.Pipe()
		first := make(chan struct{})
		go func() {
			_, _ = io.WriteString(send, "hello ")
			<-first // nothing more is sent until the answer has begun
			_, _ = io.WriteString(send, "world")
			_ = send.Close()
		}()
		resp, err := r.client(t, p).RoundTrip(request(t, "POST", r.url("/"), body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got := make([]byte, 6)
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != "HELLO " {
			t.Fatalf("first part %q, %v", got, err)
		}
		close(first)
		rest, err := io.ReadAll(resp.Body)
		if err != nil || string(rest) != "WORLD" {
			t.Fatalf("second part %q, %v", rest, err)
		}
	})
}

func TestCancellationReachesTheHandler(t *testing.T) {
	entered, gone := make(chan struct{}), make(chan error)
	r := start(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-r.Context().Done()
		gone <- context.Cause(r.Context())
	}))
	each(t, func(t *testing.T, p load.Protocol) {
		ctx, cancel := context.WithCancel(listentest.Context(t))
		failed := make(chan error, 1)
		req := request(t, "GET", r.url("/"), nil).WithContext(ctx)
		client := r.client(t, p)
		go func() {
			resp, err := client.RoundTrip(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			failed <- err
		}()
		<-entered
		cancel()
		if err := <-gone; err == nil {
			t.Error("the handler's context has no cause")
		}
		if err := <-failed; err == nil {
			t.Error("the cancelled request succeeded")
		}
	})
}

func TestCurl(t *testing.T) {
	tooltest.Path(t, "curl", "curl")
	r := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	for option, want := range map[string]string{"--http1.1": "HTTP/1.1", "--http2": "HTTP/2.0", "--http1.0": "HTTP/1.0"} {
		out, err := exec.CommandContext(listentest.Context(t), "curl", "-sk", option,
			"--connect-to", "::"+r.sockets.Addr(), r.url("/")).CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("curl %s: %q, %v, want %q", option, out, err, want)
		}
	}
}

// TestPlainHTTP checks that one who forgets TLS is just disconnected.
func TestPlainHTTP(t *testing.T) {
	r := start(t, http.NotFoundHandler())
	c, err := net.Dial("tcp", r.sockets.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := io.ReadAll(c); err != nil {
		t.Logf("closed with %v", err)
	}
}

// TestDrain replaces a server by another on the same sockets while all three
// protocols are in use: no request may fail.
func TestDrain(t *testing.T) {
	h := func(who string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, who) })
	}
	r := start(t, h("old"))
	ctx, stop := context.WithCancel(listentest.Context(t))
	var mu sync.Mutex
	seen := map[load.Protocol]map[string]int{load.H1: {}, load.H2: {}, load.H3: {}}
	answered := make(chan struct{}, 1)
	wait := func(who string) { // until each protocol has had that server's answer
		for {
			mu.Lock()
			n := min(seen[load.H1][who], seen[load.H2][who], seen[load.H3][who])
			mu.Unlock()
			if n > 100 {
				return
			}
			select {
			case <-answered:
			case <-ctx.Done():
				t.Errorf("not every protocol was answered by %s: %v", who, seen)
				return
			}
		}
	}
	results := map[load.Protocol]load.Result{}
	var drivers sync.WaitGroup
	for p := range seen {
		drivers.Go(func() {
			res, err := load.Run(ctx, load.Config{
				URL: r.url("/"), Address: r.sockets.Addr(), Protocol: p, TLS: r.tls, Rate: 400, Connections: 4, Workers: 16,
				Duration: time.Minute, Timeout: 20 * time.Second,
				Check: func(status int, body []byte) error {
					mu.Lock()
					seen[p][string(body)]++
					mu.Unlock()
					select {
					case answered <- struct{}{}:
					default:
					}
					if status != http.StatusOK {
						return fmt.Errorf("status %d", status)
					}
					return nil
				},
			})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			results[p] = res
			mu.Unlock()
		})
	}
	wait("old")
	began := time.Now()
	if err := r.server.Drain(ctx); err != nil {
		t.Errorf("drain: %v", err)
	}
	t.Logf("drained in %v", time.Since(began))
	if s := r.server.Stats(); s != (listen.Stats{}) {
		t.Errorf("after the drain: %+v", s)
	}
	r.config.Handler = h("new")
	listentest.Start(t, r.sockets, r.config)
	wait("new")
	stop()
	drivers.Wait()
	for p, res := range results {
		t.Logf("%s: %v", p, &res)
		if res.Failed > 0 || res.OK == 0 {
			t.Errorf("%s: %v", p, &res)
		}
	}
}

// TestDrainWaits checks that a drain waits for a slow exchange, that its
// connection learns of it, and that idle connections do not hold it up.
func TestDrainWaits(t *testing.T) {
	each(t, func(t *testing.T, p load.Protocol) {
		entered, finish := make(chan struct{}), make(chan struct{})
		r := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				close(entered)
				<-finish
			}
			_, _ = io.WriteString(w, "whole")
		}))
		idle := r.client(t, p)
		if resp, err := idle.RoundTrip(request(t, "GET", r.url("/"), nil)); err != nil {
			t.Fatal(err)
		} else {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		answer := make(chan string, 1)
		busy, slow := r.client(t, p), request(t, "GET", r.url("/slow"), nil)
		go func() { answer <- get(busy, slow) }()
		<-entered
		drained := make(chan error, 1)
		go func() { drained <- r.server.Drain(listentest.Context(t)) }()
		for p != load.H3 && r.server.Stats().TCP > 1 { // until the idle one is gone
			time.Sleep(time.Millisecond)
		}
		select {
		case err := <-drained:
			t.Fatalf("drained with an exchange under way: %v", err)
		default:
		}
		close(finish)
		if got := <-answer; got != "whole" {
			t.Errorf("the slow exchange: %s", got)
		}
		if err := <-drained; err != nil {
			t.Errorf("drain: %v", err)
		}
	})
}

func get(c http.RoundTripper, req *http.Request) string {
	resp, err := c.RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// TestDrainGivesUp checks that what does not end is cut off when ctx ends.
func TestDrainGivesUp(t *testing.T) {
	each(t, func(t *testing.T, p load.Protocol) {
		entered := make(chan struct{})
		r := start(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
		}))
		answer := make(chan string, 1)
		client, req := r.client(t, p), request(t, "GET", r.url("/"), nil)
		go func() { answer <- get(client, req) }()
		<-entered
		ctx, cancel := context.WithTimeout(listentest.Context(t), 300*time.Millisecond)
		defer cancel()
		if err := r.server.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("drain: %v, want deadline exceeded", err)
		}
		if got := <-answer; got == "" {
			t.Error("the cut exchange succeeded") // its whole answer would be empty
		}
	})
}

func TestValidate(t *testing.T) {
	_, err := listen.New(listen.Config{})
	for _, field := range []string{"TCP", "UDP", "Certificate", "Handler"} {
		if err == nil || !strings.Contains(err.Error(), "Config."+field) {
			t.Errorf("error %v does not name %s", err, field)
		}
	}
}
