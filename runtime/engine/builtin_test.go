package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"
)

// probeWAT calls one import with constant arguments and keeps the result at 16,
// or at 24 for an i64. The memory is one page of 0x11 up to 256, then zeroes.
func probeWAT(im Import, args ...int64) string {
	var types, consts strings.Builder
	for i, k := range im.Params {
		fmt.Fprintf(&types, " (param %s)", k)
		fmt.Fprintf(&consts, " (%s.const %d)", k, args[i])
	}
	call := "(call $f" + consts.String() + ")"
	for _, k := range im.Results {
		fmt.Fprintf(&types, " (result %s)", k)
		at := map[ValKind]int{I32: 16, I64: 24}[k]
		call = fmt.Sprintf("(%s.store (i32.const %d) %s)", k, at, call)
	}
	return fmt.Sprintf(`(module (import %q %q (func $f%s)) (memory (export "memory") 1)
	  (data (i32.const 0) "%s") (func (export "handle") %s))`, im.Module, im.Name, types.String(), strings.Repeat(`\11`, 256), call)
}

func importNamed(t *testing.T, name string) Import {
	t.Helper()
	for _, im := range testImports {
		if im.Name == name {
			return im
		}
	}
	t.Fatalf("no import %s", name)
	return Import{}
}

const (
	end = 65536
	all = 0xffffffff
)

// Every pointer and length that a guest may lie with, on every call that takes
// one: native calls trap, WASI's answer EFAULT, nothing outside is touched.
func TestLyingPointers(t *testing.T) {
	for _, c := range []struct {
		name string
		lies [][]int64
	}{
		{"request_head", [][]int64{{end, 1}, {end - 1, 2}, {1, all}, {all, all}, {all, 1}, {end + 1, 0}}},
		{"request_read", [][]int64{{end, 1}, {end - 1, 2}, {1, all}, {all, all}}},
		{"response_head", [][]int64{{200, end, 1}, {200, end - 1, 2}, {200, 1, all}, {100, all, all}, {9999, all, 1}}},
		{"response_write", [][]int64{{end, 1}, {end - 1, 2}, {1, all}, {all, all}, {2, all - 1}}},
		{"log", [][]int64{{0, end, 1}, {0, end - 1, 2}, {0, 1, all}, {0, all, all}}},
		{"random", [][]int64{{end, 1}, {end - 1, 2}, {1, all}, {all, all}}},
		{"environment", [][]int64{{end, 1}, {end - 1, 2}, {1, all}, {all, all}}},

		{"args_get", [][]int64{{end - 3, 0}, {0, end}, {all, 0}, {0, all}}},
		{"args_sizes_get", [][]int64{{end - 3, 0}, {0, end - 3}, {all, 0}, {0, all}}},
		{"environ_get", [][]int64{{end - 3, 0}, {0, end}, {all, all}}},
		{"environ_sizes_get", [][]int64{{end - 3, 0}, {0, end - 3}}},
		{"clock_time_get", [][]int64{{0, 0, end - 7}, {1, 0, all}, {0, 0, end}}},
		{"random_get", [][]int64{{end, 1}, {end - 1, 2}, {1, all}, {all, all}}},
		{"fd_write", [][]int64{{1, end - 7, 1, 0}, {1, 0, 1, end - 3}, {1, all, 1, 0}, {1, end, 1000, 0}, {2, 0, 1, 0}}}, // the last: an iov of 0x11111111
		{"fd_read", [][]int64{{0, 0, 0, end - 3}, {0, 0, 0, all}}},
		{"fd_fdstat_get", [][]int64{{1, end - 23}, {0, all}}},
		{"poll_oneoff", [][]int64{{end - 47, 0, 1, 0}, {0, end - 31, 1, 0}, {0, 0, 1, end - 3}, {all, all, 1, all}, {20000, 0, 1024, 0}, {0, 40000, 1024, 0}}},
	} {
		im := importNamed(t, c.name)
		for _, lie := range c.lies {
			p, img := build(t, probeWAT(im, lie...), ProgramConfig{Args: []string{"a", "b"}, Environ: []string{"A=B"}, Environment: make([]byte, 20)})
			in := start(t, p, StartConfig{Head: []byte("head"), HasBody: true})
			e := run(in)
			if im.Module == "selvage_v1" {
				if e.Kind != Failed || e.Trap.Code != TrapPointer || !strings.Contains(e.Trap.Backtrace, "function") {
					t.Errorf("%s%v: event %d, trap %#v", c.name, lie, e.Kind, e.Trap)
				}
			} else if code := int32At(t, in, 16); e.Kind != Done || code != 21 {
				t.Errorf("%s%v: event %d, trap %v, errno %d", c.name, lie, e.Kind, e.Trap, code)
			}
			in.Close()
			if _, err := img.Audit(); err != nil {
				t.Error(err)
			}
		}
	}
}

