package guest_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// status200 answers 200 without headers.
const status200 = `(drop (call $response_head (i32.const 200) (i32.const 0) (i32.const 0)))`

func handle(body string) string { return `(func (export "handle") ` + body + `)` }

func TestEveryWayToFail(t *testing.T) {
	const far = `(i32.const 0x7fffff00)`
	short := function.Limits{Wall: 50 * time.Millisecond, CPU: 10 * time.Millisecond, MemoryBytes: 4 << 20}
	for _, c := range []struct {
		name, body string
		want       fault.Kind
		limit      string
		knob       string
	}{
		{"loops", handle(`(loop $l (br $l))`), fault.CPU, "10ms", "limits.cpu"},
		{"loops over cheap calls", handle(`(loop $l (drop (call $clock_now (i32.const 1))) (br $l))`), fault.CPU, "10ms", "limits.cpu"},
		{"loops over sleeps of nothing", handle(`(loop $l (drop (call $sleep (i64.const 0))) (br $l))`), 0, "", ""},
		{"sleeps", handle(`(drop (call $sleep (i64.const 3600000000000)))`), fault.Wall, "50ms", "limits.wall"},
		{"sleeps for ever", handle(`(drop (call $sleep (i64.const 0x7fffffffffffffff)))`), fault.Wall, "50ms", "limits.wall"},
		{"grows", handle(`(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)`), fault.Memory, "4194304 bytes", "limits.memory"},
		{"recurses", `(func $f (param i64) (result i64) (i64.add (call $f (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))` +
			handle(`(drop (call $f (i64.const 0)))`), fault.Stack, "2097152 bytes", ""},
		{"reads outside a table", `(table 1 funcref)` + handle(`(call_indirect (i32.const 7))`), fault.Table, "131072 elements", ""},
		{"grows a table and goes outside", `(table $t 1 funcref) (func $f) (elem (i32.const 0) $f)` + handle(`
			(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
			(table.set $t (i32.const 200000) (ref.null func))`), fault.Table, "131072 elements", ""},
		{"grows a table and gives up", `(table $t 1 funcref)` + handle(`
			(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) (unreachable)`), fault.Trap, "", ""},
		{"floods the node with calls", handle(`(loop $l (drop (call $kv_open (i32.const 0) (i32.const 0))) (br $l))`), fault.Calls, "500 calls", "limits.host_calls"},
		{"unreachable", handle(`(unreachable)`), fault.Trap, "", ""},
		{"divides by zero", handle(`(drop (i32.div_u (i32.const 1) (i32.const 0)))`), fault.Trap, "", ""},
		{"reads outside", handle(`(drop (i32.load (i32.const -4)))`), fault.Trap, "", ""},
		{"exits", handle(`(call $wasi_proc_exit (i32.const 3))`), fault.Exit, "", ""},
		{"exits in peace, without an answer", handle(`(call $wasi_proc_exit (i32.const 0))`), fault.Exit, "", ""},
		{"exits in peace, with one", handle(status200 + `(call $wasi_proc_exit (i32.const 0))`), 0, "", ""},
		{"exits in anger, with one", handle(status200 + `(call $wasi_proc_exit (i32.const 1))`), fault.Exit, "", ""},
		{"never answers", handle(``), fault.NoResponse, "", ""},
		{"answers with what is no list", handle(`(drop (call $response_head (i32.const 200) (i32.const 0) (i32.const 5)))`), fault.BadResponse, "", ""},

		{"request_head", handle(`(drop (call $request_head ` + far + ` (i32.const 10)))`), fault.Pointer, "", ""},
		{"response_head", handle(`(drop (call $response_head (i32.const 200) ` + far + ` (i32.const 10)))`), fault.Pointer, "", ""},
		{"response_head 103", handle(`(drop (call $response_head (i32.const 103) ` + far + ` (i32.const 10)))`), fault.Pointer, "", ""},
		{"response_write", handle(`(drop (call $response_write ` + far + ` (i32.const 10)))`), fault.Pointer, "", ""},
		{"response_write, much", handle(`(drop (call $response_write (i32.const 0) (i32.const -1)))`), fault.Pointer, "", ""},
		{"log", handle(`(drop (call $log (i32.const 0) ` + far + ` (i32.const 10)))`), fault.Pointer, "", ""},
		{"random", handle(`(drop (call $random ` + far + ` (i32.const 10)))`), fault.Pointer, "", ""},
		{"environment", handle(`(drop (call $environment ` + far + ` (i32.const 10)))`), fault.Pointer, "", ""},
		{"kv_open", handle(`(drop (call $kv_open ` + far + ` (i32.const 10)))`), fault.Pointer, "", ""},
		{"kv_get key", handle(`(drop (call $kv_get (i32.const 0) ` + far + ` (i32.const 1) (i32.const 0) (i32.const 8) (i32.const 64)))`), fault.Pointer, "", ""},
		{"kv_get buffer", handle(`(drop (call $kv_get (i32.const 0) (i32.const 0) (i32.const 1) ` + far + ` (i32.const 8) (i32.const 64)))`), fault.Pointer, "", ""},
		{"kv_get entry", handle(`(drop (call $kv_get (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 8) (i32.const 131060)))`), fault.Pointer, "", ""},
		{"kv_put value", handle(`(drop (call $kv_put (i32.const 0) (i32.const 0) (i32.const 1) ` + far + ` (i32.const 8) (i64.const 0) (i64.const -1)))`), fault.Pointer, "", ""},
		{"kv_delete", handle(`(drop (call $kv_delete (i32.const 0) ` + far + ` (i32.const 1) (i64.const -1)))`), fault.Pointer, "", ""},
		{"kv_list", handle(`(drop (call $kv_list (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 9) ` + far + ` (i32.const 8)))`), fault.Pointer, "", ""},
		{"fetch_start", handle(`(drop (call $fetch_start ` + far + ` (i32.const 10)))`), fault.Pointer, "", ""},
		{"fetch_write", handle(`(drop (call $fetch_write (i32.const 1) ` + far + ` (i32.const 10)))`), fault.Pointer, "", ""},
		{"fetch_head", handle(`(drop (call $fetch_head (i32.const 1) ` + far + ` (i32.const 10)))`), fault.Pointer, "", ""},
		{"fetch_read", handle(`(drop (call $fetch_read (i32.const 1) ` + far + ` (i32.const 10)))`), fault.Pointer, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bounds := short
			switch c.want {
			case fault.CPU:
				bounds.Wall = 0 // a busy machine may take long over 10 ms of processor time
			case fault.Calls:
				bounds = function.Limits{HostCalls: 500, CPU: 10 * time.Second}
			}
			log := &lines{}
			x, u, f := run(t, c.body, limits(bounds), func(_ *function.Version, p *guest.Ports, _ *exchange) { p.Log = log })
			if c.name == "loops over sleeps of nothing" { // either budget may be the first to be used up
				if f == nil || f.Kind != fault.CPU && f.Kind != fault.Wall {
					t.Fatalf("got %v", f)
				}
				return
			}
			if c.want == 0 {
				if f != nil || !x.finished {
					t.Fatalf("got %v, finished %t", f, x.finished)
				}
				return
			}
			if f == nil || f.Kind != c.want {
				t.Fatalf("got %v, want %v", f, c.want)
			}
			if f.Limit != c.limit || f.Knob != c.knob {
				t.Errorf("got limit %q and knob %q, want %q and %q", f.Limit, f.Knob, c.limit, c.knob)
			}
			if !strings.Contains(log.text(), f.Error()) {
				t.Errorf("the function's log does not say why: %q", log.text())
			}
			if x.finished || !u.Started {
				t.Errorf("finished %t, started %t", x.finished, u.Started)
			}
		})
	}
}

