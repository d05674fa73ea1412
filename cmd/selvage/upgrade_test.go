package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/selvage-edge/selvage/bench/load"
	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/up"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

// inHalves answers in two halves, with some seconds between them.
const inHalves = `(data (i32.const 64) "first,second\n")
(func (export "handle")
	(drop (call $response_write (i32.const 64) (i32.const 6)))
	(drop (call $sleep (i64.const 4000000000)))
	(drop (call $response_write (i32.const 70) (i32.const 7))))`

// An upgraded node fails no request: not one over any protocol under load, not one
// that was under way, not one of a client whose port changes; twice, so that
// both UDP sockets have been the old one. What cannot serve changes nothing.
func TestUpgrade(t *testing.T) {
	w := openWorld(t, "127.0.0.70")
	for name, body := range map[string]string{"good": greet, "slow": inHalves} {
		w.selvage(t, "deploy", "--wait", w.function(t, name, guesttest.Guest(t, body))).expect(t, exitOK, "live")
	}
	n := w.Layout.Edges[0]
	keeper := w.Edges[n.Name].PID()
	ctx, finish := context.WithTimeout(t.Context(), 5*time.Minute)
	defer finish()
	var total [3]atomic.Int64
	var results [3]load.Result
	var clients sync.WaitGroup
	loaded, stop := context.WithCancel(ctx)
	for i, p := range []load.Protocol{load.H1, load.H2, load.H3} {
		clients.Go(func() { results[i] = w.drive(loaded, t, p, &total[i]) })
	}
	enough := func(more int64) {
		for i := range total {
			for want := total[i].Load() + more; total[i].Load() < want && ctx.Err() == nil; {
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	for i, how := range []string{"command", "signal"} {
		enough(500)
		before := w.onlyServer(t, n)
		var open sync.WaitGroup
		half := make(chan struct{}, 2)
		open.Go(func() { w.across(ctx, t, half, false) })
		open.Go(func() { w.across(ctx, t, half, true) })
		<-half
		<-half
		if i == 0 {
			w.selvage(t, "edge", "upgrade", "--config", n.Config, "--binary", w.another(t, "next")).expect(t, exitOK, "upgraded to", "takes all new work", "keeper replaces itself")
		} else {
			_ = syscall.Kill(keeper, syscall.SIGHUP)
			w.until(t, func() bool { return strings.Count(logOf(t, n), `"msg":"server upgraded"`) == 2 })
		}
		open.Wait()
		if after := w.onlyServer(t, n); after == before {
			t.Errorf("by %s: server %d was not replaced", how, before)
		}
		if now := w.Edges[n.Name].PID(); now != keeper || syscall.Kill(keeper, 0) != nil {
			t.Errorf("by %s: the keeper was %d and is %d", how, keeper, now)
		}
	}
	enough(1000)
	stop()
	clients.Wait()
	for i := range results {
		if r := &results[i]; r.Failed != 0 || r.OK < 2000 {
			t.Errorf("of 2000 requests or more: %v", r)
		}
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", keeper))
	if err != nil || filepath.Base(exe) == "next" {
		t.Errorf("after the signal the keeper is %s, %v; want what is installed", exe, err)
	}
	w.badUpgrade(t, n)
	w.killed(t, n)
}

// drive asks the good function until ctx ends.
func (w *world) drive(ctx context.Context, t *testing.T, p load.Protocol, total *atomic.Int64) load.Result {
	r, err := load.Run(ctx, load.Config{
		URL: "https://good.edge.localhost:8443/", Address: w.Layout.Edges[0].Public, Protocol: p, TLS: w.trust(t),
		Connections: 4, Workers: 8, Rate: 150, Duration: 10 * time.Minute,
		Check: func(status int, body []byte) error {
			total.Add(1)
			if status != 200 || string(body) != "woven\n" {
				return fmt.Errorf("status %d, body %.100q", status, body)
			}
			return nil
		},
	})
	if err != nil {
		t.Error(err)
	}
	return r
}

func (w *world) trust(t *testing.T) *tls.Config {
	pem, err := os.ReadFile(w.EdgeCA)
	if err != nil {
		t.Error(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: roots, ServerName: "slow.edge.localhost"}
}

// across begins a request on a QUIC connection and finishes it after the server
// was replaced; if moves, from another port than it began.
func (w *world) across(ctx context.Context, t *testing.T, half chan<- struct{}, moves bool) {
	told := sync.OnceFunc(func() { half <- struct{}{} })
	defer told()
	conn, move, err := w.dialQUIC(ctx, t)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.CloseWithError(0, "")
	client := (&http3.Transport{}).NewClientConn(conn)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://slow.edge.localhost:8443/", nil)
	if err != nil {
		t.Error(err)
		return
	}
	resp, err := client.RoundTrip(r)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	first := make([]byte, 6)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "first," {
		t.Errorf("%q, %v", first, err)
	}
	before := w.onlyServer(t, w.Layout.Edges[0])
	told()
	w.until(t, func() bool { // the new one serves, the old one drains
		_, err := os.Stat(fmt.Sprintf("/proc/%d", before))
		return err != nil || len(w.servers(t, w.Layout.Edges[0])) == 2
	})
	if moves {
		if err := move(); err != nil {
			t.Errorf("move to another port: %v", err)
		}
	}
	rest, err := io.ReadAll(resp.Body)
	if err != nil || string(rest) != "second\n" {
		t.Errorf("moves %v: the second half is %q, %v", moves, rest, err)
	}
}

// dialQUIC connects; move takes the connection to another local port.
func (w *world) dialQUIC(ctx context.Context, t *testing.T) (conn *quic.Conn, move func() error, err error) {
	addr, err := net.ResolveUDPAddr("udp", w.Layout.Edges[0].Public)
	if err != nil {
		return nil, nil, err
	}
	ports := [2]*quic.Transport{}
	for i := range ports {
		udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, nil, err
		}
		ports[i] = &quic.Transport{Conn: udp}
		t.Cleanup(func() { ports[i].Close(); udp.Close() })
	}
	conf := w.trust(t)
	conf.NextProtos = []string{http3.NextProtoH3}
	conn, err = ports[0].Dial(ctx, addr, conf, &quic.Config{KeepAlivePeriod: time.Second})
	return conn, func() error {
		path, err := conn.AddPath(ports[1])
		if err != nil {
			return err
		}
		if err := path.Probe(ctx); err != nil {
			return err
		}
		return path.Switch()
	}, err
}

// another returns this program under another name, in a folder of its own.
func (w *world) another(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.Link(w.Selvage, path); err == nil {
		return path
	}
	b, err := os.ReadFile(w.Selvage)
	if err == nil {
		err = os.WriteFile(path, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (w *world) servers(t *testing.T, n up.Node) []int {
	t.Helper()
	all, err := w.Edges[n.Name].Servers()
	if err != nil {
		t.Error(err)
	}
	return all
}

// onlyServer returns the process number of the only server.
func (w *world) onlyServer(t *testing.T, n up.Node) (pid int) {
	t.Helper()
	w.until(t, func() bool {
		all := w.servers(t, n)
		if len(all) == 1 {
			pid = all[0]
		}
		return len(all) == 1
	})
	return pid
}

func (w *world) until(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("it did not come to that within a minute")
			return
		}
	}
}

// badUpgrade tries programs that cannot serve: the command fails and says why.
func (w *world) badUpgrade(t *testing.T, n up.Node) {
	before := w.onlyServer(t, n)
	w.selvage(t, "edge", "upgrade", "--config", n.Config, "--binary", "/bin/false").expect(t, exitFailed, "not upgraded", "serves on", "exit status 1")
	r := w.selvage(t, "edge", "upgrade", "--json", "--config", n.Config, "--binary", n.Config)
	r.expect(t, exitFailed, "not an executable file")
	var v upgraded
	if err := json.NewDecoder(bytes.NewReader([]byte(r.out))).Decode(&v); err != nil || v.Upgraded || v.Why == "" {
		t.Errorf("%+v, %v: %s", v, err, r.out)
	}
	w.selvage(t, "edge", "upgrade", "--config", n.Config, "--binary", filepath.Join(w.dir, "none")).expect(t, exitUsage, "none")
	text, err := os.ReadFile(n.Config)
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(string) string{
		"dns.listen: ":     func(s string) string { return s + strings.ReplaceAll(dnsConfig, "%s:5353", n.Public) },
		"listen.public is": func(s string) string { return strings.ReplaceAll(s, n.Public, "127.0.0.99:9443") },
	} {
		if err := os.WriteFile(n.Config, []byte(change(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
		from := len(logOf(t, n))
		w.selvage(t, "edge", "upgrade", "--config", n.Config).expect(t, exitFailed, "not upgraded", "serves on", "the node's log says why")
		if log := logOf(t, n)[from:]; !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
	if err := os.WriteFile(n.Config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if after := w.onlyServer(t, n); after != before {
		t.Errorf("server %d was replaced by %d", before, after)
	}
	if status, body := w.get(t, request.HTTP3, "good", "/"); status != 200 {
		t.Errorf("the good function answers %d %q", status, body)
	}
}

// killed kills the server while connections are opened, then the keeper.
func (w *world) killed(t *testing.T, n up.Node) {
	stop, end := context.WithCancel(t.Context())
	var dials sync.WaitGroup
	var dialled int
	var refused error
	dials.Go(func() {
		for ; stop.Err() == nil && refused == nil; dialled++ {
			var c net.Conn
			if c, refused = net.DialTimeout("tcp", n.Public, 10*time.Second); refused == nil {
				c.Close()
			}
			time.Sleep(time.Millisecond)
		}
	})
	for range 3 {
		before := w.onlyServer(t, n)
		_ = syscall.Kill(before, syscall.SIGKILL)
		w.until(t, func() bool {
			all := w.servers(t, n)
			return len(all) == 1 && all[0] != before
		})
		if status, body := w.get(t, request.HTTP2, "good", "/"); status != 200 {
			t.Errorf("after the kill: %d %q", status, body)
		}
	}
	end()
	dials.Wait()
	if refused != nil {
		t.Errorf("connection %d of %d: %v", dialled, dialled, refused)
	}
	last, keeper := w.onlyServer(t, n), w.Edges[n.Name]
	_ = syscall.Kill(keeper.PID(), syscall.SIGKILL)
	<-keeper.Done()
	w.until(t, func() bool { return errors.Is(syscall.Kill(last, 0), syscall.ESRCH) })
	if c, err := net.Dial("tcp", n.Public); err == nil {
		c.Close()
		t.Error("somebody still listens after the keeper was killed")
	}
	if err := w.StartEdge(t.Context(), n); err != nil { // as systemd does
		t.Fatal(err)
	}
	if err := w.Edges[n.Name].Ready(t.Context(), "/readyz"); err != nil {
		t.Fatal(err)
	}
	if status, body := w.get(t, request.HTTP1, "good", "/"); status != 200 {
		t.Errorf("after the keeper's death: %d %q", status, body)
	}
}