func bytesAt(t *testing.T, in *Instance, at, n uint32) []byte {
	t.Helper()
	b, ok := in.Borrow(at, n)
	if !ok {
		return make([]byte, n)
	}
	defer b.Release()
	return bytes.Clone(b.Bytes())
}

func int32At(t *testing.T, in *Instance, at uint32) int32 {
	return int32(binary.LittleEndian.Uint32(bytesAt(t, in, at, 4)))
}

// probe makes one call and returns the finished instance.
func probe(t *testing.T, name string, s StartConfig, c ProgramConfig, args ...int64) (*Instance, int32) {
	t.Helper()
	p, _ := build(t, probeWAT(importNamed(t, name), args...), c)
	in := start(t, p, s)
	t.Cleanup(in.Close)
	if e := run(in); e.Kind != Done {
		t.Fatalf("%s%v: event %+v, trap %v", name, args, e, e.Trap)
	}
	return in, int32At(t, in, 16)
}

func TestRequestHead(t *testing.T) {
	s := StartConfig{Head: []byte("the head")}
	in, n := probe(t, "request_head", s, ProgramConfig{}, 1024, 64)
	if got := string(bytesAt(t, in, 1024, 9)); n != 8 || got != "the head\x00" {
		t.Errorf("%d, %q", n, got)
	}
	in, n = probe(t, "request_head", s, ProgramConfig{}, 1024, 7)
	if got := bytesAt(t, in, 1024, 8); n != 8 || !bytes.Equal(got, make([]byte, 8)) {
		t.Errorf("too small a buffer: %d, %q", n, got)
	}
	if _, n = probe(t, "request_head", StartConfig{}, ProgramConfig{}, end, 0); n != 0 {
		t.Errorf("no head: %d", n)
	}
}

func TestEnvironment(t *testing.T) {
	in, n := probe(t, "environment", StartConfig{}, ProgramConfig{Environment: []byte("blob")}, 1024, 64)
	if got := string(bytesAt(t, in, 1024, 4)); n != 4 || got != "blob" {
		t.Errorf("%d, %q", n, got)
	}
	if _, n = probe(t, "environment", StartConfig{}, ProgramConfig{}, 1024, 64); n != 4 {
		t.Errorf("none: %d, want an empty list of pairs", n)
	}
}

func TestRequestRead(t *testing.T) {
	if _, n := probe(t, "request_read", StartConfig{}, ProgramConfig{}, 1024, 64); n != 0 {
		t.Errorf("without a body: %d", n)
	}
	p, _ := build(t, probeWAT(importNamed(t, "request_read"), 1024, 64), ProgramConfig{})
	in := start(t, p, StartConfig{HasBody: true})
	defer in.Close()
	e := run(in)
	if e.Kind != Call || e.Op != opRead || e.N != 2 || e.Args[0] != 1024 || e.Args[1] != 64 {
		t.Fatalf("event %+v", e)
	}
	if again := in.Poll(); again != e {
		t.Errorf("polled before it was answered: %+v", again)
	}
	b, _ := in.Borrow(1024, 64)
	n := copy(b.Bytes(), "body")
	b.Release()
	in.Resume(int64(n))
	if e := run(in); e.Kind != Done || int32At(t, in, 16) != 4 {
		t.Errorf("event %+v, result %d", e, int32At(t, in, 16))
	}
	if u := in.Usage(); u.HostCalls != 1 || u.Crossings != 1 {
		t.Errorf("usage %+v", u)
	}
}

