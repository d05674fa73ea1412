package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/engine/cshim"
	"github.com/selvage-edge/selvage/runtime/image"
)

// leaverWAT fails unless all that it can see is as in a new instance; then it
// writes its secret over all of it. Its table and segments it only reads.
const leaverWAT = `(module
  (import "selvage_v1" "request_head" (func $head (param i32 i32) (result i32)))
  (import "selvage_v1" "response_write" (func $write (param i32 i32) (result i32)))
  (import "test" "wait" (func $wait (param i32) (result i32)))
  (memory (export "memory") 2) (table $t 4 funcref)
  (global $i (mut i32) (i32.const 0)) (global $l (mut i64) (i64.const 77))
  (global $f (mut f32) (f32.const 1.5)) (global $d (mut f64) (f64.const 0)) (global $started (mut i32) (i32.const 0))
  (data (i32.const 8) "SEED") (data $passive "pass")
  (func $one) (elem (i32.const 1) $one)
  (func $begin (global.set $started (i32.add (global.get $started) (i32.const 1))))
  (start $begin)
  (func (export "handle") (local $secret i64) (local $p i32)
    (if (i32.ne (global.get $started) (i32.const 1)) (then unreachable))
    (if (global.get $i) (then unreachable))
    (if (i64.ne (global.get $l) (i64.const 77)) (then unreachable))
    (if (f32.ne (global.get $f) (f32.const 1.5)) (then unreachable))
    (if (f64.ne (global.get $d) (f64.const 0)) (then unreachable))
    (if (i32.ne (table.size) (i32.const 4)) (then unreachable))
    (if (i32.ne (memory.size) (i32.const 2)) (then unreachable))
    (if (i32.eqz (ref.is_null (table.get (i32.const 0)))) (then unreachable))
    (call_indirect (i32.const 1))
    (if (i32.ne (i32.load (i32.const 8)) (i32.const MARK)) (then unreachable))
    (i32.store (i32.const 8) (i32.const 0))
    (loop $look
      (if (i64.ne (i64.load (local.get $p)) (i64.const 0)) (then unreachable))
      (br_if $look (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const 8))) (i32.const 131072))))
    (memory.init $passive (i32.const 64) (i32.const 0) (i32.const 4))
    (drop (call $head (i32.const 0) (i32.const 8)))
    (local.set $secret (i64.load (i32.const 0)))
    (global.set $i (i32.wrap_i64 (local.get $secret))) (global.set $l (local.get $secret))
    (global.set $f (f32.reinterpret_i32 (i32.wrap_i64 (local.get $secret)))) (global.set $d (f64.reinterpret_i64 (local.get $secret)))
    (local.set $p (i32.const 0))
    (loop $w
      (i64.store (local.get $p) (local.get $secret))
      (br_if $w (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const STEP))) (i32.const 131072))))
    MORE
    (drop (call $write (i32.const 0) (i32.const 8)))))`

func leaver(seed, step, more string) string {
	mark := uint32(seed[0]) | uint32(seed[1])<<8 | uint32(seed[2])<<16 | uint32(seed[3])<<24
	return strings.NewReplacer("SEED", seed, "MARK", fmt.Sprint(mark), "STEP", step, "MORE", more).Replace(leaverWAT)
}

