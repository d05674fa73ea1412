package snapshot

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/image"
)

var small = Limits{CPU: 200 * time.Millisecond, Wall: 10 * time.Second, MemoryBytes: 4 << 20, LogBytes: 1 << 10}

var linked *engine.Linker

// source splits and compiles a module, here and now.
func source(t *testing.T, module []byte) Source {
	t.Helper()
	e := guesttest.Engine(t)
	code, img := guesttest.Split(t, module)
	artifact, err := e.Compile(code)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := e.Load(artifact)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(loaded.Close)
	if linked == nil {
		if linked, err = e.Link(guest.Imports()); err != nil {
			t.Fatal(err)
		}
	}
	return Source{Engine: e, Linker: linked, Module: code, Code: loaded, Image: img}
}

// answer runs handle on a new instance of img and returns the body it gathered.
func answer(t *testing.T, s Source, img *image.Image) string {
	t.Helper()
	prepared, err := s.Engine.Image(img)
	if err != nil {
		t.Fatal(err)
	}
	defer prepared.Close()
	p, err := s.Engine.Program(engine.ProgramConfig{Code: s.Code, Image: prepared, Linker: s.Linker, Entries: []string{"handle"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	in, err := p.Start(engine.StartConfig{MemoryLimit: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for {
		switch e := in.Poll(); e.Kind {
		case engine.Done:
			return string(in.Response().Body)
		case engine.Yield:
		default:
			t.Fatalf("handle: %+v", e)
		}
	}
}

// Start-up leaves its marks in memory, beyond what the memory was at first, and
// in globals of all types. Requests find them and do not see each other's.
func TestTakesMemoryAndGlobals(t *testing.T) {
	s := source(t, guesttest.Guest(t, `
		(data (i32.const 16) "old old ")
		(global $a (mut i32) (i32.const 1)) (global $b (mut i64) (i64.const 2))
		(global $c (mut f32) (f32.const 3)) (global $d (mut f64) (f64.const 4))
		(start $first)
		(func $first (i32.store8 (i32.const 20) (i32.const 0x31)))
		(func (export "_initialize")
			(i32.store8 (i32.const 21) (i32.add (i32.load8_u (i32.const 20)) (i32.const 1)))
			(global.set $b (i64.const -5)) (global.set $c (f32.const 0.5)) (global.set $d (f64.const 0.25)))
		(func (export "selvage_start") (local $p i32)
			(i32.store8 (i32.const 22) (i32.add (i32.load8_u (i32.const 21)) (i32.const 1)))
			(local.set $p (i32.mul (memory.grow (i32.const 3)) (i32.const 65536)))
			(i64.store (i32.add (local.get $p) (i32.const 100000)) (i64.const 0x21646e65))
			(global.set $a (local.get $p)))
		(func (export "handle")
			(drop (call $response_write (i32.const 16) (i32.const 8)))
			(drop (call $response_write (i32.add (global.get $a) (i32.const 100000)) (i32.const 4)))
			(if (i64.ne (global.get $b) (i64.const -5)) (then unreachable))
			(if (f32.ne (global.get $c) (f32.const 0.5)) (then unreachable))
			(if (f64.ne (global.get $d) (f64.const 0.25)) (then unreachable))
			(i32.store8 (i32.const 16) (i32.const 0x58))
			(global.set $b (i64.const 0)))`))
	r, err := Take(s, small)
	if err != nil {
		t.Fatal(err)
	}
	if r.Image.Size != 5*image.PageSize {
		t.Errorf("the image has %d bytes", r.Image.Size)
	}
	for range 3 {
		if got := answer(t, s, r.Image); got != "old 123 end!" {
			t.Errorf("answer %q", got)
		}
	}
	again, err := Take(s, small)
	if err != nil || !bytes.Equal(again.Image.Encode(), r.Image.Encode()) {
		t.Errorf("taken again it differs: %v", err)
	}
}

// What needs no waiting may be used in start-up.
func TestAllowedInStartUp(t *testing.T) {
	s := source(t, guesttest.Guest(t, `
		(data (i32.const 0) "\10\00\00\00\05\00\00\00") (data (i32.const 16) "hello")
		(func (export "selvage_start")
			(drop (call $clock_now (i32.const 0)))
			(drop (call $random (i32.const 64) (i32.const 8)))
			(drop (call $environment (i32.const 128) (i32.const 64)))
			(drop (call $wasi_clock_time_get (i32.const 0) (i64.const 0) (i32.const 256)))
			(drop (call $wasi_random_get (i32.const 64) (i32.const 8)))
			(drop (call $wasi_args_sizes_get (i32.const 256) (i32.const 260)))
			(drop (call $wasi_environ_sizes_get (i32.const 256) (i32.const 260)))
			(drop (call $wasi_sched_yield))
			(drop (call $wasi_fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
			(drop (call $log (i32.const 0) (i32.const 16) (i32.const 4))))
		(func (export "handle") (drop (call $response_write (i32.const 16) (i32.const 5))))`))
	r, err := Take(s, small)
	if err != nil || r.Printed != "hellohell\n" {
		t.Fatalf("printed %q, %v", r.Printed, err)
	}
	if got := answer(t, s, r.Image); got != "hello" {
		t.Errorf("answer %q", got)
	}
}

func TestRefuses(t *testing.T) {
	table := `(table 2 funcref) (elem declare func $f) (func $f) `
	for name, tc := range map[string]struct {
		body string
		want error
		text string
	}{
		"kv":           {`(func (export "selvage_start") (drop (call $kv_open (i32.const 0) (i32.const 1))))`, ErrHostCall, "kv_open"},
		"fetch":        {`(func (export "selvage_start") (drop (call $fetch_start (i32.const 0) (i32.const 1))))`, ErrHostCall, "fetch_start"},
		"sleep":        {`(func (export "selvage_start") (drop (call $sleep (i64.const 1))))`, ErrHostCall, "sleep"},
		"in init":      {`(func (export "_initialize") (drop (call $sleep (i64.const 1))))`, ErrHostCall, "sleep"},
		"spin":         {`(func (export "selvage_start") (loop (br 0)))`, ErrTime, "200ms"},
		"start spins":  {`(start $s) (func $s (loop (br 0)))`, ErrTime, "200ms"},
		"trap":         {`(func (export "selvage_start") unreachable)`, ErrFailed, "unreachable"},
		"stack":        {`(func $f (export "selvage_start") (call $f))`, ErrFailed, "stack"},
		"out of range": {`(func (export "selvage_start") (drop (i32.load (i32.const -1))))`, ErrFailed, "memory"},
		"exit": {`(data (i32.const 0) "\10\00\00\00\05\00\00\00") (data (i32.const 16) "sorry") (func (export "selvage_start")
			(drop (call $wasi_fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8))) (call $wasi_proc_exit (i32.const 3)))`,
			ErrFailed, "status 3"},
		"memory": {`(func (export "selvage_start") (if (i32.lt_s (memory.grow (i32.const 1000)) (i32.const 0)) (then unreachable)))`,
			ErrMemory, "4 MiB"},
		"close":         {`(func (export "selvage_start") (drop (call $wasi_fd_close (i32.const 1))))`, ErrInexact, "descriptor"},
		"table.set":     {table + `(func (export "selvage_start") (table.set (i32.const 0) (ref.func $f)))`, ErrInexact, "table.set"},
		"table.fill":    {table + `(func (export "selvage_start") (table.fill (i32.const 0) (ref.null func) (i32.const 1)))`, ErrInexact, "table.fill"},
		"data.drop":     {`(data $d "x") (func (export "selvage_start") (data.drop $d))`, ErrInexact, "data.drop"},
		"a reference":   {table + `(global (mut funcref) (ref.null func)) (func (export "selvage_start"))`, ErrInexact, "global 0"},
		"a vector":      {`(global (mut v128) (v128.const i32x4 0 0 0 0)) (func (export "selvage_start"))`, ErrInexact, "global 0"},
		"elements drop": {table + `(elem $e func $f) (func (export "selvage_start") (elem.drop $e))`, ErrInexact, "elem.drop"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Take(source(t, guesttest.Guest(t, tc.body+`(func (export "handle"))`)), small)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("err = %v; want %v with %q", err, tc.want, tc.text)
			}
			if r.Image != nil {
				t.Error("an image came with the error")
			}
			if name == "exit" && r.Printed != "sorry" {
				t.Errorf("printed %q", r.Printed)
			}
		})
	}
}
