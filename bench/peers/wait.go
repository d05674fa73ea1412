package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v39"

	"github.com/selvage-edge/selvage/bench/load"
	"github.com/selvage-edge/selvage/cmd/selvage/node"
	"github.com/selvage-edge/selvage/edge/fetch"
	"github.com/selvage-edge/selvage/edge/invoke"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// The wait rows: so many requests at once, each of which waits so long on a
// backend. More than these threads means that waiting holds threads.
const (
	waiters     = 5000
	waitFor     = time.Second
	waitStreams = 50 // of one HTTP/2 connection
	mostThreads = 64
	waitHost    = "wait.edge.localhost"
)

// waitRows sends all requests at once and counts those that failed, and the
// server's threads at their most.
func waitRows(ctx context.Context) ([]row, error) {
	b, err := startBackend()
	if err != nil {
		return nil, err
	}
	defer b.close()
	s, err := startWaitServer(ctx, b.url)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	watching, seen := context.WithCancel(ctx)
	threads := make(chan int, 1)
	go func() { threads <- mostThreadsOf(watching, s.pid) }()
	res, err := load.Run(ctx, load.Config{URL: "https://" + waitHost + "/", Address: s.addr, Protocol: load.H2, TLS: &tls.Config{InsecureSkipVerify: true}, // made for this run
		Connections: waiters / waitStreams, Workers: waiters, Requests: waiters, Check: answeredByBackend})
	seen()
	most := <-threads
	if err != nil {
		return nil, err
	}
	failed := float64(waiters - int(res.OK))
	if failed > 0 {
		fmt.Fprintf(os.Stderr, "wait: %s; statuses %v\n", res.String(), res.Statuses)
	}
	return []row{
		{Name: "wait/5000:failed", Value: failed, Unit: "requests", N: waiters, goal: "0", met: failed == 0},
		{Name: "wait/5000:threads", Value: float64(most), Unit: "threads", N: waiters, goal: "<= 64", met: most <= mostThreads},
		{Name: "wait/5000:at-once", Value: float64(b.peak.Load()), Unit: "requests", N: waiters, goal: "5000", met: b.peak.Load() == waiters}, // at the backend
	}, nil
}

func answeredByBackend(status int, body []byte) error {
	if status != http.StatusOK || string(body) != waitAnswer {
		return fmt.Errorf("status %d, body %.40q", status, body)
	}
	return nil
}

// waitAnswer is the backend's; the function passes it on.
const waitAnswer = "waited\n"

// backend answers each request after waitFor, and not before all are there: the
// first would else be answered while the last is still on its way.
type backend struct {
	server *http.Server
	url    string
	now    atomic.Int64
	peak   atomic.Int64
	once   sync.Once
	all    chan struct{} // closed once all are there
}

// longest is how long the backend waits for the last request.
const longest = 15 * time.Second

func startBackend() (*backend, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &backend{url: "http://" + l.Addr().String(), all: make(chan struct{})}
	b.server = &http.Server{Handler: b, ReadHeaderTimeout: 30 * time.Second}
	go func() { _ = b.server.Serve(l) }() // until close
	return b, nil
}

func (b *backend) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	n := b.now.Add(1)
	defer b.now.Add(-1)
	for peak := b.peak.Load(); n > peak && !b.peak.CompareAndSwap(peak, n); peak = b.peak.Load() {
	}
	if n == waiters {
		b.once.Do(func() { close(b.all) })
	}
	time.Sleep(waitFor)
	select {
	case <-b.all:
	case <-time.After(longest):
	}
	_, _ = w.Write([]byte(waitAnswer))
}

func (b *backend) close() { _ = b.server.Close() }

// waitServer is the process that serves the wait rows.
type waitServer struct {
	addr string
	pid  int
	stop func()
}

func startWaitServer(ctx context.Context, backend string) (waitServer, error) {
	exe, err := os.Executable()
	if err != nil {
		return waitServer{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, exe, "-wait", backend)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return waitServer{}, err
	}
	stop := func() {
		cancel()
		_ = cmd.Wait() // it was interrupted
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return waitServer{}, errors.Join(errors.New("the server of the wait rows did not start"), err)
	}
	return waitServer{strings.TrimSpace(line), cmd.Process.Pid, stop}, nil
}