// Whatever a guest loops over, it is stopped within 20 ms of processor time over its budget.
func TestCPUIsChargedCloseToTheBudget(t *testing.T) {
	const budget, more = 30 * time.Millisecond, 20 * time.Millisecond
	for name, body := range map[string]string{
		"nothing": `(loop $l (br $l))`,
		"filling memory": `(drop (memory.grow (i32.const 128)))
			(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 8388608)) (br $l))`,
		"growing": `(local $at i32) (loop $l
			(if (i32.lt_s (memory.grow (i32.const 1)) (i32.const 0)) (then (loop $for_ever (br $for_ever))))
			(local.set $at (i32.shl (i32.sub (memory.size) (i32.const 1)) (i32.const 16)))
			(memory.fill (local.get $at) (i32.const 1) (i32.const 65536)) (br $l))`,
		"random numbers": `(loop $l (drop (call $random (i32.const 0) (i32.const 60000))) (br $l))`,
		"its own calls":  `(loop $l (drop (call $kv_open (i32.const 0) (i32.const 2))) (br $l))`,
	} {
		t.Run(name, func(t *testing.T) {
			_, u, f := run(t, handle(body), limits(function.Limits{CPU: budget, Wall: 10 * time.Minute, HostCalls: 100_000_000}))
			if f == nil || f.Kind != fault.CPU || u.CPU < budget || u.CPU > budget+more {
				t.Errorf("got %v after %v", f, u.CPU)
			}
		})
	}
}

