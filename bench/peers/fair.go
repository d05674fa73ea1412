package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v39"

	"github.com/selvage-edge/selvage/bench/load"
	"github.com/selvage-edge/selvage/cmd/selvage/node"
	"github.com/selvage-edge/selvage/edge/invoke"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// The fair rows: a quiet function's p99 beside neighbours whose requests come as
// fast as they are answered: one logs as much as it may (somebody follows the
// log, and it goes to a file), one computes until it is stopped, one takes memory until it gets no more.
const (
	quietHost = "quiet.edge.localhost"
	floodHost = "flood.edge.localhost"
	loopHost  = "loop.edge.localhost"
	growHost  = "grow.edge.localhost"
	quietRate = 250 // requests a second
	loudJobs  = 2   // requests of each neighbour under way
	fairMore  = 5 * time.Millisecond
)

const loopText = `(module
  (memory (export "memory") 1)
  (func (export "handle") (loop $l (br $l))))`

// growText writes to every page that it gets.
const growText = `(module
  (import "selvage_v1" "response_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "handle") (local $at i32)
    (loop $l
      (if (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)) (then
        (loop $w
          (i32.store (local.get $at) (i32.const -1))
          (local.set $at (i32.add (local.get $at) (i32.const 4096)))
          (br_if $w (i32.lt_u (local.get $at) (i32.shl (memory.size) (i32.const 16)))))
        (br $l))))
    (drop (call $write (i32.const 0) (i32.const 4)))))`

// fairGuests are the functions of the fair rows.
var fairGuests = map[string]string{quietHost: helloText, floodHost: floodText, loopHost: loopText, growHost: growText}

// floodText logs 1,000 lines of 64 bytes: all that a request may.
const floodText = `(module
  (import "selvage_v1" "log" (func $log (param i32 i32 i32) (result i32)))
  (import "selvage_v1" "response_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "the flood says the same again and again, sixty-four bytes of it\n")
  (func (export "handle") (local $n i32)
    (local.set $n (i32.const 1000))
    (loop $l
      (drop (call $log (i32.const 0) (i32.const 64) (i32.const 64)))
      (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (drop (call $write (i32.const 64) (i32.const 9)))))`

// fairRows measures the quiet function alone and beside neighbours, in turn.
func fairRows(ctx context.Context, s size, only string) (rows []row, err error) {
	addr, stop, err := startFairServer(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	for _, r := range []struct {
		name       string
		neighbours []string
	}{{"fair/log-flood", []string{floodHost}}, {"fair/victim-p99", []string{floodHost, loopHost, growHost}}} {
		if !wanted(only, r.name) {
			continue
		}
		alone, beside, n, err := aloneAndBeside(ctx, s, addr, r.neighbours)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", r.name, err)
		}
		out := row{Name: r.name, Value: beside - alone, Unit: "ms more", Against: fmt.Sprintf("alone %.2f", alone), Ratio: beside / alone, N: n,
			goal: "<= max(2x, +5 ms)", met: beside <= max(2*alone, alone+float64(fairMore.Milliseconds()))}
		rows = append(rows, out)
	}
	return rows, nil
}

// aloneAndBeside returns the quiet function's p99 both ways, in ms, and its requests.
func aloneAndBeside(ctx context.Context, s size, addr string, neighbours []string) (alone, beside float64, requests int, err error) {
	var p99s [2][]float64
	for range max(3, s.rounds/2) {
		for i, loud := range [][]string{nil, neighbours} {
			p99, n, err := quiet(ctx, addr, loud, 2*s.load)
			if err != nil {
				return 0, 0, 0, err
			}
			requests += n
			p99s[i] = append(p99s[i], p99)
		}
	}
	return median(p99s[0]), median(p99s[1]), requests, nil
}

