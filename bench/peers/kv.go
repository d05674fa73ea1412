package main

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v39"

	"github.com/selvage-edge/selvage/bench/load"
	"github.com/selvage-edge/selvage/cmd/selvage/node"
	"github.com/selvage-edge/selvage/edge/invoke"
	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/replica"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// The kv rows on one node: a hot read inside a Go guest over a host call that
// suspends and does nothing, and reads a second through a function. What needs a fleet is in kvfleet.go and kvmodel.go.
const (
	kvHost    = "kv.edge.localhost"
	hotCalls  = 2000 // of an invocation
	hotBytes  = 100  // of the value
	hotMost   = 1.5  // times the empty call, cached
	copyMost  = 2.0  // the same, replicated
	kvLeast   = 0.5  // times the bare handler's rate
	hotRounds = 20   // invocations of each kind in a round
)

// hotValue is what is read.
var hotValue = bytes.Repeat([]byte{'v'}, hotBytes)

// hotHandler reads or makes empty calls, as its path says.
const hotHandler = `package main

import (
	"io"
	"net/http"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

//go:wasmimport selvage_v1 sleep
func sleep(ns int64) int32

var hot = edge.KV("hot")

func main() {
	edge.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/read":
			for range %[1]d {
				if v, err := hot.Get(r.Context(), "k"); err != nil || len(v) != %[2]d {
					panic(err)
				}
			}
		case "/empty":
			for range %[1]d {
				sleep(0)
			}
		}
		io.WriteString(w, "done\n")
	}))
}
`

// kvText answers with the value.
var kvText = fmt.Sprintf(`(module
  (import "selvage_v1" "kv_open" (func $open (param i32 i32) (result i32)))
  (import "selvage_v1" "kv_get" (func $get (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "selvage_v1" "response_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "hot") (data (i32.const 80) "k")
  (func (export "handle")
    (if (call $get (call $open (i32.const 64) (i32.const 3)) (i32.const 80) (i32.const 1) (i32.const 1024) (i32.const 1024) (i32.const 128)) (then unreachable))
    (drop (call $write (i32.const 1024) (i32.const %d)))))`, hotBytes)

// kvRows are all rows of KV.
func kvRows(ctx context.Context, s size, selvage, only string) (rows []row, err error) {
	for _, part := range []struct {
		names []string
		rows  func() ([]row, error)
	}{
		{[]string{"kv/hot-cached", "kv/hot-replicated"}, func() ([]row, error) { return hotRows(ctx, s, only) }},
		{[]string{"kv/1m:"}, func() ([]row, error) { return copyRows(ctx) }},
		{[]string{"kv/function-rps"}, func() ([]row, error) { return kvFunctionRows(ctx, s) }},
		{[]string{"kv/api-rps", "kv/redis-rps", "kv/visible-"}, func() ([]row, error) { return kvFleetRows(ctx, s, selvage, only) }},
		{[]string{"kv/model-"}, func() ([]row, error) { return modelRows(ctx, s) }},
	} {
		for _, name := range part.names {
			if wanted(only, name) {
				more, failed := part.rows()
				rows, err = append(rows, more...), errors.Join(err, failed)
				break
			}
		}
	}
	return rows, err
}

// oneValue is an origin that has one value under every key.
type oneValue struct{ hostcall.KV }

func (oneValue) Get(context.Context, hostcall.Namespace, string) (hostcall.Entry, error) {
	return hostcall.Entry{Value: hotValue, Revision: 1, AsOf: 1}, nil
}

// hotRows invokes the guest in this process, in a namespace that is cached, and in one with
// a copy and no origin.
func hotRows(ctx context.Context, s size, only string) (rows []row, err error) {
	module, err := buildFromTemplate(ctx, func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "main.go"), fmt.Appendf(nil, hotHandler, hotCalls, hotBytes), 0o600)
	})
	if err != nil {
		return nil, err
	}
	p, err := prepare(ctx, module, "/")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "selvage-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for _, mode := range []struct {
		name, copies string
		most         float64
	}{{"kv/hot-cached", "", hotMost}, {"kv/hot-replicated", dir, copyMost}} {
		if !wanted(only, mode.name) {
			continue
		}
		r, err := hotRow(ctx, s, p, mode.copies)
		if err != nil {
			return rows, err
		}
		r.Name = mode.name
		rows = append(rows, r.atMost(r.Ratio, mode.most, "x"))
	}
	return rows, nil
}

// hotRow invokes it in turn to do nothing, to make empty calls and to read.
func hotRow(ctx context.Context, s size, p *prepared, copies string) (r row, err error) {
	e, err := oneEngine()
	if err != nil {
		return r, err
	}
	h, done, err := kvHandler(ctx, e, []wire{{kvHost, p.code, p.encoded, p.started}}, copies)
	if err != nil {
		return r, err
	}
	defer done()
	sides := []string{"/", "/empty", "/read"}
	us := make([][]float64, len(sides))
	for round := range s.rounds + 1 {
		for i, path := range sides {
			begin := time.Now()
			for range hotRounds {
				if err := invokeOnce(h, path); err != nil {
					return r, err
				}
			}
			if err := ctx.Err(); err != nil {
				return r, err
			}
			if round > 0 { // the first one warms
				us[i] = append(us[i], float64(time.Since(begin).Nanoseconds())/1000/hotRounds)
			}
		}
	}
	nothing := median(us[0])
	empty, read := (median(us[1])-nothing)/hotCalls, (median(us[2])-nothing)/hotCalls
	return row{Value: read, Unit: "us", Against: fmt.Sprintf("empty call %.3f", empty), Ratio: read / empty, N: hotCalls * hotRounds * s.rounds}, nil
}