func TestOneAnswerOnly(t *testing.T) {
	x, _, f := run(t, handle(`
		`+status200+`
		(i32.store (i32.const 0) (call $response_head (i32.const 404) (i32.const 0) (i32.const 0)))
		(drop (call $response_write (i32.const 0) (i32.const 4)))`))
	if f != nil || x.status != 200 {
		t.Fatalf("got %d, %v", x.status, f)
	}
	if got := int32(binary.LittleEndian.Uint32(x.out.Bytes())); got != abi.StatusState {
		t.Errorf("the second head was answered %d", got)
	}
}

func TestBodyWithoutAHeadIs200(t *testing.T) {
	x, _, f := run(t, `(data (i32.const 8) "hello")`+handle(`(drop (call $response_write (i32.const 8) (i32.const 5)))`))
	if f != nil || x.status != 200 || x.out.String() != "hello" {
		t.Errorf("got %d %q, %v", x.status, x.out.String(), f)
	}
}

func TestResponseCallsInOrder(t *testing.T) {
	x, u, f := run(t, `(data (i32.const 8) "\01\00\00\00\01\00\00\00a\01\00\00\00b")`+handle(`
		(drop (call $response_head (i32.const 103) (i32.const 8) (i32.const 14)))
		(drop (call $response_head (i32.const 201) (i32.const 8) (i32.const 14)))
		(drop (call $response_write (i32.const 16) (i32.const 1)))
		(drop (call $response_flush))
		(i32.store (i32.const 64) (call $response_head (i32.const 103) (i32.const 8) (i32.const 14)))
		(drop (call $response_write (i32.const 0) (i32.const 40000)))
		(drop (call $response_write (i32.const 64) (i32.const 4)))`))
	if f != nil {
		t.Fatal(f)
	}
	if fmt.Sprint(x.informed, x.status, x.headers, x.flushes) != "[103] 201 [{a b}] 1" {
		t.Errorf("got %v, %d, %v, %d flushes", x.informed, x.status, x.headers, x.flushes)
	}
	out := x.out.Bytes()
	if len(out) != 1+40000+4 || out[0] != 'a' || out[1+8] != 1 || int32(binary.LittleEndian.Uint32(out[40001:])) != abi.StatusState {
		t.Errorf("got %d bytes", len(out))
	}
	if u.HostCalls != 7 || u.Crossings != 3 {
		t.Errorf("usage: %+v", u)
	}
}

// kvText opens the binding at 0 and keeps its handle in $ns; keep stores a
// result at 1024 + 8n, and the answer is those.
func kvText(data, calls string) string {
	return `(data (i32.const 0) "kvromissing") (data (i32.const 100) "` + data + `")
	(func $keep (param $n i32) (param $v i64) (i64.store (i32.add (i32.const 1024) (i32.mul (i32.const 8) (local.get $n))) (local.get $v)))
	(func (export "handle") (local $ns i32) (local $ro i32)
		(local.set $ns (call $kv_open (i32.const 0) (i32.const 2)))
		(local.set $ro (call $kv_open (i32.const 2) (i32.const 2)))
		` + calls + `
		(drop (call $response_write (i32.const 1024) (i32.const 80))))`
}

func results(t *testing.T, x *exchange, n int) []int64 {
	t.Helper()
	var all []int64
	for i := range n {
		if x.out.Len() < 8*i+8 {
			t.Fatalf("only %d bytes came back", x.out.Len())
		}
		all = append(all, int64(binary.LittleEndian.Uint64(x.out.Bytes()[8*i:])))
	}
	return all
}