// Two tenants follow one another thousands of times, in instances that were
// nearly all renewed, each of them sure that it is new.
func TestRenewedCannotBeToldFromNew(t *testing.T) {
	rounds := alternations
	if testing.Short() {
		rounds = 500
	}
	for _, scanning := range []bool{true, false} {
		t.Run(map[bool]string{true: "scan", false: "remap"}[scanning], func(t *testing.T) {
			was := cshim.Scanning()
			if scanning && !was {
				t.Skip("PAGEMAP_SCAN does not work on this kernel")
			}
			cshim.SetScanning(scanning)
			defer cshim.SetScanning(was)
			var tenants [2]*Program
			var images [2]*Image
			wait := "(if (i32.ne (call $wait (i32.const 5)) (i32.const 6)) (then unreachable))"
			tenants[0], images[0] = build(t, leaver("AAAA", "8", ""), ProgramConfig{})
			tenants[1], images[1] = build(t, leaver("BBBB", "4096", wait), ProgramConfig{})
			before := eng.Stats()
			for n := range rounds {
				i := n % 2
				leave(t, tenants[i], []string{"secret-A", "secret-B"}[i])
				if n%1000 > 1 {
					continue
				}
				if slots, err := images[i].Audit(); err != nil || slots == 0 {
					t.Fatalf("run %d: audit of %d slots: %v", n, slots, err)
				}
			}
			after := eng.Stats()
			if got, all := after.Renewed-before.Renewed, after.Starts-before.Starts; got < all/2 {
				t.Errorf("%d of %d instances were renewed", got, all)
			}
		})
	}
}

func leave(t testing.TB, p *Program, secret string) {
	t.Helper()
	if body := leaveAs(t, p, []byte(secret)); !bytes.Equal(body, []byte(secret)) {
		t.Fatalf("answered %q", body)
	}
}

// leaveAs runs one instance to its end and returns its answer.
func leaveAs(t testing.TB, p *Program, head []byte) []byte {
	t.Helper()
	in := new(Instance)
	e, err := p.Run(in, &StartConfig{Head: head, MemoryLimit: memoryLimit})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if e.Kind == Yield {
		e = run(in)
	}
	if e.Kind == Call {
		in.Resume(6)
		e = run(in)
	}
	if e.Kind != Done {
		t.Fatalf("event %d, %v", e.Kind, e.Trap)
	}
	return bytes.Clone(in.Response().Body)
}

// What an instance may have left beside memory and globals, or did not end well, is not renewed.
func TestNotRenewed(t *testing.T) {
	unused := `(func (export "unused") (table.set (i32.const 0) (table.get (i32.const 1))))`
	for name, c := range map[string]struct {
		wat  string
		ends EventKind
	}{
		"memory that grew":          {`(module (memory (export "memory") 1) (func (export "handle") (drop (memory.grow (i32.const 1)))))`, Done},
		"an instruction on a table": {`(module (memory (export "memory") 1) (table 2 funcref) ` + unused + ` (func (export "handle")))`, Done},
		"a dropped segment":         {`(module (memory (export "memory") 1) (data $d "x") (func (export "handle") (data.drop $d)))`, Done},
		"a mutable reference":       {`(module (memory (export "memory") 1) (global (mut funcref) (ref.null func)) (func (export "handle")))`, Done},
		"a trap":                    {`(module (memory (export "memory") 1) (func (export "handle") unreachable))`, Failed},
		"an exit": {`(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)
			(func (export "handle") (call $exit (i32.const 0))))`, Failed},
		"a guest that waits": {`(module (import "test" "wait" (func $wait (param i32) (result i32))) (memory (export "memory") 1)
			(func (export "handle") (drop (call $wait (i32.const 0)))))`, Call},
		"no memory":    {`(module (func (export "handle")))`, Done},
		"many globals": {`(module (memory (export "memory") 1) ` + strings.Repeat(`(global (mut i32) (i32.const 0))`, image.RenewableGlobals+1) + ` (func (export "handle")))`, Done},
		"large tables": {`(module (memory (export "memory") 1) ` + strings.Repeat("(table 60000 funcref) ", 4) + `(func (export "handle")))`, Done},
		"a deep stack": {`(module (memory (export "memory") 1) (func $deep (param $n i32) (result i32)
			(if (result i32) (local.get $n) (then (i32.add (i32.const 1) (call $deep (i32.sub (local.get $n) (i32.const 1))))) (else (i32.const 0))))
			(func (export "handle") (drop (call $deep (i32.const 6000)))))`, Done},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := build(t, c.wat, ProgramConfig{})
			before := eng.Stats().Renewed
			for range 5 {
				in := start(t, p, StartConfig{})
				if e := run(in); e.Kind != c.ends {
					t.Fatalf("event %d, %v", e.Kind, e.Trap)
				}
				in.Close()
			}
			if after := eng.Stats(); after.Renewed != before || after.Kept != 0 {
				t.Errorf("%d instances were renewed, %d are kept", after.Renewed-before, after.Kept)
			}
		})
	}
}

