package engine

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestTraps(t *testing.T) {
	for _, c := range []struct {
		name, body string
		code       TrapCode
		message    string
	}{
		{"unreachable", "unreachable", TrapUnreachable, "unreachable"},
		{"load", "(drop (i32.load (i32.const 65533)))", TrapMemory, "out of bounds memory"},
		{"far load", "(drop (i32.load offset=4294967295 (i32.const -1)))", TrapMemory, "out of bounds memory"},
		{"store", "(i64.store (i32.const -8) (i64.const 1))", TrapMemory, "out of bounds memory"},
		{"fill", "(memory.fill (i32.const 65000) (i32.const 1) (i32.const 1000))", TrapMemory, "out of bounds memory"},
		{"divide", "(drop (i32.div_u (i32.const 1) (i32.const 0)))", TrapArithmetic, "divide by zero"},
		{"overflow", "(drop (i32.div_s (i32.const -2147483648) (i32.const -1)))", TrapArithmetic, "overflow"},
		{"convert", "(drop (i32.trunc_f64_s (f64.const 1e99)))", TrapArithmetic, "integer overflow"},
		{"null call", "(call_indirect (type $v) (i32.const 1))", TrapIndirect, "uninitialized element"},
		{"wrong call", "(call_indirect (type $i) (i32.const 0)) drop", TrapIndirect, "type mismatch"},
		{"table", "(call_indirect (type $v) (i32.const 99))", TrapTable, "undefined element"},
		{"recursion", "(call $deep)", TrapStack, "call stack exhausted"},
		{"exit", "(call $exit (i32.const 7))", TrapExit, "proc_exit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, img := build(t, `(module
			  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
			  (memory (export "memory") 1) (table 3 funcref) (elem (i32.const 0) $nothing)
			  (type $v (func)) (type $i (func (result i32)))
			  (func $nothing)
			  (func $deep (call $deep) (call $deep))
			  (func $inner `+c.body+`)
			  (func (export "handle") (i32.store8 (i32.const 9) (i32.const 1)) (call $inner)))`, ProgramConfig{})
			in := start(t, p, StartConfig{})
			e := run(in)
			if e.Kind != Failed || e.Trap.Code != c.code || !strings.Contains(e.Trap.Message, c.message) {
				t.Fatalf("event %d, trap %#v", e.Kind, e.Trap)
			}
			if c.code == TrapExit && e.Trap.ExitStatus != 7 {
				t.Errorf("exit status %d", e.Trap.ExitStatus)
			}
			if !strings.Contains(e.Trap.Backtrace, "inner") && c.code != TrapStack {
				t.Errorf("backtrace %q", e.Trap.Backtrace)
			}
			if again := in.Poll(); again.Kind != Failed || again.Trap.Code != c.code {
				t.Errorf("polled again: %+v", again)
			}
			in.Close()
			if n, err := img.Audit(); err != nil || n != 1 {
				t.Errorf("audit of %d slots: %v", n, err)
			}
		})
	}
}

// Traps on many threads at once, with the collector running: the engine's
// signal handlers and Go's share the process.
func TestTrapsTogether(t *testing.T) {
	p, _ := build(t, `(module (memory (export "memory") 1) (func $deep (call $deep) (call $deep))
	  (func (export "handle") (drop (i32.load (i32.const 65536)))) (func (export "selvage_start") ))`, ProgramConfig{})
	q, _ := build(t, `(module (func $deep (call $deep) (call $deep)) (func (export "handle") (call $deep)))`, ProgramConfig{})
	var group sync.WaitGroup
	for g := range 4 {
		group.Go(func() {
			for i := range 100 {
				program, want := p, TrapMemory
				if (g+i)%4 == 0 {
					program, want = q, TrapStack
				}
				in, err := program.Start(StartConfig{MemoryLimit: memoryLimit})
				if err != nil {
					t.Error(err)
					return
				}
				if e := run(in); e.Kind != Failed || e.Trap.Code != want {
					t.Errorf("event %d, trap %v", e.Kind, e.Trap)
				}
				in.Close()
				if i%20 == 0 {
					runtime.GC()
				}
			}
		})
	}
	group.Wait()
}

// A guest whose instantiation traps is said to be one that cannot start.
func TestTrapAtStart(t *testing.T) {
	p, _ := build(t, `(module (table 1 funcref) (func $f) (elem (i32.const 5) $f) (func (export "handle")))`, ProgramConfig{})
	in := start(t, p, StartConfig{})
	defer in.Close()
	if e := run(in); e.Kind != Failed || e.Trap.Code != TrapStart {
		t.Errorf("event %d, trap %v", e.Kind, e.Trap)
	}
}

func TestStartSectionRunsWithTheImagesGlobals(t *testing.T) {
	p, _ := build(t, `(module (memory (export "memory") 1) (global $g (mut i32) (i32.const 41))
	  (func $begin (global.set $g (i32.add (global.get $g) (i32.const 1)))) (start $begin)
	  (func (export "handle") (i32.store8 (i32.const 0) (global.get $g))))`, ProgramConfig{})
	in := start(t, p, StartConfig{})
	defer in.Close()
	if e := run(in); e.Kind != Done {
		t.Fatal(e.Trap)
	}
	b, _ := in.Borrow(0, 1)
	defer b.Release()
	if b.Bytes()[0] != 42 {
		t.Errorf("global is %d", b.Bytes()[0])
	}
}

// A function that never calls back hands the processor back at every tick, is
// charged for what it ran, and can be ended there.
func TestSpin(t *testing.T) {
	p, img := build(t, `(module (memory (export "memory") 1)
	  (func (export "handle") (loop $l (i32.store8 (i32.const 3) (i32.const 3)) (br $l))))`, ProgramConfig{})
	in := start(t, p, StartConfig{})
	begin := time.Now()
	yields := 0
	for in.Usage().CPU < 20*time.Millisecond {
		if e := in.Poll(); e.Kind != Yield {
			t.Fatalf("event %d, trap %v", e.Kind, e.Trap)
		}
		yields++
	}
	if took := time.Since(begin); yields < 5 || took < 10*time.Millisecond {
		t.Errorf("%d yields in %v of wall time for 20ms of CPU", yields, took)
	}
	in.Close()
	if u := in.Usage(); u.CPU < 20*time.Millisecond || u.MemoryBytes != 65536 {
		t.Errorf("usage after Close %+v", u)
	}
	if _, err := img.Audit(); err != nil {
		t.Error(err)
	}
}

// A start section that never ends is stopped the same way.
func TestSpinAtStart(t *testing.T) {
	p, _ := build(t, `(module (func $s (loop $l (br $l))) (start $s) (func (export "handle")))`, ProgramConfig{})
	in := start(t, p, StartConfig{})
	defer in.Close()
	for range 3 {
		if e := in.Poll(); e.Kind != Yield {
			t.Fatalf("event %d, trap %v", e.Kind, e.Trap)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	p, _ := build(t, `(module (memory (export "memory") 2)
	  (func (export "handle")
	    (if (i32.ne (memory.grow (i32.const 14)) (i32.const 2)) (then unreachable))
	    (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
	    (if (i32.ne (memory.grow (i32.const 65000)) (i32.const -1)) (then unreachable))
	    (if (i32.ne (memory.size) (i32.const 16)) (then unreachable))
	    (i32.store (i32.const 1048572) (i32.const 1))
	    (i32.store (i32.const 1048573) (i32.const 1))))`, ProgramConfig{})
	in := start(t, p, StartConfig{MemoryLimit: 1 << 20})
	defer in.Close()
	e := run(in)
	if e.Kind != Failed || e.Trap.Code != TrapMemory || !e.Trap.GrowRefused || in.Usage().MemoryBytes != 1<<20 {
		t.Errorf("event %d, trap %#v, usage %+v", e.Kind, e.Trap, in.Usage())
	}
	if _, err := p.Start(StartConfig{MemoryLimit: 65536}); err == nil || !strings.Contains(err.Error(), "larger than the memory limit") {
		t.Errorf("an image over the limit: %v", err)
	}
}

// Only one thing is in a store: more tables or elements than allowed are refused.
func TestTableLimit(t *testing.T) {
	p, _ := build(t, `(module (table 1 funcref) (func (export "handle")
	  (if (i32.ne (table.grow (ref.null func) (i32.const 200000)) (i32.const -1)) (then unreachable))))`, ProgramConfig{})
	in := start(t, p, StartConfig{})
	defer in.Close()
	if e := run(in); e.Kind != Done {
		t.Errorf("event %d, trap %v", e.Kind, e.Trap)
	}
}

// Host code runs on what the guest leaves of the fiber's stack: deep in a
// recursion it must still work, and the next instance on that stack too.
func TestHostCallDeepInAStack(t *testing.T) {
	p, _ := build(t, `(module
	  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
	  (import "test" "wait" (func $wait (param i32) (result i32)))
	  (memory (export "memory") 1)
	  (func $deep (param $n i32)
	    (drop (call $poll (i32.const 0) (i32.const 4096) (i32.const 3) (i32.const 64)))
	    (if (i32.eq (local.get $n) (i32.const 0)) (then (drop (call $wait (i32.const 1)))) (else (call $deep (i32.sub (local.get $n) (i32.const 1))))))
	  (func (export "handle") (call $deep (i32.const 20000))))`, ProgramConfig{})
	for range 3 {
		in := start(t, p, StartConfig{})
		if e := run(in); e.Kind != Call {
			t.Fatalf("event %d, trap %v", e.Kind, e.Trap)
		}
		in.Resume(0)
		if e := run(in); e.Kind != Done {
			t.Fatalf("event %d, trap %v", e.Kind, e.Trap)
		}
		in.Close()
	}
}

// What a deep recursion dirtied of its stack does not stay resident.
func TestStackIsTrimmed(t *testing.T) {
	p, _ := build(t, `(module (import "test" "wait" (func $wait (param i32) (result i32)))
	  (func $deep (param $n i32) (result i32)
	    (if (result i32) (local.get $n) (then (i32.add (call $deep (i32.sub (local.get $n) (i32.const 1))) (local.get $n))) (else (call $wait (i32.const 1)))))
	  (func (export "handle") (drop (call $deep (i32.const 20000)))))`, ProgramConfig{})
	const n = 100
	instances := make([]*Instance, n)
	for i := range instances {
		instances[i] = start(t, p, StartConfig{})
		if e := run(instances[i]); e.Kind != Call {
			t.Fatalf("event %d, trap %v", e.Kind, e.Trap)
		}
	}
	deep := status(t, "VmRSS")
	for _, in := range instances {
		in.Close()
	}
	if freed := deep - status(t, "VmRSS"); freed < n*512 { // KiB; each went about a MiB deep
		t.Errorf("%d KiB freed of %d deep stacks", freed, n)
	}
}

func TestFailKeepsTheBacktrace(t *testing.T) {
	p, _ := build(t, `(module (import "test" "wait" (func $wait (param i32) (result i32)))
	  (func $caller (drop (call $wait (i32.const 1)))) (func (export "handle") (call $caller)))`, ProgramConfig{})
	in := start(t, p, StartConfig{})
	defer in.Close()
	run(in)
	in.Fail(TrapPointer, "no such place")
	e := run(in)
	if e.Kind != Failed || e.Trap.Code != TrapPointer || e.Trap.Message != "no such place" || !strings.Contains(e.Trap.Backtrace, "caller") {
		t.Errorf("event %d, trap %#v", e.Kind, e.Trap)
	}
}

func TestRootCause(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain",
		"heading\n  0: f\n\nCaused by:\n    wasm trap: boom\x00":                     "wasm trap: boom",
		"heading\n\nCaused by:\n    0: middle\n    1: the root: it":                  "the root: it",
		"heading\n\nCaused by:\n    root\n\nStack backtrace:\n   0: <unknown>\n  1:": "root",
	} {
		if got := rootCause(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func ExampleTrap() {
	fmt.Println(&Trap{Code: TrapStack})
	// Output: stack overflow
}

// A guest whose work hides in instructions that never look at the tick, and
// that suspends after each, is charged for it all the same.
func TestLongInstructionsAreCharged(t *testing.T) {
	const rounds = 8
	p, _ := build(t, `(module (import "test" "wait" (func $wait (param i32) (result i32))) (memory (export "memory") 1600)
	  (func (export "handle") `+strings.Repeat("(memory.fill (i32.const 0) (i32.const 1) (i32.const 104857600)) (drop (call $wait (i32.const 0)))", rounds)+`))`, ProgramConfig{})
	in := start(t, p, StartConfig{})
	defer in.Close()
	for e := run(in); e.Kind != Done; e = run(in) {
		if e.Kind != Call {
			t.Fatalf("event %d, trap %v", e.Kind, e.Trap)
		}
		in.Resume(0)
	}
	// 100 MiB take a few milliseconds on any machine.
	if cpu := in.Usage().CPU; cpu < rounds*time.Millisecond {
		t.Errorf("%d fills of 100 MiB are charged as %v", rounds, cpu)
	}
}

// wasmtime keeps externref values in a memory of its own, which it asks our
// creator for: a guest never gets one, with or without a memory of its own.
func TestNoSecondMemory(t *testing.T) {
	for _, memory := range []string{"", "(memory 1)"} {
		p, img := build(t, `(module (table 4 externref) `+memory+` (global (mut externref) (ref.null extern))
		  (func (export "handle") (global.set 0 (table.get 0 (i32.const 1)))))`, ProgramConfig{})
		in := start(t, p, StartConfig{})
		if e := run(in); e.Kind != Failed || !strings.Contains(e.Trap.Message, "selvage:") {
			t.Errorf("%s: event %d, trap %v", memory, e.Kind, e.Trap)
		}
		in.Close()
		if _, err := img.Audit(); err != nil {
			t.Error(err)
		}
	}
}