func expect(t *testing.T, x *exchange, f *fault.Error, want ...int64) {
	t.Helper()
	if f != nil {
		t.Fatal(f)
	}
	if got := results(t, x, len(want)); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestKV(t *testing.T) {
	// key "k" at 100, value "value" at 101
	x, u, f := run(t, kvText("kvalue", `
		(call $keep (i32.const 0) (call $kv_put (local.get $ns) (i32.const 100) (i32.const 1) (i32.const 101) (i32.const 5) (i64.const 1000) (i64.const 0)))
		(call $keep (i32.const 1) (call $kv_put (local.get $ns) (i32.const 100) (i32.const 1) (i32.const 101) (i32.const 5) (i64.const 0) (i64.const 0)))
		(call $keep (i32.const 2) (i64.extend_i32_s (call $kv_get (local.get $ns) (i32.const 100) (i32.const 1) (i32.const 200) (i32.const 5) (i32.const 300))))
		(call $keep (i32.const 3) (i64.load (i32.const 300)))
		(call $keep (i32.const 4) (i64.load (i32.const 308)))
		(call $keep (i32.const 5) (i64.load (i32.const 316)))
		(call $keep (i32.const 6) (i64.load32_u (i32.const 201)))
		(call $keep (i32.const 7) (i64.extend_i32_s (call $kv_get (local.get $ns) (i32.const 100) (i32.const 1) (i32.const 200) (i32.const 4) (i32.const 300))))
		(call $keep (i32.const 8) (call $kv_delete (local.get $ns) (i32.const 100) (i32.const 1) (i64.const -1)))
		(call $keep (i32.const 9) (i64.extend_i32_s (call $kv_get (local.get $ns) (i32.const 100) (i32.const 1) (i32.const 200) (i32.const 5) (i32.const 300))))`))
	alue := int64(binary.LittleEndian.Uint32([]byte("alue")))
	expect(t, x, f, 1, abi.StatusConflict, abi.StatusOK, 1, 1000, 5, alue, abi.StatusTooSmall, 2, abi.StatusNotFound)
	if u.KVOperations != 6 {
		t.Errorf("%d operations", u.KVOperations)
	}
}

func TestKVRefusals(t *testing.T) {
	put := func(ns, length, ttl, expect string) string {
		return `(call $kv_put ` + ns + ` (i32.const 100) (i32.const ` + length + `) (i32.const 101) (i32.const 5) (i64.const ` + ttl + `) (i64.const ` + expect + `))`
	}
	const ns = `(local.get $ns)`
	x, _, f := run(t, kvText("kvalue", `
		(call $keep (i32.const 0) (i64.extend_i32_s (call $kv_open (i32.const 4) (i32.const 7))))
		(call $keep (i32.const 1) `+put(`(local.get $ro)`, "1", "0", "-1")+`)
		(call $keep (i32.const 2) `+put(`(i32.const 2)`, "1", "0", "-1")+`)
		(call $keep (i32.const 3) `+put(`(i32.const -1)`, "1", "0", "-1")+`)
		(call $keep (i32.const 4) `+put(ns, "0", "0", "-1")+`)
		(call $keep (i32.const 5) `+put(ns, "513", "0", "-1")+`)
		(call $keep (i32.const 6) `+put(ns, "1", "-1", "-1")+`)
		(call $keep (i32.const 7) `+put(ns, "1", "0x7fffffffffffffff", "-1")+`)
		(call $keep (i32.const 8) `+put(ns, "1", "0", "-2")+`)
		(call $keep (i32.const 9) (call $kv_delete (local.get $ro) (i32.const 100) (i32.const 1) (i64.const -1)))`))
	expect(t, x, f, abi.StatusDenied, abi.StatusDenied, abi.StatusInvalid, abi.StatusInvalid, abi.StatusInvalid,
		abi.StatusTooLarge, abi.StatusInvalid, abi.StatusInvalid, abi.StatusInvalid, abi.StatusDenied)
}

func TestKVAllowance(t *testing.T) {
	get := `(i64.extend_i32_s (call $kv_get (local.get $ns) (i32.const 100) (i32.const 1) (i32.const 200) (i32.const 5) (i32.const 300)))`
	x, _, f := run(t, kvText("k", `
		(call $keep (i32.const 0) `+get+`) (call $keep (i32.const 1) `+get+`) (call $keep (i32.const 2) `+get+`)`),
		limits(function.Limits{KVOperations: 2}))
	expect(t, x, f, abi.StatusNotFound, abi.StatusNotFound, abi.StatusLimit)
}

func TestKVList(t *testing.T) {
	s := &store{}
	x, _, f := run(t, kvText("a", `
		(call $keep (i32.const 0) (i64.extend_i32_s (call $kv_list (local.get $ns) (i32.const 100) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 10) (i32.const 2000) (i32.const 1000))))
		(call $keep (i32.const 1) (i64.load32_u (i32.const 2000)))
		(call $keep (i32.const 2) (i64.extend_i32_s (call $kv_list (local.get $ns) (i32.const 100) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 10) (i32.const 2000) (i32.const 10))))
		(call $keep (i32.const 3) (i64.extend_i32_s (call $kv_list (local.get $ns) (i32.const 100) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2000) (i32.const 10))))`),
		func(v *function.Version, p *guest.Ports, _ *exchange) {
			for _, k := range []string{"a1", "a2", "b"} {
				if _, err := s.Put(context.Background(), hostNamespace(v), k, nil, putAny); err != nil {
					t.Fatal(err)
				}
			}
			p.KV = s
		})
	expect(t, x, f, 4+2*(4+2+16)+4, 2, abi.StatusTooSmall, abi.StatusInvalid)
}

func TestCanceledWhileInKV(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &store{wait: func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}}
	prog := guesttest.Program(t, guesttest.Guest(t, kvText("k", `
		(drop (call $kv_get (local.get $ns) (i32.const 100) (i32.const 1) (i32.const 200) (i32.const 5) (i32.const 300)))`)))
	_, err := runner.Run(ctx, prog, version(), guest.Ports{KV: s}, &exchange{})
	if f := fault.Of(err); f == nil || f.Kind != fault.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestWallEndsAKVCall(t *testing.T) {
	_, _, f := run(t, kvText("k", `
		(drop (call $kv_get (local.get $ns) (i32.const 100) (i32.const 1) (i32.const 200) (i32.const 5) (i32.const 300)))`),
		func(v *function.Version, p *guest.Ports, _ *exchange) {
			v.Limits.Wall = 20 * time.Millisecond
			p.KV = &store{wait: func(ctx context.Context) error { <-ctx.Done(); return errors.New("some error of the network") }}
		})
	if f == nil || f.Kind != fault.Wall || f.Knob != "limits.wall" {
		t.Errorf("got %v", f)
	}
}

func TestWallInterruptsABodyRead(t *testing.T) {
	r, w := io.Pipe()
	_, _, f := run(t, handle(`(drop (call $request_read (i32.const 0) (i32.const 100)))`),
		func(v *function.Version, _ *guest.Ports, x *exchange) {
			v.Limits.Wall = 20 * time.Millisecond
			x.body, x.interrupt = r, func() { w.CloseWithError(errors.New("interrupted")) }
		})
	if f == nil || f.Kind != fault.Wall {
		t.Errorf("got %v", f)
	}
}

func TestBodyStreamsInBoundedMemory(t *testing.T) {
	const size = 64 << 20
	x := &streaming{exchange: exchange{body: io.LimitReader(zeros{}, size)}}
	prog := guesttest.Program(t, guesttest.Guest(t, handle(`(local $n i32)
		(loop $l
			(local.set $n (call $request_read (i32.const 0) (i32.const 65536)))
			(if (i32.gt_s (local.get $n) (i32.const 0)) (then
				(drop (call $response_write (i32.const 0) (local.get $n)))
				(br $l))))`)))
	v := version()
	v.Limits.CPU = 10 * time.Second
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := runner.Run(t.Context(), prog, v, guest.Ports{}, x); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if x.written != size {
		t.Errorf("%d bytes came back", x.written)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("%d bytes were allocated on the way", grown)
	}
}

type streaming struct {
	exchange
	written int64
}

func (x *streaming) WriteBody(p []byte) error { x.written += int64(len(p)); return nil }
func (x *streaming) Finish(p []byte) error    { return x.WriteBody(p) }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// fetchText lays n requests to https://b.test/ down at 100, one of them with a body at 400.
func fetchText(calls string) string {
	plain := native.AppendPairs(native.AppendString(native.AppendString(nil, "GET"), "https://b.test/"), nil)
	plain = append(plain, 0, 0, 0, 0)
	upload := native.AppendPairs(native.AppendString(native.AppendString(nil, "PUT"), "https://b.test/"), nil)
	upload = append(upload, abi.FlagBody, 0, 0, 0)
	return `(data (i32.const 100) "` + escape(plain) + `") (data (i32.const 400) "` + escape(upload) + `") (data (i32.const 700) "body")
	(func $start (result i32) (call $fetch_start (i32.const 100) (i32.const ` + fmt.Sprint(len(plain)) + `)))
	(func $upload (result i32) (call $fetch_start (i32.const 400) (i32.const ` + fmt.Sprint(len(upload)) + `)))
	(func $keep (param $n i32) (param $v i32) (i64.store (i32.add (i32.const 1024) (i32.mul (i32.const 8) (local.get $n))) (i64.extend_i32_s (local.get $v))))
	(func (export "handle") (local $a i32) (local $b i32) ` + calls + ` (drop (call $response_write (i32.const 1024) (i32.const 80))))`
}

func escape(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		fmt.Fprintf(&s, "\\%02x", c)
	}
	return s.String()
}