func TestResponseHead(t *testing.T) {
	in, n := probe(t, "response_head", StartConfig{}, ProgramConfig{}, 418, 0, 8)
	if r := in.Response(); n != 0 || !r.HeadSet || r.Status != 418 || string(r.Headers) != strings.Repeat("\x11", 8) {
		t.Errorf("%d, %+v", n, r)
	}
	for _, status := range []int64{-1, 0, 99, 101, 1000} {
		if in, n := probe(t, "response_head", StartConfig{}, ProgramConfig{}, status, 0, 8); n != -1 || in.Response().HeadSet {
			t.Errorf("status %d: %d", status, n)
		}
	}
	if in, n := probe(t, "response_head", StartConfig{ResponseHeadLimit: 7}, ProgramConfig{}, 200, 0, 8); n != -6 || in.Response().HeadSet {
		t.Errorf("over the limit: %d", n)
	}
	p, _ := build(t, probeWAT(importNamed(t, "response_head"), 103, 0, 8), ProgramConfig{})
	early := start(t, p, StartConfig{})
	defer early.Close()
	if e := run(early); e.Kind != Call || e.Op != opHead || e.Args[0] != 103 || e.Args[2] != 8 || early.Response().HeadSet {
		t.Errorf("early hints: %+v", e)
	}
}

func TestResponseOrder(t *testing.T) {
	p, _ := build(t, `(module
	  (import "selvage_v1" "response_head" (func $head (param i32 i32 i32) (result i32)))
	  (import "selvage_v1" "response_write" (func $write (param i32 i32) (result i32)))
	  (import "test" "wait" (func $wait (param i32) (result i32)))
	  (memory (export "memory") 1)
	  (func (export "handle")
	    (i32.store (i32.const 0) (call $head (i32.const 200) (i32.const 0) (i32.const 0)))
	    (i32.store (i32.const 4) (call $head (i32.const 201) (i32.const 0) (i32.const 0)))
	    (i32.store (i32.const 8) (call $write (i32.const 0) (i32.const 4)))
	    (i32.store (i32.const 12) (call $head (i32.const 103) (i32.const 0) (i32.const 0)))))`, ProgramConfig{})
	in := start(t, p, StartConfig{})
	defer in.Close()
	run(in)
	for i, want := range []int32{0, -10, 4, -10} {
		if got := int32At(t, in, uint32(4*i)); got != want {
			t.Errorf("call %d: %d, want %d", i, got, want)
		}
	}
}

func TestResponseWriteGathers(t *testing.T) {
	p, _ := build(t, `(module
	  (import "selvage_v1" "response_write" (func $write (param i32 i32) (result i32)))
	  (memory (export "memory") 2) (data (i32.const 0) "0123456789")
	  (func (export "handle") (local $n i32)
	    (loop $l
	      (if (i32.ne (call $write (i32.const 0) (i32.const 10)) (i32.const 10)) (then unreachable))
	      (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 2000))))
	    (drop (call $write (i32.const 0) (i32.const 100000)))))`, ProgramConfig{})
	in := start(t, p, StartConfig{})
	defer in.Close()
	var body []byte
	for {
		e := run(in)
		body = append(body, in.Response().Body...)
		in.ClearBody()
		if e.Kind == Done {
			break
		}
		if e.Kind != Call || e.Op != opWrite {
			t.Fatalf("event %+v, trap %v", e, e.Trap)
		}
		b, _ := in.Borrow(uint32(e.Args[0]), uint32(e.Args[1]))
		body = append(body, b.Bytes()...)
		b.Release()
		in.Resume(int64(e.Args[1]))
	}
	want := strings.Repeat("0123456789", 2000)
	if len(body) != 120000 || string(body[:20000]) != want {
		t.Errorf("%d bytes", len(body))
	}
	if u := in.Usage(); u.HostCalls != 2001 || u.Crossings != 2 {
		t.Errorf("usage %+v", u)
	}
}

