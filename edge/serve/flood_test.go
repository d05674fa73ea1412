package serve_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/edge/guard"
	"github.com/selvage-edge/selvage/edge/listen"
)

// wait waits for a condition, however slow the machine is.
func wait(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for ctx := patient(t); !cond(); time.Sleep(5 * time.Millisecond) {
		if ctx.Err() != nil {
			buf := make([]byte, 1<<20)
			t.Fatalf("still not: %s\n%s", what, buf[:runtime.Stack(buf, true)])
		}
	}
}

// usage is what a flood may not make grow.
type usage struct {
	goroutines int
	heap       uint64
}

func used() usage {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{runtime.NumGoroutine(), m.HeapAlloc}
}

// back waits until the flood has left nothing behind, but for what is kept for
// the next one.
func (u usage) back(t *testing.T) {
	t.Helper()
	wait(t, fmt.Sprintf("as before the flood: %+v", u), func() bool {
		now := used()
		return now.goroutines <= u.goroutines+10 && now.heap <= u.heap+16<<20
	})
}

// within checks what a flood may take while it lasts.
func (u usage) within(t *testing.T, goroutines int, heap uint64) {
	t.Helper()
	now := used()
	t.Logf("%d goroutines more, %d KiB of heap", now.goroutines-u.goroutines, (int64(now.heap)-int64(u.heap))>>10)
	if now.goroutines > u.goroutines+goroutines || now.heap > u.heap+heap {
		t.Errorf("%+v, and before %+v", now, u)
	}
}

// warm makes what the first request of each protocol makes for good.
func (d *door) warm(t *testing.T, path string) usage {
	t.Helper()
	for name, c := range d.clients(t) {
		if got := d.ask(t, c, "GET", path, nil); got != 200 {
			t.Fatalf("%s: status %d", name, got)
		}
		switch c := c.(type) {
		case *http.Transport:
			c.CloseIdleConnections()
		case io.Closer:
			_ = c.Close()
		}
	}
	wait(t, "no connections", func() bool { return d.server.Stats().Taken == 0 })
	return used()
}

