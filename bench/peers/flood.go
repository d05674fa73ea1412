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

// The flood row: a quiet function's p99 while another logs as much as it may on
// each of its requests, which come as fast as they are answered; somebody
// follows the log, and it goes to a file.
const (
	quietHost = "quiet.edge.localhost"
	floodHost = "flood.edge.localhost"
	quietRate = 250 // requests a second
	floodJobs = 2   // requests of the flood under way
	floodMore = 5 * time.Millisecond
)

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

// floodRows measures the quiet function alone and beside the flood, in turn.
func floodRows(ctx context.Context, s size) ([]row, error) {
	addr, stop, err := startFloodServer(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	var alone, beside []float64
	requests := 0
	for range max(3, s.rounds/2) {
		for _, flood := range []bool{false, true} {
			p99, n, err := quiet(ctx, addr, flood, 2*s.load)
			if err != nil {
				return nil, err
			}
			requests += n
			if flood {
				beside = append(beside, p99)
			} else {
				alone = append(alone, p99)
			}
		}
	}
	a, b := median(alone), median(beside)
	return []row{{Name: "fair/log-flood", Value: b, Unit: "ms", Against: fmt.Sprintf("alone %.2f", a), Ratio: b / a, N: requests,
		goal: "<= max(2x, +5 ms)", met: b <= max(2*a, a+float64(floodMore.Milliseconds()))}}, nil
}

// quiet drives the quiet function and returns its p99 in ms.
func quiet(ctx context.Context, addr string, flood bool, d time.Duration) (p99 float64, n int, err error) {
	loud, hush := context.WithCancel(ctx)
	var wait sync.WaitGroup
	var flooded load.Result
	var floodErr error
	if flood {
		wait.Go(func() {
			flooded, floodErr = load.Run(loud, floodLoad(addr, floodHost, 2*d))
		})
	}
	c := floodLoad(addr, quietHost, d)
	c.Rate, c.Poisson, c.Seed, c.Warmup = quietRate, true, 1, d/5
	res, err := load.Run(ctx, c)
	hush()
	wait.Wait()
	switch {
	case err != nil:
		return 0, 0, err
	case floodErr != nil && !errors.Is(floodErr, context.Canceled):
		return 0, 0, floodErr
	case res.Failed > 0 || res.OK == 0 || res.Statuses[http.StatusOK] != res.OK:
		return 0, 0, fmt.Errorf("quiet: %s; statuses %v", res.String(), res.Statuses)
	case flood && flooded.Statuses[http.StatusOK] == 0:
		return 0, 0, fmt.Errorf("the flood is none: %s; statuses %v", flooded.String(), flooded.Statuses)
	}
	return float64(res.Latency.Quantile(.99).Microseconds()) / 1000, int(res.OK), ctx.Err()
}

func floodLoad(addr, host string, d time.Duration) load.Config {
	return load.Config{URL: "https://" + host + "/", Address: addr, Protocol: load.H2, TLS: &tls.Config{InsecureSkipVerify: true}, // made for this run
		Connections: 1, Workers: floodJobs, Duration: d}
}

func startFloodServer(ctx context.Context) (addr string, stop func(), err error) {
	exe, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "selvage-flood")
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, exe, "-flood", dir)
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
		return "", nil, errors.Join(errors.New("the server of the flood row did not start"), err)
	}
	return strings.TrimSpace(line), stop, nil
}

// runFloodServer serves both functions with a node's whole data path and its real
// log, which goes to a file in dir and is followed.
func runFloodServer(ctx context.Context, dir string) error {
	e, err := engine.Open(engine.Config{})
	if err != nil {
		return err
	}
	p, err := pool.Open(pool.Config{Engine: e, Compiler: compiler{e}})
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
	for host, text := range map[string]string{quietHost: helloText, floodHost: floodText} {
		f, err := floodFunction(ctx, p, host, text)
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

func floodFunction(ctx context.Context, p *pool.Pool, name, text string) (*pool.Function, error) {
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
	f, _, err := p.Prepare(ctx, v, code, img.Encode())
	return f, err
}