func TestLog(t *testing.T) {
	p, _ := build(t, `(module
	  (import "selvage_v1" "log" (func $log (param i32 i32 i32) (result i32)))
	  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
	  (memory (export "memory") 1)
	  (data (i32.const 0) "\40\00\00\00\03\00\00\00\50\00\00\00\02\00\00\00")
	  (data (i32.const 64) "out") (data (i32.const 80) "\21\0a")
	  (func $out (param $fd i32) (param $n i32) (drop (call $write (local.get $fd) (i32.const 0) (local.get $n) (i32.const 128))))
	  (func (export "handle")
	    (drop (call $log (i32.const -4) (i32.const 64) (i32.const 3)))
	    (call $out (i32.const 1) (i32.const 1)) (call $out (i32.const 1) (i32.const 2)) (call $out (i32.const 1) (i32.const 1))
	    (call $out (i32.const 2) (i32.const 1))
	    (drop (call $log (i32.const 8) (i32.const 0) (i32.const 5000)))))`, ProgramConfig{})
	in := start(t, p, StartConfig{LogLimit: 200})
	defer in.Close()
	before := time.Now()
	run(in)
	records, dropped := in.TakeLog()
	var got []string
	for _, r := range records {
		got = append(got, fmt.Sprintf("%d %d %q", r.Stream, r.Level, r.Text))
		if d := r.Time.Sub(before); d < -time.Second || d > time.Minute {
			t.Errorf("time %v", r.Time)
		}
	}
	want := []string{`0 -4 "out"`, `1 0 "outout!\n"`, `1 0 "out"`, `2 0 "out"`}
	if strings.Join(got, ";") != strings.Join(want, ";") || dropped != 1 {
		t.Errorf("%q, %d dropped; want %q", got, dropped, want)
	}
	if records, dropped := in.TakeLog(); len(records) != 0 || dropped != 0 {
		t.Errorf("taken twice: %v", records)
	}
}

// A guest that logs without end costs no more than its limit.
func TestLogFlood(t *testing.T) {
	p, _ := build(t, `(module (import "selvage_v1" "log" (func $log (param i32 i32 i32) (result i32)))
	  (import "test" "wait" (func $wait (param i32) (result i32)))
	  (memory (export "memory") 1) (func $flood (local $n i32)
	    (loop $l (drop (call $log (i32.const 0) (i32.const 0) (i32.and (local.get $n) (i32.const 7))))
	      (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 20000)))))
	  (func (export "handle") (call $flood) (drop (call $wait (i32.const 0))) (call $flood)))`, ProgramConfig{})
	in := start(t, p, StartConfig{LogLimit: 10_000})
	defer in.Close()
	kept, total := 0, 0
	for e := run(in); ; e = run(in) {
		records, dropped := in.TakeLog()
		total += len(records) + dropped
		for _, r := range records {
			kept += len(r.Text) + 16
		}
		if e.Kind == Done {
			break
		}
		in.Resume(0)
	}
	if kept > 10_000 || kept < 9_000 || total != 40_000 {
		t.Errorf("kept %d bytes of %d records", kept, total)
	}
}

func TestClockAndRandom(t *testing.T) {
	in, _ := probe(t, "clock_now", StartConfig{}, ProgramConfig{}, 0)
	wall := int64(binary.LittleEndian.Uint64(bytesAt(t, in, 24, 8)))
	if d := time.Since(time.Unix(0, wall)); d < -time.Second || d > time.Minute {
		t.Errorf("the wall clock is %v off", d)
	}
	in, _ = probe(t, "clock_now", StartConfig{}, ProgramConfig{}, 1)
	if mono := int64(binary.LittleEndian.Uint64(bytesAt(t, in, 24, 8))); mono < wall {
		t.Error("the monotonic clock is behind the wall clock of a moment ago: it would run backwards over a snapshot")
	}
	in, _ = probe(t, "clock_now", StartConfig{}, ProgramConfig{}, 2)
	if got := int64(binary.LittleEndian.Uint64(bytesAt(t, in, 24, 8))); got != -1 {
		t.Errorf("clock 2: %d", got)
	}
	one, n := probe(t, "random", StartConfig{}, ProgramConfig{}, 1024, 64)
	two, _ := probe(t, "random_get", StartConfig{}, ProgramConfig{}, 1024, 64)
	if n != 0 || bytes.Equal(bytesAt(t, one, 1024, 64), bytesAt(t, two, 1024, 64)) || bytes.Contains(bytesAt(t, one, 1024, 64), make([]byte, 8)) {
		t.Error("not random")
	}
	if got := bytesAt(t, one, 1088, 8); !bytes.Equal(got, make([]byte, 8)) {
		t.Error("wrote past the end")
	}
}

