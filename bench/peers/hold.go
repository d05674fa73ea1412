package main

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v39"

	"github.com/selvage-edge/selvage/cmd/selvage/node"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// The hold rows: what ten thousand invocations cost while each waits for the
// body of its request, without the connections they came over.
const (
	held         = 10_000
	heldThreads  = 32
	warmedBefore = 64 // invocations that have come and gone before memory is first measured
)

// heldGoals are the most bytes of memory (Pss) a waiting invocation may cost.
var heldGoals = []struct {
	name, row string
	bytes     float64
	build     func(context.Context) ([]byte, error)
}{
	{"hello", "wait/10000:bytes-hello", 24 << 10, func(context.Context) ([]byte, error) { return wasmtime.Wat2Wasm(holdText) }},
	{"go", "wait/10000:bytes-go", 64 << 10, func(ctx context.Context) ([]byte, error) { return buildGo(ctx, "bench/peers/testdata/go") }},
	{"go-handler", "wait/10000:bytes-go-handler", 400 << 10, buildHoldHandler},
}

// holdText is hello after it has read the body.
const holdText = `(module
  (import "selvage_v1" "request_read" (func $read (param i32 i32) (result i32)))
  (import "selvage_v1" "response_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 17)
  (data (i32.const 2048) "hello, world\n")
  (func (export "handle")
    (drop (call $read (i32.const 4096) (i32.const 64)))
    (drop (call $write (i32.const 2048) (i32.const 13)))))`

// holdHandler is an http.Handler that reads the body.
const holdHandler = `package main

import (
	"io"
	"net/http"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

func main() {
	edge.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
		io.WriteString(w, "hello, world\n")
	}))
}
`

func buildHoldHandler(ctx context.Context) ([]byte, error) {
	return buildFromTemplate(ctx, func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "main.go"), []byte(holdHandler), 0o600)
	})
}

// heldFigures is what the process that holds reports.
type heldFigures struct {
	Before, After int64 // bytes, Pss
	Threads       int   // at the most
	AtOnce        int64 // instances alive
	Failed        int
}

// holdRows holds ten thousand invocations of each guest, each in a process of its own.
func holdRows(ctx context.Context) ([]row, error) {
	var rows []row
	most := 0
	for _, g := range heldGoals {
		module, err := g.build(ctx)
		if err != nil {
			return nil, fmt.Errorf("guest %s: %w", g.name, err)
		}
		p, err := prepare(ctx, module, "/")
		if err != nil {
			return nil, fmt.Errorf("guest %s: %w", g.name, err)
		}
		f, err := holdIn(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("guest %s: %w", g.name, err)
		}
		if f.Failed > 0 || f.AtOnce != held {
			return nil, fmt.Errorf("guest %s: %d of %d waited at once, %d were not answered", g.name, f.AtOnce, held, f.Failed)
		}
		most = max(most, f.Threads)
		each := float64(f.After-f.Before) / held
		rows = append(rows, row{Name: g.row, Value: each, Unit: "bytes", N: held,
			goal: fmt.Sprintf("<= %g KiB", g.bytes/1024), met: each <= g.bytes})
	}
	return append(rows, row{Name: "wait/10000:threads", Value: float64(most), Unit: "threads", N: held,
		goal: fmt.Sprintf("<= %d", heldThreads), met: most <= heldThreads}), nil
}

// holdIn starts this program again as the process that holds.
func holdIn(ctx context.Context, p *prepared) (f heldFigures, err error) {
	exe, err := os.Executable()
	if err != nil {
		return f, err
	}
	cmd := exec.CommandContext(ctx, exe, "-hold")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return f, err
	}
	go func() {
		_ = gob.NewEncoder(in).Encode(wire{helloHost, p.code, p.encoded, p.started}) // the process says what it lacks
		_ = in.Close()
	}()
	out, err := cmd.Output()
	if err != nil {
		return f, fmt.Errorf("hold: %w", err)
	}
	return f, json.Unmarshal(out, &f)
}