func fetches(f fetcher) func(*function.Version, *guest.Ports, *exchange) {
	return func(_ *function.Version, p *guest.Ports, _ *exchange) { p.Fetch = f }
}

func respond(body io.Reader) *http.Response {
	return &http.Response{StatusCode: 207, ContentLength: -1, Header: http.Header{"A": {"b"}, "Connection": {"close"}}, Body: io.NopCloser(body)}
}

func TestFetchesRunAtTheSameTime(t *testing.T) {
	var both sync.WaitGroup
	both.Add(2)
	x, u, f := run(t, fetchText(`
		(local.set $a (call $start)) (local.set $b (call $start))
		(call $keep (i32.const 0) (call $fetch_head (local.get $a) (i32.const 2000) (i32.const 10)))
		(call $keep (i32.const 1) (call $fetch_head (local.get $a) (i32.const 2000) (i32.const 100)))
		(call $keep (i32.const 2) (i32.load (i32.const 2000)))
		(call $keep (i32.const 3) (call $fetch_read (local.get $b) (i32.const 3000) (i32.const 100)))
		(call $keep (i32.const 4) (call $fetch_read (local.get $b) (i32.const 3000) (i32.const 100)))
		(call $keep (i32.const 5) (call $fetch_close (local.get $a)))
		(call $keep (i32.const 6) (call $fetch_close (local.get $a)))
		(call $keep (i32.const 7) (call $fetch_write (local.get $b) (i32.const 700) (i32.const 4)))`),
		fetches(func(_ context.Context, r *http.Request) (*http.Response, error) {
			both.Done()
			both.Wait() // answered only once both are under way
			return respond(strings.NewReader("hello")), nil
		}))
	expect(t, x, f, 4+8+4+4+1+4+1, 4+8+4+4+1+4+1, 207, 5, 0, abi.StatusOK, abi.StatusInvalid, abi.StatusState)
	if u.Subrequests != 2 {
		t.Errorf("usage %+v", u)
	}
}