func TestWASIArguments(t *testing.T) {
	c := ProgramConfig{Args: []string{"fn", "", "x=1"}, Environ: []string{"A=B", "C="}}
	in, code := probe(t, "args_get", StartConfig{}, c, 1024, 2048)
	if got := string(bytesAt(t, in, 2048, 8)); code != 0 || got != "fn\x00\x00x=1\x00" {
		t.Errorf("%d, %q", code, got)
	}
	for i, want := range []int32{2048, 2051, 2052} {
		if got := int32At(t, in, uint32(1024+4*i)); got != want {
			t.Errorf("argument %d at %d, want %d", i, got, want)
		}
	}
	in, code = probe(t, "environ_sizes_get", StartConfig{}, c, 1024, 1028)
	if code != 0 || int32At(t, in, 1024) != 2 || int32At(t, in, 1028) != 7 {
		t.Errorf("%d: %d strings, %d bytes", code, int32At(t, in, 1024), int32At(t, in, 1028))
	}
	p, _ := build(t, `(module (memory (export "memory") 1) (func (export "handle")))`, ProgramConfig{})
	bad := ProgramConfig{Code: p.code, Image: p.image, Linker: linker(t), Args: []string{"a\x00b"}}
	if _, err := eng.Program(bad); err == nil {
		t.Error("an argument with a zero byte is accepted")
	}
}

func TestWASIDescriptors(t *testing.T) {
	for _, c := range []struct {
		name string
		args []int64
		code int32
	}{
		{"fd_write", []int64{3, 0, 0, 0}, 8}, {"fd_write", []int64{0, 0, 0, 0}, 8}, {"fd_write", []int64{1, 0, 1025, 0}, 28},
		{"fd_write", []int64{1, 0, 0, 64}, 0}, {"fd_read", []int64{0, 0, 0, 64}, 0}, {"fd_read", []int64{1, 0, 0, 64}, 8},
		{"fd_close", []int64{2}, 0}, {"fd_close", []int64{3}, 8}, {"fd_fdstat_get", []int64{3, 0}, 8},
		{"fd_prestat_get", []int64{3, 0}, 8}, {"fd_prestat_dir_name", []int64{3, all, all}, 8}, {"sched_yield", nil, 0},
		{"random_get", []int64{0, end}, 0}, {"clock_time_get", []int64{9, 0, 0}, 28}, {"poll_oneoff", []int64{0, 0, 0, 0}, 28},
	} {
		if _, code := probe(t, c.name, StartConfig{}, ProgramConfig{}, c.args...); code != c.code {
			t.Errorf("%s%v: %d, want %d", c.name, c.args, code, c.code)
		}
	}
}

// What a guest does to its descriptors holds for the calls that follow, in that
// instance alone.
func TestWASIDescriptorsChange(t *testing.T) {
	const wat = `(module
	  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
	  (import "wasi_snapshot_preview1" "fd_renumber" (func $renumber (param i32 i32) (result i32)))
	  (import "wasi_snapshot_preview1" "fd_fdstat_set_rights" (func $rights (param i32 i64 i64) (result i32)))
	  (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $stat (param i32 i32) (result i32)))
	  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
	  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
	  (memory (export "memory") 1) (data (i32.const 0) "\10\00\00\00\02\00\00\00") (data (i32.const 16) "hi")
	  (global $at (mut i32) (i32.const 1024))
	  (func $note (param i32) (i32.store8 (global.get $at) (local.get 0)) (global.set $at (i32.add (global.get $at) (i32.const 1))))
	  (func $say (param i32) (call $note (call $write (local.get 0) (i32.const 0) (i32.const 1) (i32.const 8))))
	  (func (export "handle")
	    (call $say (i32.const 1))
	    (call $note (call $rights (i32.const 1) (i64.const 8) (i64.const 0)))
	    (call $say (i32.const 1))
	    (call $note (call $rights (i32.const 1) (i64.const 72) (i64.const 0)))
	    (call $note (call $stat (i32.const 1) (i32.const 64)))
	    (call $note (i32.wrap_i64 (i64.load (i32.const 72))))
	    (call $note (call $renumber (i32.const 2) (i32.const 0)))
	    (call $say (i32.const 0))
	    (call $say (i32.const 2))
	    (call $note (call $read (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8)))
	    (call $note (call $close (i32.const 0)))
	    (call $note (call $close (i32.const 0)))
	    (call $say (i32.const 0))))`
	p, _ := build(t, wat, ProgramConfig{})
	for range 2 {
		in := start(t, p, StartConfig{LogLimit: 100})
		if e := run(in); e.Kind != Done {
			t.Fatalf("%+v", e)
		}
		want := []byte{0, 0, 76, 76, 0, 8, 0, 0, 8, 8, 0, 8, 8}
		if got := bytesAt(t, in, 1024, uint32(len(want))); !bytes.Equal(got, want) {
			t.Errorf("answers %v, want %v", got, want)
		}
		var said []byte
		records, _ := in.TakeLog()
		for _, r := range records {
			said = append(said, byte('0'+r.Stream))
			said = append(said, r.Text...)
		}
		if string(said) != "1hi2hi" {
			t.Errorf("the log has %q", said)
		}
		in.Close()
	}
}