// invokeOnce has the function of kvHost answer a GET of path.
func invokeOnce(h http.Handler, path string) error {
	r, err := http.NewRequest(http.MethodGet, "https://"+kvHost+path, nil)
	if err != nil {
		return err
	}
	r.RequestURI, r.RemoteAddr = path, "192.0.2.1:443"
	w := &counted{header: http.Header{}}
	h.ServeHTTP(w, r)
	if w.status != http.StatusOK || w.bytes == 0 {
		return fmt.Errorf("GET %s: status %d, %d bytes", path, w.status, w.bytes)
	}
	return nil
}

// kvHandler serves functions with a node's whole data path and a namespace, "hot", that
// its change stream keeps fresh, with a copy if there is a folder for it.
func kvHandler(ctx context.Context, e *engine.Engine, list []wire, copies string) (_ http.Handler, done func(), err error) {
	p, err := pool.Open(pool.Config{Engine: e, Compiler: compiler{e}, Computing: node.Computing()})
	if err != nil {
		return nil, nil, err
	}
	store, done, err := kvStore(copies)
	if err != nil {
		return nil, nil, err
	}
	var entries []serve.Entry
	for _, w := range list {
		v := function.Version{
			ID: function.ID{Project: "bench", Name: w.Host}, Digest: function.DigestOf([]byte(w.Host)),
			Code: function.DigestOf(w.Code), Image: function.DigestOf(w.Image), Started: w.Started, Limits: function.Default,
			Bindings: function.Bindings{KV: []function.KVBinding{{Name: "hot", Namespace: "hot"}}},
		}
		v.Limits.KVOperations, v.Limits.CPU = 2*hotCalls, function.Ceiling.CPU
		f, _, err := p.Prepare(ctx, v, pool.Bytes(w.Code, w.Image))
		if err != nil {
			return nil, nil, errors.Join(err, p.Close())
		}
		entries = append(entries, serve.Entry{Pattern: w.Host + "/*", Owner: w.Host, Target: &serve.Target{Version: f.Version(), Invoker: invoke.New(f, guest.Ports{KV: store})}})
	}
	table, err := route.Build(entries)
	if err != nil {
		return nil, nil, err
	}
	h, err := serve.New(serve.Config{Limiter: limit.New(limit.Config{}), Telemetry: telemetry.New(telemetry.Config{Place: telemetry.Place{PoP: "bench"}})})
	if err != nil {
		return nil, nil, err
	}
	h.SetRoutes(table)
	return h, done, nil
}

// kvStore has the namespace "hot": with an origin, or with a copy and without one.
func kvStore(copies string) (_ *kv.Store, done func(), err error) {
	hot := hostcall.Namespace{Project: "bench", Name: "hot"}
	c := kv.Config{Origin: oneValue{}}
	if copies != "" {
		c.Origin = noOrigin{}
	}
	store, err := kv.New(c)
	if err != nil || copies == "" {
		if err == nil {
			store.Apply(hot, kv.Changes{Epoch: 1, To: 1, At: time.Now()})
			done = store.Close
		}
		return store, done, err
	}
	db, _, err := replica.Open(replica.Config{Dir: copies})
	if err != nil {
		return nil, nil, err
	}
	held := db.Copy(hot)
	if err := held.Apply(replica.Position{Epoch: 1, Seq: 1}, []replica.Change{{Key: "k", Value: replica.Value{Revision: 1, Value: hotValue}}}, true); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	store.Attach(hot, held)
	return store, func() { store.Close(); _ = db.Close() }, nil // the folder is removed
}

// kvFunctionRows drives a function that answers with a hot value and a bare handler, in turn.
func kvFunctionRows(ctx context.Context, s size) ([]row, error) {
	module, err := wasmtime.Wat2Wasm(kvText)
	if err != nil {
		return nil, err
	}
	p, err := prepare(ctx, module, "/")
	if err != nil {
		return nil, err
	}
	var input bytes.Buffer
	if err := gob.NewEncoder(&input).Encode([]wire{{kvHost, p.code, p.encoded, p.started}}); err != nil {
		return nil, err
	}
	server, err := startSelf(ctx, &input, "-kv")
	if err != nil {
		return nil, err
	}
	defer server.stop()
	s.rounds = max(3, s.rounds/2)
	sides, err := ratesInTurn(ctx, s, load.H1, []host{server.host(bareHost), server.host(kvHost)})
	if err != nil {
		return nil, err
	}
	ratio := sides[1].rate / sides[0].rate
	return []row{{Name: "kv/function-rps", Value: sides[1].rate, Unit: "rps", Against: fmt.Sprintf("bare %.0f", sides[0].rate), Ratio: ratio,
		N: sides[1].requests, goal: fmt.Sprintf(">= %gx", kvLeast), met: ratio >= kvLeast}}, nil
}

// runKVServer serves the functions on standard input, and beside them a bare handler.
func runKVServer(ctx context.Context, in io.Reader) error {
	var list []wire
	if err := gob.NewDecoder(in).Decode(&list); err != nil {
		return err
	}
	e, err := engine.Open(engine.Config{})
	if err != nil {
		return err
	}
	h, done, err := kvHandler(ctx, e, list, "")
	if err != nil {
		return err
	}
	defer done()
	return listenAndServe(ctx, h)
}