// mostThreadsOf looks at a process until ctx ends.
func mostThreadsOf(ctx context.Context, pid int) (most int) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err == nil {
			most = max(most, len(tasks))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return most
		}
	}
}

// runWaitServer serves one function, which fetches from the backend, with the
// whole stack of a node's data path.
func runWaitServer(ctx context.Context, backend string) error {
	e, err := engine.Open(engine.Config{})
	if err != nil {
		return err
	}
	p, err := pool.Open(pool.Config{Engine: e, Compiler: compiler{e}, Computing: node.Computing()})
	if err != nil {
		return err
	}
	out, err := fetch.New(fetch.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Connections: waiters})
	if err != nil {
		return err
	}
	defer out.Close()
	f, err := waitFunction(ctx, p, backend)
	if err != nil {
		return err
	}
	target := &serve.Target{Version: f.Version(), Invoker: invoke.New(f, guest.Ports{Fetch: out})}
	table, err := route.Build([]serve.Entry{{Pattern: waitHost + "/*", Owner: waitHost, Target: target}})
	if err != nil {
		return err
	}
	h, err := serve.New(serve.Config{Limiter: limit.New(limit.Config{}), Telemetry: telemetry.New(telemetry.Config{Place: telemetry.Place{PoP: "bench"}})})
	if err != nil {
		return err
	}
	h.SetRoutes(table)
	return listenAndServe(ctx, h)
}

func waitFunction(ctx context.Context, p *pool.Pool, backend string) (*pool.Function, error) {
	module, err := wasmtime.Wat2Wasm(waitText(backend))
	if err != nil {
		return nil, err
	}
	code, img, err := image.Split(module)
	if err != nil {
		return nil, err
	}
	v := function.Version{
		ID: function.ID{Project: "bench", Name: "wait"}, Digest: function.DigestOf(module),
		Code: function.DigestOf(code), Image: function.DigestOf(img.Encode()), Limits: function.Default,
		Bindings: function.Bindings{Backends: []function.Backend{{Name: "backend", URL: backend, Private: true}}},
	}
	v.Limits.Concurrency = 2 * waiters
	v.Limits.QueueWait = function.Ceiling.QueueWait // they come faster than two processors start them, and none is to be shed
	f, _, err := p.Prepare(ctx, v, pool.Bytes(code, img.Encode()))
	return f, err
}

// waitText is a guest that fetches and passes on what came: fetch_start,
// fetch_head, and fetch_read and response_write until the end.
func waitText(backend string) string {
	request := native.AppendPairs(native.AppendString(native.AppendString(nil, http.MethodGet), backend+"/"), nil)
	request = append(request, 0, 0, 0, 0)
	var text strings.Builder
	for _, c := range request {
		fmt.Fprintf(&text, "\\%02x", c)
	}
	return fmt.Sprintf(`(module
  (import "selvage_v1" "fetch_start" (func $start (param i32 i32) (result i32)))
  (import "selvage_v1" "fetch_head" (func $head (param i32 i32 i32) (result i32)))
  (import "selvage_v1" "fetch_read" (func $read (param i32 i32 i32) (result i32)))
  (import "selvage_v1" "response_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 1024) "%s")
  (func (export "handle") (local $h i32) (local $n i32)
    (local.set $h (call $start (i32.const 1024) (i32.const %d)))
    (if (i32.lt_s (call $head (local.get $h) (i32.const 4096) (i32.const 4096)) (i32.const 0)) (then unreachable))
    (loop $l
      (local.set $n (call $read (local.get $h) (i32.const 8192) (i32.const 4096)))
      (if (i32.lt_s (local.get $n) (i32.const 0)) (then unreachable))
      (if (i32.gt_s (local.get $n) (i32.const 0)) (then
        (drop (call $write (i32.const 8192) (local.get $n)))
        (br $l))))))`, text.String(), len(request))
}