// subscription is one of poll_oneoff's, in the text format's escapes.
func subscription(userdata byte, tag byte, rest ...uint64) string {
	b := make([]byte, 48)
	b[0], b[8] = userdata, tag
	for i, v := range rest {
		binary.LittleEndian.PutUint64(b[16+8*i:], v)
	}
	var s strings.Builder
	for _, c := range b {
		fmt.Fprintf(&s, "\\%02x", c)
	}
	return s.String()
}

func TestPollOneoff(t *testing.T) {
	const second = uint64(time.Second)
	soon := uint64(time.Now().Add(time.Hour).UnixNano())
	for _, c := range []struct {
		name   string
		subs   []string
		wait   uint64 // 0: answered at once
		events string // userdata, error and type of each
	}{
		{"relative", []string{subscription(7, 0, 1, second, 0, 0)}, second, "7:0:0"},
		{"two relative", []string{subscription(7, 0, 1, 2*second, 0, 0), subscription(8, 0, 0, second, 0, 0)}, second, "8:0:0"},
		{"zero", []string{subscription(7, 0, 1, 0, 0, 0)}, 0, "7:0:0"},
		{"past", []string{subscription(7, 0, 1, 5, 0, 1)}, 0, "7:0:0"},
		{"future", []string{subscription(7, 0, 0, soon, 0, 1)}, uint64(time.Hour), "7:0:0"}, // answered early, as when the clock is set back
		{"output is ready", []string{subscription(7, 0, 1, second, 0, 0), subscription(9, 2, 1)}, 0, "9:0:2"},
		{"input is at its end", []string{subscription(9, 1, 0)}, 0, "9:0:1"},
		{"no such descriptor", []string{subscription(9, 1, 5), subscription(4, 2, 0)}, 0, "9:8:1 4:8:2"},
		{"processor time", []string{subscription(9, 0, 2, second, 0, 0)}, 0, "9:58:0"},
		{"no such clock", []string{subscription(9, 0, 6, second, 0, 0)}, 0, "9:28:0"},
		{"no such type", []string{subscription(9, 3)}, 0, "9:28:3"},
	} {
		wat := fmt.Sprintf(`(module (import "wasi_snapshot_preview1" "poll_oneoff" (func $f (param i32 i32 i32 i32) (result i32)))
		  (memory (export "memory") 1) (data (i32.const 1024) "%s")
		  (func (export "handle") (i32.store (i32.const 16) (call $f (i32.const 1024) (i32.const 4096) (i32.const %d) (i32.const 32)))))`,
			strings.Join(c.subs, ""), len(c.subs))
		p, _ := build(t, wat, ProgramConfig{})
		in := start(t, p, StartConfig{})
		e := run(in)
		if e.Kind == Call {
			if off := int64(e.Args[0] - c.wait); e.Op != opPoll || e.N != 1 || off > int64(time.Second) || off < -int64(time.Minute) {
				t.Errorf("%s: event %+v, want a wait of %d", c.name, e, c.wait)
			}
			in.Resume(0)
			e = run(in)
		} else if c.wait != 0 {
			t.Errorf("%s: answered at once", c.name)
		}
		var events []string
		for i := range int32At(t, in, 32) {
			b := bytesAt(t, in, uint32(4096+32*i), 32)
			events = append(events, fmt.Sprintf("%d:%d:%d", b[0], binary.LittleEndian.Uint16(b[8:]), b[10]))
		}
		if got := strings.Join(events, " "); e.Kind != Done || int32At(t, in, 16) != 0 || got != c.events {
			t.Errorf("%s: event %d, errno %d, events %q, want %q", c.name, e.Kind, int32At(t, in, 16), got, c.events)
		}
		in.Close()
	}
}