// runHold holds invocations of the guest on standard input and writes the figures.
func runHold(ctx context.Context) error {
	var w wire
	if err := gob.NewDecoder(os.Stdin).Decode(&w); err != nil {
		return err
	}
	h, e, err := holdingHandler(ctx, w)
	if err != nil {
		return err
	}
	if failed := hold(h, warmedBefore, func() {}); failed > 0 {
		return fmt.Errorf("%d of %d first ones were not answered", failed, warmedBefore)
	}
	var f heldFigures
	if f.Before, err = pss(); err != nil {
		return err
	}
	f.Failed = hold(h, held, func() {
		f.AtOnce = e.Stats().Instances
		f.After, err = pss()
	})
	if err != nil {
		return err
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	f.Threads = len(tasks) // Go keeps the threads it once made
	return json.NewEncoder(os.Stdout).Encode(f)
}

// holdingHandler serves one function with the node's whole data path.
func holdingHandler(ctx context.Context, w wire) (http.Handler, *engine.Engine, error) {
	e, err := engine.Open(engine.Config{})
	if err != nil {
		return nil, nil, err
	}
	p, err := pool.Open(pool.Config{Engine: e, Compiler: compiler{e}, Computing: node.Computing()})
	if err != nil {
		return nil, nil, err
	}
	target, err := load1(ctx, p, w, 2*held)
	if err != nil {
		return nil, nil, err
	}
	table, err := route.Build([]serve.Entry{{Pattern: w.Host + "/*", Owner: w.Host, Target: target}})
	if err != nil {
		return nil, nil, err
	}
	h, err := serve.New(serve.Config{Limiter: limit.New(limit.Config{Node: 2 * held}),
		Telemetry: telemetry.New(telemetry.Config{Place: telemetry.Place{PoP: "bench"}})})
	if err != nil {
		return nil, nil, err
	}
	h.SetRoutes(table)
	return h, e, nil
}

// hold has n requests wait for their bodies, calls meanwhile when all do, and
// lets them end; it returns how many were not answered.
func hold(h http.Handler, n int, meanwhile func()) (failed int) {
	var group sync.WaitGroup
	var waiting, answered atomic.Int64
	all, end := make(chan struct{}), make(chan struct{})
	arrived := func() {
		if waiting.Add(1) == int64(n) {
			close(all)
		}
	}
	for range n {
		group.Go(func() {
			w := &counted{header: http.Header{}}
			b := &heldBody{arrived: sync.OnceFunc(arrived), end: end}
			r, err := http.NewRequest(http.MethodPost, "https://"+helloHost+"/", b)
			if err == nil {
				r.ContentLength, r.RequestURI, r.RemoteAddr = -1, "/", "192.0.2.1:443"
				h.ServeHTTP(w, r)
			}
			b.arrived() // a request that failed does not hold up the others
			if w.status == http.StatusOK && w.bytes > 0 {
				answered.Add(1)
			}
		})
	}
	<-all
	meanwhile()
	close(end)
	group.Wait()
	return n - int(answered.Load())
}

// heldBody ends when it is told to.
type heldBody struct {
	arrived func()
	end     chan struct{}
}

func (b *heldBody) Read([]byte) (int, error) {
	b.arrived()
	<-b.end
	return 0, io.EOF
}

func (*heldBody) Close() error { return nil }

// counted is a response that only counts.
type counted struct {
	header        http.Header
	status, bytes int
}

func (q *counted) Header() http.Header    { return q.header }
func (q *counted) WriteHeader(status int) { q.status = status }
func (q *counted) Write(p []byte) (int, error) {
	q.bytes += len(p)
	return len(p), nil
}
func (q *counted) FlushError() error { return nil }
func (q *counted) Flush()            {}

// pss is this process's proportional share of memory, in bytes, once Go has
// given back what it does not need.
func pss() (int64, error) {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("/proc/self/smaps_rollup: no line Pss")
}