func TestFetchUpload(t *testing.T) {
	var got string
	x, _, f := run(t, fetchText(`
		(local.set $a (call $upload))
		(call $keep (i32.const 0) (call $fetch_write (local.get $a) (i32.const 700) (i32.const 4)))
		(call $keep (i32.const 1) (call $fetch_write (local.get $a) (i32.const 700) (i32.const 2)))
		(call $keep (i32.const 2) (call $fetch_write (local.get $a) (i32.const 0) (i32.const 0)))
		(call $keep (i32.const 3) (call $fetch_write (local.get $a) (i32.const 700) (i32.const 2)))
		(drop (call $fetch_head (local.get $a) (i32.const 0) (i32.const 0)))`),
		fetches(func(_ context.Context, r *http.Request) (*http.Response, error) {
			b, err := io.ReadAll(r.Body)
			got = string(b)
			return respond(strings.NewReader("")), err
		}))
	expect(t, x, f, 4, 2, 0, abi.StatusState)
	if got != "bodybo" {
		t.Errorf("the backend got %q", got)
	}
}

func TestFetchRefusals(t *testing.T) {
	x, _, f := run(t, fetchText(`
		(call $keep (i32.const 0) (call $fetch_start (i32.const 100) (i32.const 7)))
		(call $keep (i32.const 1) (call $fetch_head (i32.const 9) (i32.const 0) (i32.const 0)))
		(call $keep (i32.const 2) (call $fetch_head (call $start) (i32.const 0) (i32.const 0)))
		(call $keep (i32.const 3) (call $fetch_write (local.tee $a (call $upload)) (i32.const 700) (i32.const 4)))
		(call $keep (i32.const 4) (call $fetch_read (local.get $a) (i32.const 700) (i32.const 4)))
		(call $keep (i32.const 5) (call $start))`),
		limits(function.Limits{SubrequestsNow: 2}),
		fetches(func(context.Context, *http.Request) (*http.Response, error) { return nil, deniedErr }))
	expect(t, x, f, abi.StatusInvalid, abi.StatusInvalid, abi.StatusDenied, abi.StatusClosed, abi.StatusDenied, abi.StatusLimit)
}