// Nothing is kept for a program that is closed, also if its last instances end later.
func TestClosedProgramKeepsNothing(t *testing.T) {
	p, _ := build(t, leaver("AAAA", "8", ""), ProgramConfig{})
	leave(t, p, "secret-A")
	last := start(t, p, StartConfig{Head: []byte("secret-A")})
	if e := run(last); e.Kind != Done {
		t.Fatalf("event %d, %v", e.Kind, e.Trap)
	}
	p.Close()
	last.Close()
	if kept := eng.Stats().Kept; kept != 0 {
		t.Errorf("%d are kept", kept)
	}
}

// stayHere keeps the caller on one processor until what it returns is called.
func stayHere(t *testing.T) (leave func()) {
	runtime.LockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	for cpu := range len(before) * 64 {
		if before.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	return func() {
		if unix.SchedSetaffinity(0, &before) == nil {
			runtime.UnlockOSThread() // else the thread ends with its goroutine
		}
	}
}

// A program that is started now and then among many is not worth keeping for; and no processor keeps more than its share.
func TestKeptIsBounded(t *testing.T) {
	const most = 16
	var programs []*Program
	defer stayHere(t)() // a processor looks at its own last starts
	for range 5 * most {
		p, _ := build(t, leaver("AAAA", "8", ""), ProgramConfig{})
		programs = append(programs, p)
	}
	for range 3 {
		for _, p := range programs {
			leave(t, p, "secret-A")
		}
	}
	if kept := eng.Stats().Kept; kept != 0 {
		t.Errorf("%d kept of programs that start once among %d", kept, len(programs))
	}
	for range 3 {
		for _, p := range programs[:most+1] {
			leave(t, p, "secret-A")
		}
	}
	if kept := eng.Stats().Kept; kept == 0 || kept > int64(most*runtime.NumCPU()) {
		t.Errorf("%d are kept on %d processors", kept, runtime.NumCPU())
	}
}

// Programs are closed while others' instances, and their own, start and end.
func TestRenewWhileProgramsClose(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 40
	}
	wat := leaver("AAAA", "4096", "")
	stays, _ := build(t, wat, ProgramConfig{})
	var all sync.WaitGroup
	defer all.Wait()
	for range 3 {
		all.Go(func() {
			for range 20 * rounds {
				in, err := stays.Start(StartConfig{Head: []byte("secret-A"), MemoryLimit: memoryLimit})
				if err != nil {
					t.Error(err)
					return
				}
				if e := run(in); e.Kind != Done {
					t.Errorf("event %d, %v", e.Kind, e.Trap)
				}
				in.Close()
			}
		})
	}
	for range rounds {
		p, img := build(t, wat, ProgramConfig{})
		leave(t, p, "secret-B")
		in := start(t, p, StartConfig{Head: []byte("secret-B")})
		if e := run(in); e.Kind != Done {
			t.Fatalf("event %d, %v", e.Kind, e.Trap)
		}
		p.Close()
		img.Close()
		in.Close()
	}
}

