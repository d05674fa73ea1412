package serve_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/selvage-edge/selvage/edge/guard"
	"github.com/selvage-edge/selvage/edge/invoke"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/listen"
	"github.com/selvage-edge/selvage/edge/listen/listentest"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

// long is a time that no test waits for.
const long = 5 * time.Minute

// patient is a context for whatever must come, some time.
func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), long)
	t.Cleanup(cancel)
	return ctx
}

// door is the whole way in: sockets, listeners, stages and real guests.
type door struct {
	sockets listentest.Sockets
	server  *listen.Server
	tls     *tls.Config
	records chan map[string]any // the access log
}

// Write takes a line of the access log; beyond what a test waits for it is dropped.
func (d *door) Write(p []byte) (int, error) {
	var record map[string]any
	if err := json.Unmarshal(p, &record); err != nil {
		return 0, err
	}
	select {
	case d.records <- record:
	default:
	}
	return len(p), nil
}

// record waits for the access record of an exchange.
func (d *door) record(t *testing.T) map[string]any {
	t.Helper()
	select {
	case r := <-d.records:
		return r
	case <-patient(t).Done():
		t.Fatal("no access record")
		return nil
	}
}

// loaded is one guest, ready to run.
type loaded struct {
	runner  *guest.Runner
	program *engine.Program
	version function.Version
}

func (l *loaded) Version() *function.Version { return &l.version }

func (l *loaded) Invoke(ctx context.Context, ports guest.Ports, x guest.Exchange) (guest.Usage, error) {
	return l.runner.Run(ctx, l.program, &l.version, ports, x)
}

// wat is a guest in the text format: the body of its handle, and data before it.
type wat struct {
	data, handle string
	limits       function.Limits
}

// doorName is the host of every test certificate.
const doorName = "a.example"

// guests that more than one test uses.
var (
	// hello reads the whole request, then answers.
	hello = wat{data: `(data (i32.const 8) "hello")`, handle: `
		(loop $l (br_if $l (i32.gt_s (call $request_read (i32.const 1024) (i32.const 60000)) (i32.const 0))))
		(drop (call $response_write (i32.const 8) (i32.const 5)))`}
	// endless answers without an end.
	endless = wat{handle: `(loop $l (drop (call $response_write (i32.const 0) (i32.const 65536))) (br $l))`,
		limits: function.Limits{CPU: 30 * time.Second}}
	// sleeper waits in a host call.
	sleeper = wat{handle: `(drop (call $sleep (i64.const 600000000000)))`}
)

// openDoor serves the guests, by path (of any host), on loopback. Certificate,
// Handler and sockets of cfg are filled in.
func openDoor(t *testing.T, cfg listen.Config, guests map[string]wat) *door {
	t.Helper()
	d := &door{sockets: listentest.Open(t), records: make(chan map[string]any, 1000)}
	h, err := serve.New(serve.Config{
		Limiter:   limit.New(limit.Config{}),
		Telemetry: telemetry.New(telemetry.Config{Log: telemetry.Direct{W: d}}),
	})
	if err != nil {
		t.Fatal(err)
	}
	h.SetRoutes(guestTable(t, guests))
	store, client := listentest.Certificates(t, doorName)
	d.tls = client
	cfg.Certificate, cfg.Handler = store.Get, h
	// Only what a test is about may be over soon: a machine may stand still.
	cfg.Linger = 100 * time.Millisecond
	cfg.HandshakeTimeout = cmp.Or(cfg.HandshakeTimeout, long)
	cfg.HeadTimeout = cmp.Or(cfg.HeadTimeout, long)
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, long)
	if cfg.Guard == nil {
		cfg.Guard = func(c net.Conn) net.Conn { return guard.Wire(c, long) }
	}
	d.server = listentest.Start(t, d.sockets, cfg)
	return d
}

func guestTable(t *testing.T, guests map[string]wat) *serve.Routes {
	t.Helper()
	runner := guest.NewRunner(runtime.GOMAXPROCS(0), runtime.GOMAXPROCS(0))
	var entries []serve.Entry
	for path, g := range guests {
		module := guesttest.Guest(t, g.data+` (func (export "handle") `+g.handle+`)`)
		l := &loaded{runner: runner, program: guesttest.Program(t, module)}
		g.limits.CPU = cmp.Or(g.limits.CPU, 10*time.Second)
		g.limits.Wall = cmp.Or(g.limits.Wall, long)
		l.version = function.Version{ID: function.ID{Project: "p", Name: "f" + path[1:]}, Limits: g.limits}
		target := &serve.Target{Version: &l.version, Invoker: invoke.New(l, guest.Ports{})}
		entries = append(entries, serve.Entry{Pattern: "*" + path, Owner: l.version.ID.String(), Target: target})
	}
	table, err := route.Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// dial opens a TLS connection that speaks proto ("h2" or "http/1.1").
func (d *door) dial(t *testing.T, proto string) *tls.Conn {
	t.Helper()
	cfg := d.tls.Clone()
	cfg.NextProtos = []string{proto}
	c, err := (&tls.Dialer{Config: cfg}).DialContext(patient(t), "tcp", d.sockets.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*tls.Conn)
}

// dialQUIC opens a QUIC connection.
func (d *door) dialQUIC(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
	return quic.DialAddr(ctx, d.sockets.Addr(), tc, qc)
}

// clients are one per protocol.
func (d *door) clients(t *testing.T) map[string]http.RoundTripper {
	clients := map[string]http.RoundTripper{}
	for _, major := range []int{1, 2} {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(major == 1)
		protocols.SetHTTP2(major == 2)
		c := &http.Transport{TLSClientConfig: d.tls.Clone(), Protocols: protocols, ExpectContinueTimeout: time.Minute,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, d.sockets.Addr())
			}}
		t.Cleanup(c.CloseIdleConnections)
		clients[fmt.Sprintf("h%d", major)] = c
	}
	h3 := &http3.Transport{TLSClientConfig: d.tls, Dial: d.dialQUIC}
	t.Cleanup(func() { _ = h3.Close() })
	clients["h3"] = h3
	return clients
}
