package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v39"

	"github.com/selvage-edge/selvage/bench/load"
	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/target"
	"github.com/selvage-edge/selvage/cmd/selvage/up"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/identity"
)

// The kv rows of a fleet of three PoPs, as processes on loopback: reads a second
// through control's API, with Redis beside it, and how long after it was
// acknowledged a write is visible in every PoP.
const (
	visiblePoPs = 3
	visibleP50  = 50  // ms, at most
	visibleP99  = 300 // ms, at most
	visibleMost = 30 * time.Second
)

// apiConnections are what the API and Redis are driven with; the rows of the first have no suffix.
var apiConnections = []struct {
	n      int
	suffix string
}{{64, ""}, {1, ":1"}}

// revisionText answers with the entry header of key k of the namespace words, whose first eight bytes are its revision.
const revisionText = `(module
  (import "selvage_v1" "kv_open" (func $open (param i32 i32) (result i32)))
  (import "selvage_v1" "kv_get" (func $get (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "selvage_v1" "response_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "words") (data (i32.const 80) "k")
  (func (export "handle")
    (drop (call $get (call $open (i32.const 64) (i32.const 5)) (i32.const 80) (i32.const 1) (i32.const 1024) (i32.const 1024) (i32.const 128)))
    (drop (call $write (i32.const 128) (i32.const 24)))))`

// kvFleet is the fleet with a function that tells the revision of a key.
type kvFleet struct {
	fleet up.Fleet
	to    target.Target
	http  *http.Client
	dir   string
}

func kvFleetRows(ctx context.Context, s size, selvage, only string) (rows []row, err error) {
	f, err := startKVFleet(ctx, selvage)
	defer f.stop()
	if err != nil {
		return nil, err
	}
	if _, err := f.put(ctx, hotValue); err != nil {
		return nil, err
	}
	if wanted(only, "kv/visible-") {
		if rows, err = f.visible(ctx, s.writes); err != nil {
			return rows, err
		}
	}
	if wanted(only, "kv/api-rps") || wanted(only, "kv/redis-rps") {
		more, err := f.apiAndRedis(ctx, s)
		return append(rows, more...), err
	}
	return rows, nil
}

func startKVFleet(ctx context.Context, selvage string) (f *kvFleet, err error) {
	f = &kvFleet{}
	if f.dir, err = os.MkdirTemp("", "selvage-bench-"); err != nil {
		return f, err
	}
	bin, err := filepath.Abs(selvage)
	if err != nil {
		return f, err
	}
	layout, err := up.Plan(up.Options{Dir: filepath.Join(f.dir, "fleet"), PoPs: visiblePoPs, Base: netip.MustParseAddr("127.0.9.10"), Port: 8443})
	if err != nil {
		return f, err
	}
	f.fleet = up.Fleet{Layout: layout, Selvage: bin}
	if err := f.fleet.Boot(ctx, func(string, ...any) {}); err != nil {
		return f, err
	}
	if f.to, err = target.Load(layout.Target); err != nil {
		return f, err
	}
	root, err := identity.ParseKeyID(f.to.Root)
	if err != nil {
		return f, err
	}
	f.http = &http.Client{Transport: identity.ClientTransport(root, nil)}
	return f, f.deploy(ctx)
}

func (f *kvFleet) deploy(ctx context.Context) error {
	module, err := wasmtime.Wat2Wasm(revisionText)
	if err != nil {
		return err
	}
	dir := filepath.Join(f.dir, "revision")
	manifest := []byte("name = \"revision\"\nroutes = [\"revision.edge.localhost/*\"]\n[[kv]]\nname = \"words\"\n")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "selvage.toml"), manifest, 0o644),
		os.WriteFile(filepath.Join(dir, "revision.wasm"), module, 0o644)); err != nil {
		return err
	}
	_, err = f.fleet.Run(ctx, "deploy", "--wait", dir)
	return err
}

func (f *kvFleet) stop() {
	if f.http != nil {
		f.http.CloseIdleConnections()
	}
	f.fleet.Stop()
	os.RemoveAll(f.dir)
}

func (f *kvFleet) keyURL() string {
	return f.to.Control[0] + "/v1/projects/" + f.to.Project + "/kv/words/keys/k"
}

// put writes the key and returns the revision, once it is durable.
func (f *kvFleet) put(ctx context.Context, value []byte) (uint64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, f.keyURL(), bytes.NewReader(value))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+f.to.Token)
	resp, err := f.http.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("put: %d %s", resp.StatusCode, text)
	}
	if err != nil {
		return 0, err
	}
	var w api.Written
	err = json.Unmarshal(text, &w)
	return w.Revision, err
}