// ask returns the status of one request whose answer is read to its end.
func (d *door) ask(t *testing.T, c http.RoundTripper, method, path string, body io.Reader) int {
	t.Helper()
	resp, err := c.RoundTrip(d.request(patient(t), t, method, path, body))
	if err != nil {
		t.Error(err)
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func (d *door) request(ctx context.Context, t *testing.T, method, path string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, "https://"+doorName+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestSlowHeads: a head that does not end is answered, and its connection closed.
func TestSlowHeads(t *testing.T) {
	d := openDoor(t, listen.Config{Guard: func(c net.Conn) net.Conn { return guard.Wire(c, 300*time.Millisecond) }},
		map[string]wat{"/": hello})
	before := d.warm(t, "/")
	const clients = 200
	answers := make(chan string, clients)
	for i := range clients {
		c := d.dial(t, "http/1.1")
		if i%2 == 0 { // half of them after a request that went well
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\nGET / HTTP/1.1\r\n", doorName)
		} else {
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nX:", doorName)
		}
		go func() {
			defer c.Close()
			all, err := io.ReadAll(c)
			answers <- fmt.Sprint(strings.Count(string(all), "200 OK"), strings.Count(string(all), " 408 "), err)
		}()
	}
	seen := map[string]int{}
	for range clients {
		seen[<-answers]++
	}
	if seen["1 1 <nil>"] != clients/2 || seen["0 1 <nil>"] != clients/2 {
		t.Errorf("answers: %v", seen)
	}
	wait(t, "no connections", func() bool { return d.server.Stats().TCP == 0 })
	before.back(t)
}

// TestSlowBodies: a body that does not come is not waited for, on any protocol,
// and the guest that waits for it is ended.
func TestSlowBodies(t *testing.T) {
	if testing.Short() {
		t.Skip("waits ten seconds")
	}
	d := openDoor(t, listen.Config{}, map[string]wat{"/": hello})
	before := d.warm(t, "/")
	var all sync.WaitGroup
	const each = 20
	for name, c := range d.clients(t) {
		for i := range each {
			never, send := io.Pipe()
			r := d.request(patient(t), t, "POST", "/", io.MultiReader(strings.NewReader("some"), never))
			if i%2 == 0 {
				r.ContentLength = 1000
			}
			all.Go(func() {
				resp, err := c.RoundTrip(r)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				_ = send.Close() // or the client waits for it
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusRequestTimeout || name == "h1" && !resp.Close {
					t.Errorf("%s: status %d, close %v", name, resp.StatusCode, resp.Close)
				}
			})
			t.Cleanup(func() { _ = send.Close() })
		}
	}
	wait(t, "all wait for their bodies", func() bool { return d.server.Stats().Exchanges == 3*each })
	before.within(t, 3*each*20, 64<<20)
	all.Wait() // ten seconds
	wait(t, "no exchanges", func() bool { return d.server.Stats().Exchanges == 0 })
	for range 3*each + 3 {
		if r := d.record(t); r["status"] != 200. && r["fault"] != "body-slow" {
			t.Errorf("recorded %v", r)
		}
	}
}

// TestSlowReaders: what is not read is not kept, but for a window or a socket's
// buffer; with the clients the guests end.
func TestSlowReaders(t *testing.T) {
	d := openDoor(t, listen.Config{}, map[string]wat{"/": hello, "/endless": endless})
	before := d.warm(t, "/")
	ctx, leave := context.WithCancel(patient(t))
	const each = 10
	var bodies []io.Closer
	for range each {
		for _, c := range d.clients(t) { // of its own: the windows of one connection are shared
			resp, err := c.RoundTrip(d.request(ctx, t, "GET", "/endless", nil))
			if err != nil {
				t.Fatal(err)
			}
			bodies = append(bodies, resp.Body)
		}
	}
	if n := d.server.Stats().Exchanges; n != 3*each {
		t.Errorf("%d exchanges", n)
	}
	before.within(t, 3*each*20, 128<<20) // the clients' buffers too
	leave()
	for _, b := range bodies {
		_ = b.Close()
	}
	wait(t, "no exchanges", func() bool { return d.server.Stats().Exchanges == 0 })
}

// dialFrom connects from a loopback address of its own. A server that closes at
// once may be seen as an error.
func (d *door) dialFrom(t *testing.T, from string) (net.Conn, error) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := dialer.DialContext(patient(t), "tcp", d.sockets.Addr())
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// TestConnectionFlood: there is a bound for each client and one for the node;
// beyond them a connection is closed unread, and whoever has one is served.
func TestConnectionFlood(t *testing.T) {
	d := openDoor(t, listen.Config{Connections: 60, ConnectionsPerClient: 40}, map[string]wat{"/": hello})
	before := d.warm(t, "/")
	served := d.clients(t)["h1"]
	if got := d.ask(t, served, "GET", "/", nil); got != 200 { // one of the first client's
		t.Fatal(got)
	}
	flood := func(from string, n int) {
		for range n {
			_, _ = d.dialFrom(t, from)
		}
	}
	flood("127.0.0.1", 100)
	wait(t, "61 refused", func() bool { return d.server.Stats().Refused.Client == 61 })
	flood("127.0.0.2", 30)
	wait(t, "10 refused", func() bool { return d.server.Stats().Refused.Node == 10 })
	if s := d.server.Stats(); s.Taken != 60 || s.TCP != 60 {
		t.Errorf("%+v", s)
	}
	before.within(t, 60*5, 16<<20)
	if late, err := d.dialFrom(t, "127.0.0.3"); err == nil {
		if n, err := late.Read(make([]byte, 1)); err == nil {
			t.Errorf("one too many: %d bytes", n)
		}
	}
	if got := d.ask(t, served, "GET", "/", nil); got != 200 {
		t.Errorf("who was there before: %d", got)
	}
}

// TestConnectionsEnd: what was refused may come again when others have gone.
func TestConnectionsEnd(t *testing.T) {
	d := openDoor(t, listen.Config{ConnectionsPerClient: 1}, map[string]wat{"/": hello})
	for range 3 {
		for _, name := range []string{"h1", "h2", "h3"} { // each in place of the one before
			c := d.clients(t)[name]
			if got := d.ask(t, c, "GET", "/", nil); got != 200 {
				t.Fatalf("%s: status %d", name, got)
			}
			for other, o := range d.clients(t) {
				if _, err := o.RoundTrip(d.request(patient(t), t, "GET", "/", nil)); err == nil {
					t.Errorf("%s beside %s: a second connection", other, name)
				}
			}
			switch c := c.(type) {
			case *http.Transport:
				c.CloseIdleConnections()
			case io.Closer:
				_ = c.Close()
			}
			wait(t, "no connections", func() bool { return d.server.Stats().Taken == 0 })
		}
	}
}

// TestTLSThatDoesNotBegin: a connection that says nothing does not stay.
func TestTLSThatDoesNotBegin(t *testing.T) {
	d := openDoor(t, listen.Config{HandshakeTimeout: 300 * time.Millisecond}, map[string]wat{"/": hello})
	before := used()
	for range 100 {
		if _, err := d.dialFrom(t, "127.0.0.1"); err != nil {
			t.Fatal(err)
		}
	}
	wait(t, "100 timed out", func() bool { return d.server.Stats().Refused.Handshake == 100 })
	before.back(t)
}

// TestConnectionThatAsksForNothing: nor does one that shakes hands and then says nothing.
func TestConnectionThatAsksForNothing(t *testing.T) {
	d := openDoor(t, listen.Config{HeadTimeout: 300 * time.Millisecond}, map[string]wat{"/": hello})
	silent := d.dial(t, "http/1.1")
	if _, err := bufio.NewReader(silent).ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("a silent connection ends with %v", err)
	}
	wait(t, "no connections", func() bool { return d.server.Stats().Taken == 0 })
}