func TestSubrequestAllowance(t *testing.T) {
	start := `(drop (call $fetch_close (local.tee $a (call $start)))) `
	x, u, f := run(t, fetchText(start+start+`(call $keep (i32.const 0) (call $start))`),
		limits(function.Limits{Subrequests: 2}),
		fetches(func(context.Context, *http.Request) (*http.Response, error) {
			return respond(strings.NewReader("")), nil
		}))
	expect(t, x, f, abi.StatusLimit)
	if u.Subrequests != 2 {
		t.Errorf("usage %+v", u)
	}
}

// TestNothingOfAGuestOutlivesIt leaves one subrequest waiting for its backend
// and one with its response half read.
func TestNothingOfAGuestOutlivesIt(t *testing.T) {
	body := &closing{Reader: strings.NewReader("hello")}
	var calls, ended atomic.Int32
	_, _, f := run(t, fetchText(`
		(local.set $a (call $start))
		(drop (call $fetch_read (local.get $a) (i32.const 3000) (i32.const 1)))
		(local.set $b (call $start))`),
		fetches(func(ctx context.Context, _ *http.Request) (*http.Response, error) {
			defer ended.Add(1)
			if calls.Add(1) == 1 {
				r := respond(nil)
				r.Body = body
				return r, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}))
	if f != nil {
		t.Fatal(f)
	}
	if calls.Load() != ended.Load() || !body.closed.Load() {
		t.Errorf("%d of %d fetches ended, body closed: %t", ended.Load(), calls.Load(), body.closed.Load())
	}
}

// closing is a body that remembers being closed.
type closing struct {
	io.Reader
	closed atomic.Bool
}

func (c *closing) Close() error {
	c.closed.Store(true)
	return nil
}

func TestNoFetcherMeansDenied(t *testing.T) {
	x, _, f := run(t, fetchText(`(call $keep (i32.const 0) (call $start))`))
	expect(t, x, f, abi.StatusDenied)
}

// TestLentMemoryComesBackBeforeTheNextTenant ends invocations whose fetch is
// writing into their memory, by a body that writes only a while after its
// context is over. The next tenant, most likely in the same slot, sleeps until
// well after that write and then looks for it.
func TestLentMemoryComesBackBeforeTheNextTenant(t *testing.T) {
	canary := func(ctx context.Context, _ *http.Request) (*http.Response, error) {
		return respond(readerFunc(func(p []byte) (int, error) {
			<-ctx.Done()
			time.Sleep(2 * time.Millisecond)
			for i := range p {
				p[i] = 0xcc
			}
			return 0, ctx.Err()
		})), nil
	}
	victim := guesttest.Program(t, guesttest.Guest(t, fetchText(`(drop (call $fetch_read (call $start) (i32.const 8192) (i32.const 65536)))
		(drop (call $sleep (i64.const 10000000)))
		(local.set $a (i32.const 8192))
		(loop $l (if (i32.load (local.get $a)) (then unreachable))
			(br_if $l (i32.lt_u (local.tee $a (i32.add (local.get $a) (i32.const 4))) (i32.const 70000))))`)))
	v := version()
	v.Limits.Wall = 5 * time.Millisecond
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				if _, err := runner.Run(t.Context(), victim, v, guest.Ports{Fetch: fetcher(canary)}, &exchange{}); fault.Of(err) == nil || fault.Of(err).Kind != fault.Wall {
					t.Errorf("the writer: %v", err)
				}
				empty := func(context.Context, *http.Request) (*http.Response, error) {
					return respond(strings.NewReader("")), nil
				}
				if _, err := runner.Run(t.Context(), victim, version(), guest.Ports{Fetch: fetcher(empty)}, &exchange{}); err != nil {
					t.Errorf("the next tenant: %v", err)
				}
			}
		})
	}
	all.Wait()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestWaitingGuestsHoldNoTurnAndNoThread(t *testing.T) {
	prog := guesttest.Program(t, guesttest.Guest(t, handle(`(drop (call $sleep (i64.const 100000000)))`+status200)))
	one := guest.NewRunner(1, 1)
	before := threads(t)
	start := time.Now()
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if _, err := one.Run(t.Context(), prog, version(), guest.Ports{}, &exchange{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if took := time.Since(start); took > 15*time.Second { // one after the other they would take 20
		t.Errorf("200 guests that sleep 100 ms each took %v", took)
	}
	if grown := threads(t) - before; grown > 50 {
		t.Errorf("%d more threads", grown)
	}
}

func threads(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Skip(err)
	}
	return len(tasks)
}

// However many compute long, a short invocation has its turn while they do.
func TestSpinnersLeaveTurns(t *testing.T) {
	spin := guesttest.Program(t, guesttest.Guest(t, handle(`(loop $l (br $l))`)))
	quick := guesttest.Program(t, guesttest.Guest(t, handle(status200)))
	one := guest.NewRunner(1, 1)
	defer one.Close()
	v := version()
	v.Limits.CPU, v.Limits.Wall = 10*time.Minute, time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var ended atomic.Int32
	for range 3 {
		all.Go(func() {
			_, err := one.Run(ctx, spin, v, guest.Ports{}, &exchange{})
			if ended.Add(1); fault.Of(err) == nil || fault.Of(err).Kind != fault.Canceled {
				t.Errorf("it ended with %v", err)
			}
		})
	}
	for range 20 {
		if _, err := one.Run(t.Context(), quick, version(), guest.Ports{}, &exchange{}); err != nil {
			t.Error(err)
		}
	}
	if ended.Load() != 0 {
		t.Error("the short ones were behind the long ones")
	}
	cancel()
	all.Wait()
}

func TestLog(t *testing.T) {
	log := &lines{}
	_, u, f := run(t, `(data (i32.const 100) "one\ntwo\ff")`+handle(status200+`
		(drop (call $log (i32.const 8) (i32.const 100) (i32.const 8)))
		(drop (call $log (i32.const 0) (i32.const 0) (i32.const 200)))`),
		func(v *function.Version, p *guest.Ports, _ *exchange) {
			p.Log = log
			v.Limits.LogBytes = 100
		})
	if f != nil {
		t.Fatal(f)
	}
	got := log.mu.all
	if len(got) != 3 || got[0].Text != "one" || got[1].Text != "two\uFFFD" || got[1].Level != 8 || !strings.Contains(got[2].Text, "limits.log") {
		t.Fatalf("got %+v", got)
	}
	if got[0].RequestID != "r1" || got[0].Function.Name != "f" || got[0].Version == "" || got[0].Time.IsZero() {
		t.Errorf("got %+v", got[0])
	}
	if u.LogDropped != 1 {
		t.Errorf("%d dropped", u.LogDropped)
	}
}

func TestStandardGo(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and compiles net/http for wasip1")
	}
	prog := guesttest.Program(t, guesttest.GoGuest(t, guesttest.Source(t, "raw")))
	for _, c := range []struct {
		target, want string
		fault        fault.Kind
	}{
		{"/hello?name=you", "hello you", 0},
		{"/sleep", "true", 0},
		{"/files", "true true 0 true [guest]red", 0},
		{"/log", "ok", 0},
		{"/client", "true", 0},
		{"/echo", strings.Repeat("x", 1<<20), 0},
		{"/panic", "", fault.Trap}, // built as a library, Go crashes rather than exits
		{"/exit", "", fault.Exit},
		{"/spin", "", fault.CPU},
		{"/grow", "", fault.Memory},
		{"/recurse", "", fault.Stack},
		{"/nothing", "", fault.NoResponse},
	} {
		t.Run(c.target, func(t *testing.T) {
			log := &lines{}
			x := &exchange{target: c.target, body: strings.NewReader(strings.Repeat("x", 1<<20))}
			v := version()
			v.Limits = function.Limits{CPU: 10 * time.Minute, Wall: time.Hour, MemoryBytes: 64 << 20}
			if c.fault == fault.CPU {
				v.Limits.CPU = time.Second
			}
			_, err := runner.Run(t.Context(), prog, v, guest.Ports{Log: log}, x)
			f := fault.Of(err)
			if c.fault == 0 && (f != nil || x.out.String() != c.want) {
				t.Errorf("got %.100q, %v; log %s", x.out.String(), f, log.text())
			}
			if c.fault != 0 && (f == nil || f.Kind != c.fault) {
				t.Errorf("got %v, want %v", f, c.fault)
			}
			if c.target == "/log" && log.text() != "one\ntwo\noops\n" {
				t.Errorf("log %q", log.text())
			}
			if c.target == "/panic" && !strings.Contains(log.text(), "on purpose") {
				t.Errorf("log %q", log.text())
			}
		})
	}
}