// visible writes so many times and asks each PoP, over and over, until all have the revision.
func (f *kvFleet) visible(ctx context.Context, writes int) ([]row, error) {
	var clients []*request.Client
	for _, n := range f.fleet.Layout.Edges {
		c, err := request.New(request.Config{Version: request.HTTP1, Connect: n.Public, CAFile: f.fleet.EdgeCA})
		if err != nil {
			return nil, err
		}
		defer c.Close()
		clients = append(clients, c)
	}
	var ms []float64
	for i := range writes + 1 {
		revision, err := f.put(ctx, fmt.Appendf(hotValue[:hotBytes-8:hotBytes-8], "%08d", i))
		if err != nil {
			return nil, err
		}
		acknowledged := time.Now()
		errs := make([]error, len(clients))
		var all sync.WaitGroup
		for j, c := range clients {
			all.Go(func() { errs[j] = untilRevision(ctx, c, revision) })
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			return nil, fmt.Errorf("write %d: %w", i, err)
		}
		if i > 0 { // the first one has everybody read the key for the first time
			ms = append(ms, float64(time.Since(acknowledged).Microseconds())/1000)
		}
	}
	slices.Sort(ms)
	p50, p99 := ms[len(ms)/2], ms[len(ms)*99/100]
	return []row{
		row{Name: "kv/visible-p50", Value: p50, Unit: "ms", N: len(ms)}.atMost(p50, visibleP50, " ms"),
		row{Name: "kv/visible-p99", Value: p99, Unit: "ms", N: len(ms)}.atMost(p99, visibleP99, " ms"),
	}, nil
}

// untilRevision asks the function until its node has the revision, or a newer one.
func untilRevision(ctx context.Context, c *request.Client, revision uint64) error {
	ctx, cancel := context.WithTimeout(ctx, visibleMost)
	defer cancel()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://revision.edge.localhost:8443/", nil)
		if err != nil {
			return err
		}
		a, err := c.Do(r)
		if err != nil {
			return err
		}
		head, err := io.ReadAll(a.Body)
		a.Body.Close()
		if err != nil || a.Status != http.StatusOK || len(head) != 24 {
			return fmt.Errorf("status %d, %d bytes: %w", a.Status, len(head), err)
		}
		if binary.LittleEndian.Uint64(head) >= revision {
			return nil
		}
	}
}

// apiAndRedis drives both in turn, with the same number of connections.
func (f *kvFleet) apiAndRedis(ctx context.Context, s size) (rows []row, err error) {
	if _, err := f.put(ctx, hotValue); err != nil {
		return nil, err
	}
	redis, stop, err := startRedis(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "SKIPPED: kv/redis-rps: %v\n", err)
	} else {
		defer stop()
	}
	for _, c := range apiConnections {
		var ours, theirs []float64
		n, m := 0, 0
		for range max(3, s.rounds/3) {
			res, err := load.Run(ctx, load.Config{URL: f.keyURL(), Protocol: load.H1, TLS: &tls.Config{InsecureSkipVerify: true}, // a fleet made for this run
				Header: http.Header{"Authorization": {"Bearer " + f.to.Token}}, Connections: c.n, Workers: c.n, Duration: s.load, Warmup: s.load / 5, Check: isHot})
			if err == nil && (res.Failed > 0 || res.OK == 0) {
				err = fmt.Errorf("API, %d connections: %s: %v", c.n, res.String(), res.Errors)
			}
			if err = errors.Join(err, ctx.Err()); err != nil {
				return rows, err
			}
			ours, n = append(ours, res.Rate()), n+int(res.OK)
			if redis == "" {
				continue
			}
			got, err := driveRedis(ctx, redis, c.n, s.load)
			if err != nil {
				return rows, err
			}
			theirs, m = append(theirs, float64(got)/s.load.Seconds()), m+got
		}
		r := row{Name: "kv/api-rps" + c.suffix, Value: median(ours), Unit: "rps", N: n}
		if redis != "" {
			them := median(theirs)
			r.Against, r.Ratio = fmt.Sprintf("Redis %.0f", them), r.Value/them
			rows = append(rows, row{Name: "kv/redis-rps" + c.suffix, Value: them, Unit: "rps", N: m})
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func isHot(status int, body []byte) error {
	if status != http.StatusOK || !bytes.Equal(body, hotValue) {
		return fmt.Errorf("status %d, body %.120q", status, body)
	}
	return nil
}