// quiet drives the quiet function and returns its p99 in ms.
func quiet(ctx context.Context, addr string, neighbours []string, d time.Duration) (p99 float64, n int, err error) {
	loud, hush := context.WithCancel(ctx)
	var wait sync.WaitGroup
	results, errs := make([]load.Result, len(neighbours)), make([]error, len(neighbours))
	for i, host := range neighbours {
		wait.Go(func() {
			results[i], errs[i] = load.Run(loud, fairLoad(addr, host, 2*d))
		})
	}
	c := fairLoad(addr, quietHost, d)
	c.Rate, c.Poisson, c.Seed, c.Warmup = quietRate, true, 1, d/5
	res, err := load.Run(ctx, c)
	hush()
	wait.Wait()
	switch {
	case err != nil:
		return 0, 0, err
	case res.Failed > 0 || res.OK == 0 || res.Statuses[http.StatusOK] != res.OK:
		return 0, 0, fmt.Errorf("quiet: %s; statuses %v", res.String(), res.Statuses)
	}
	for i, host := range neighbours {
		if errs[i] != nil && !errors.Is(errs[i], context.Canceled) {
			return 0, 0, fmt.Errorf("%s: %w", host, errs[i])
		}
		if len(results[i].Statuses) == 0 { // an answer of any status
			return 0, 0, fmt.Errorf("%s was not answered: %s", host, results[i].String())
		}
	}
	return float64(res.Latency.Quantile(.99).Microseconds()) / 1000, int(res.OK), ctx.Err()
}

func fairLoad(addr, host string, d time.Duration) load.Config {
	return load.Config{URL: "https://" + host + "/", Address: addr, Protocol: load.H2, TLS: &tls.Config{InsecureSkipVerify: true}, // made for this run
		Connections: 1, Workers: loudJobs, Duration: d}
}

func startFairServer(ctx context.Context) (addr string, stop func(), err error) {
	exe, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "selvage-fair")
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, exe, "-fair", dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	stop = func() {
		cancel()
		_ = cmd.Wait() // it was interrupted
		_ = os.RemoveAll(dir)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, errors.Join(errors.New("the server of the fair rows did not start"), err)
	}
	return strings.TrimSpace(line), stop, nil
}

// runFairServer serves the functions with a node's whole data path and its real
// log, which goes to a file in dir and is followed.
func runFairServer(ctx context.Context, dir string) error {
	e, err := engine.Open(engine.Config{})
	if err != nil {
		return err
	}
	p, err := pool.Open(pool.Config{Engine: e, Compiler: compiler{e}, Computing: node.Computing()})
	if err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer file.Close()
	place := telemetry.Place{PoP: "bench", Node: "bench-1"}
	log := telemetry.NewLog(file, telemetry.LogConfig{Place: place})
	defer log.Close()
	tap, err := log.Follow(telemetry.Filter{AnyLevel: true}, time.Now(), 0)
	if err != nil {
		return err
	}
	var wait sync.WaitGroup
	defer wait.Wait()
	wait.Go(func() { followToTheEnd(ctx, tap) })
	var entries []serve.Entry
	for host, text := range fairGuests {
		f, err := fairFunction(ctx, p, host, text)
		if err != nil {
			return err
		}
		entries = append(entries, serve.Entry{Pattern: host + "/*", Owner: host, Target: &serve.Target{Version: f.Version(), Invoker: invoke.New(f, guest.Ports{Log: log})}})
	}
	table, err := route.Build(entries)
	if err != nil {
		return err
	}
	h, err := serve.New(serve.Config{Limiter: limit.New(limit.Config{}), Telemetry: telemetry.New(telemetry.Config{Place: place, Log: log}), Place: place})
	if err != nil {
		return err
	}
	h.SetRoutes(table)
	return listenAndServe(ctx, h)
}

// followToTheEnd reads the log as control would.
func followToTheEnd(ctx context.Context, tap *telemetry.Tap) {
	defer tap.Close()
	for buf, err := []byte(nil), error(nil); err == nil; {
		buf, err = tap.Next(ctx, buf[:0])
	}
}

func fairFunction(ctx context.Context, p *pool.Pool, name, text string) (*pool.Function, error) {
	module, err := wasmtime.Wat2Wasm(text)
	if err != nil {
		return nil, err
	}
	code, img, err := image.Split(module)
	if err != nil {
		return nil, err
	}
	v := function.Version{
		ID: function.ID{Project: "bench", Name: strings.Split(name, ".")[0]}, Digest: function.DigestOf(module),
		Code: function.DigestOf(code), Image: function.DigestOf(img.Encode()), Limits: function.Default,
	}
	f, _, err := p.Prepare(ctx, v, pool.Bytes(code, img.Encode()))
	return f, err
}