// All four number types cross to Go and back.
func TestArgumentsOfEveryType(t *testing.T) {
	p, _ := build(t, `(module (import "test" "many" (func $f (param i32 i64 f32 f64) (result i64))) (memory (export "memory") 1)
	  (func (export "handle") (i64.store (i32.const 24) (call $f (i32.const -1) (i64.const -2) (f32.const 1.5) (f64.const -2.5)))))`, ProgramConfig{})
	in := start(t, p, StartConfig{})
	defer in.Close()
	e := run(in)
	want := [4]uint64{0xffffffff, 0xfffffffffffffffe, 0x3fc00000, 0xc004000000000000}
	if e.Kind != Call || e.Op != opMany || e.N != 4 || [4]uint64(e.Args[:4]) != want {
		t.Errorf("event %+v", e)
	}
	in.Resume(-7)
	if e := run(in); e.Kind != Done || int64(binary.LittleEndian.Uint64(bytesAt(t, in, 24, 8))) != -7 {
		t.Errorf("event %+v", e)
	}
}

// In a snapshot's start-up no call may wait: the one that would is named.
func TestNoHostCalls(t *testing.T) {
	for _, c := range []struct{ name, want string }{{"wait", "test.wait"}, {"request_read", "selvage_v1.request_read"}} {
		im := importNamed(t, c.name)
		p, _ := build(t, probeWAT(im, make([]int64, len(im.Params)+1)[:len(im.Params)]...), ProgramConfig{})
		if c.name == "request_read" {
			p, _ = build(t, probeWAT(im, 0, 8), ProgramConfig{})
		}
		in := start(t, p, StartConfig{NoHostCalls: true, HasBody: true})
		if e := run(in); e.Kind != Failed || e.Trap.Code != TrapHostCall || !strings.Contains(e.Trap.Message, c.want) {
			t.Errorf("%s: event %d, trap %v", c.name, e.Kind, e.Trap)
		}
		if _, err := in.Snapshot(); err == nil {
			t.Errorf("%s: a snapshot of a failed start-up", c.name)
		}
		in.Close()
	}
}

func TestLinkRefuses(t *testing.T) {
	for name, im := range map[string]Import{
		"no op":           {Module: "m", Name: "f"},
		"builtin's type":  {Module: "m", Name: "f", Params: []ValKind{I32}, Results: []ValKind{I32}, Builtin: NativeRandom},
		"builtin's op":    {Module: "m", Name: "f", Params: []ValKind{I32, I32}, Results: []ValKind{I32}, Builtin: NativeResponseWrite},
		"no such builtin": {Module: "m", Name: "f", Builtin: 200},
		"many parameters": {Module: "m", Name: "f", Params: make([]ValKind, 10), Op: 1},
		"two results":     {Module: "m", Name: "f", Results: []ValKind{I32, I32}, Op: 1},
		"a reference":     {Module: "m", Name: "f", Params: []ValKind{0x70}, Op: 1},
		"any without i32": {Module: "m", Name: "f", Results: []ValKind{I64}, Builtin: WASIBadFD},
	} {
		if l, err := eng.Link([]Import{im}); err == nil {
			l.Close()
			t.Errorf("%s is accepted", name)
		}
	}
	twice := []Import{{Module: "m", Name: "f", Op: 1}, {Module: "m", Name: "f", Op: 1}}
	if _, err := eng.Link(twice); err == nil {
		t.Error("one import defined twice is accepted")
	}
}

func TestUnknownImport(t *testing.T) {
	none, err := eng.Link(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	q, img := build(t, helloWAT, ProgramConfig{})
	_, err = eng.Program(ProgramConfig{Code: q.code, Image: img, Linker: none})
	if err == nil || !strings.Contains(err.Error(), "selvage_v1") || !strings.Contains(err.Error(), "response_write") {
		t.Errorf("unknown import: %v", err)
	}
}