// What one request writes, or many write one after another, does not end renewal for those that follow.
func TestRenewalOutlivesLargeRequests(t *testing.T) {
	p, img := build(t, `(module
	  (import "selvage_v1" "request_head" (func $head (param i32 i32) (result i32)))
	  (memory (export "memory") 40)
	  (func (export "handle") (drop (call $head (i32.const 0) (i32.const 8)))
	    (memory.fill (i32.load (i32.const 0)) (i32.const 7) (i32.load (i32.const 4)))))`, ProgramConfig{})
	fill := func(from, n uint32) {
		t.Helper()
		head := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, from), n)
		leaveAs(t, p, head)
	}
	renewed := func(times int) uint64 {
		before := eng.Stats().Renewed
		for range times {
			fill(8, 8)
		}
		return eng.Stats().Renewed - before
	}
	fill(0, 1<<20)
	fill(0, 40<<16)
	if n := renewed(100); n < 50 {
		t.Errorf("%d of 100 renewed after large requests", n)
	}
	for i := range uint32(600) {
		fill(i*4096, 1)
	}
	if n := renewed(100); n < 50 {
		t.Errorf("%d of 100 renewed after many that wrote a page each", n)
	}
	if _, err := img.Audit(); err != nil {
		t.Error(err)
	}
}

// Ending what was renewed, for want of room or because the program is closed, does not reset it again.
func TestRenewedIsResetOnce(t *testing.T) {
	if !cshim.Scanning() {
		t.Skip("PAGEMAP_SCAN does not work on this kernel")
	}
	p, _ := build(t, leaver("AAAA", "4096", ""), ProgramConfig{})
	before := eng.Stats()
	for range 10 {
		leave(t, p, "secret-A")
	}
	p.Close()
	if n := eng.Stats().Resets - before.Resets; n != 10 {
		t.Errorf("%d resets of 10 instances", n)
	}
}

// Which pages a slot has of its own is known without asking the kernel as long as no instance touches
// another; one that does leaves nothing either, whatever it reads first and whichever page it is.
func TestKnownPages(t *testing.T) {
	if !cshim.Scanning() {
		t.Skip("PAGEMAP_SCAN does not work on this kernel")
	}
	const pages = 31 // above the first, which holds the request
	p, img := build(t, `(module
	  (import "selvage_v1" "request_head" (func $head (param i32 i32) (result i32)))
	  (memory (export "memory") 2)
	  (func (export "handle") (local $p i32)
	    (loop $look
	      (if (i64.ne (i64.load (local.get $p)) (i64.const 0)) (then unreachable))
	      (br_if $look (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const 8))) (i32.const 131072))))
	    (drop (call $head (i32.const 0) (i32.const 8)))
	    (i32.store (i32.load (i32.const 0)) (i32.const 7))))`, ProgramConfig{})
	touch := func(page uint32) {
		leaveAs(t, p, binary.LittleEndian.AppendUint64(nil, uint64(page<<12|8)))
	}
	runtime.LockOSThread() // a thread's faults are its own
	defer runtime.UnlockOSThread()
	before := eng.Stats()
	for range 1000 {
		touch(1)
	}
	after := eng.Stats()
	if known, all := after.KnownResets-before.KnownResets, after.Resets-before.Resets; all < 900 || known < all/4 {
		t.Errorf("%d of %d resets knew the pages", known, all)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for n := range 2000 {
		touch(uint32(random.IntN(pages + 1)))
		if n%100 != 0 {
			continue
		}
		if _, err := img.Audit(); err != nil {
			t.Fatal(err)
		}
	}
}

// What took several calls, of whichever threads, is reset by asking the kernel.
func TestSeveralCallsAreNotKnown(t *testing.T) {
	if !cshim.Scanning() {
		t.Skip("PAGEMAP_SCAN does not work on this kernel")
	}
	p, _ := build(t, `(module (memory (export "memory") 1) (func (export "handle") (i32.store (i32.const 8) (i32.const 7))))`, ProgramConfig{})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range 50 {
		leaveAs(t, p, nil)
	}
	before := eng.Stats().KnownResets
	for range 300 {
		in := start(t, p, StartConfig{})
		if e := run(in); e.Kind != Done {
			t.Fatal(e.Trap)
		}
		in.Close()
	}
	if n := eng.Stats().KnownResets - before; n != 0 {
		t.Errorf("%d resets of what took several calls asked nobody", n)
	}
}
