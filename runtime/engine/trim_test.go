package engine

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/runtime/engine/cshim"
)

// crowd is how many instances are alive before those that wait give back: trim.c's.
const crowd = 1024

// crowdWAT waits with a page that it wrote as the image has it, one that it
// wrote zeroes to, one of its own, and a table of 32 pages of which it uses three
// elements; then looks for all of that.
const crowdWAT = `(module
  (import "test" "wait" (func $wait (param i32) (result i32)))
  (memory (export "memory") 2) (type $t (func (result i32)))
  (table $t 16384 funcref) (elem (table $t) (i32.const 0) func $one) (elem (table $t) (i32.const 9000) func $two)
  (data (i32.const 4096) "image")
  (func $one (type $t) (i32.const 1)) (func $two (type $t) (i32.const 2))
  (elem declare func $one)
  (func (export "handle") (local $got i32)
    (i32.store8 (i32.const 4096) (i32.const 0x69))
    (i32.store8 (i32.const 20000) (i32.const 0))
    (drop (call_indirect (type $t) (i32.const 9000)))
    (table.set (i32.const 16000) (ref.func $one))
    (local.set $got (call $wait (i32.const 7)))
    (i32.store8 (i32.const 70000) (local.get $got))
    (drop (call $wait (i32.const 8)))
    (if (i32.ne (i32.load8_u (i32.const 70000)) (local.get $got)) (then unreachable))
    (if (i32.ne (i32.load (i32.const 4096)) (i32.const 0x67616d69)) (then unreachable))
    (if (i32.load (i32.const 20000)) (then unreachable))
    (if (i32.ne (call_indirect (type $t) (i32.const 0)) (i32.const 1)) (then unreachable))
    (if (i32.ne (call_indirect (type $t) (i32.const 9000)) (i32.const 2)) (then unreachable))
    (if (i32.ne (call_indirect (type $t) (i32.const 16000)) (i32.const 1)) (then unreachable))
    (if (i32.eqz (ref.is_null (table.get (i32.const 12000)))) (then unreachable))
    (drop (table.grow (ref.func $one) (i32.const 5000)))
    (if (i32.ne (call_indirect (type $t) (i32.const 21000)) (i32.const 1)) (then unreachable))
    (if (i32.ne (call_indirect (type $t) (i32.const 9000)) (i32.const 2)) (then unreachable))))`

// Many that wait give back what holds nothing of their own, and lose nothing by it.
func TestWaitingInstancesGiveBack(t *testing.T) {
	const n = crowd + 144
	p, img := build(t, crowdWAT, ProgramConfig{})
	before := eng.Stats().PagesTrimmed
	instances := make([]*Instance, n)
	for i := range instances {
		instances[i] = start(t, p, StartConfig{})
		if e := run(instances[i]); e.Kind != Call || e.Op != opWait {
			t.Fatalf("instance %d: %+v, trap %v", i, e, e.Trap)
		}
	}
	each := float64(eng.Stats().PagesTrimmed-before) / (n - crowd)
	t.Logf("%.1f pages each", each)
	// Of the table, whose ends may share a page with others, 31 pages are whole, and three elements lie in three of them.
	if want := 26.0; each < want {
		t.Errorf("%.1f pages were given back by each, want %.0f or more", each, want)
	}
	pages(t)
	for i, in := range instances {
		for range 2 {
			in.Resume(int64(i % 100))
			if e := run(in); e.Kind == Failed {
				t.Fatalf("instance %d: %v", i, e.Trap)
			}
		}
		in.Close()
	}
	if slots, err := img.Audit(); err != nil || slots < 1 {
		t.Errorf("audit of %d slots: %v", slots, err)
	}
}

// pages are given back of memory, too: two that hold what the image does, without keeping anything of them.
func pages(t *testing.T) {
	t.Helper()
	if !cshim.Scanning() {
		return
	}
	p, _ := build(t, `(module
	  (import "test" "wait" (func $wait (param i32) (result i32)))
	  (memory (export "memory") 1) (data (i32.const 4096) "image")
	  (func (export "handle")
	    (i32.store8 (i32.const 4096) (i32.const 0x69)) (i32.store8 (i32.const 20000) (i32.const 0))
	    (drop (call $wait (i32.const 7)))))`, ProgramConfig{})
	before := eng.Stats()
	in := start(t, p, StartConfig{})
	defer in.Close()
	if e := run(in); e.Kind != Call {
		t.Fatalf("%+v", e)
	}
	if after := eng.Stats(); after.PagesTrimmed-before.PagesTrimmed != 2 || after.PagesFolded != before.PagesFolded {
		t.Errorf("%d pages were given back, of %d lines were kept; want 2 and 0", after.PagesTrimmed-before.PagesTrimmed, after.PagesFolded-before.PagesFolded)
	}
}

// foldWAT writes its number over one line in five of 16 pages of an image full of sevens, all over
// one page, and over zeroes; waits; looks for all of it, and for what the host wrote meanwhile.
const foldWAT = `(module
  (import "selvage_v1" "request_head" (func $head (param i32 i32) (result i32)))
  (import "test" "wait" (func $wait (param i32) (result i32)))
  (memory (export "memory") 4)
  (data (i32.const 0) "SEVENS")
  (func $each (param $want i64) (local $p i32) (local $now i64) (local $i i32)
    (local.set $p (i32.const 4096))
    (loop $next
      (local.set $now (i64.xor (i64.load (i32.const 8)) (i64.extend_i32_u (local.get $p))))
      (if (i64.eqz (local.get $want))
        (then (i64.store (local.get $p) (local.get $now)))
        (else (if (i32.ne (local.get $p) (i32.const 20096))
          (then (if (i64.ne (i64.load (local.get $p)) (local.get $now)) (then unreachable))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (local.set $p (i32.add (local.get $p) (select (i32.const 8) (i32.const 320) (i32.eq (i32.shr_u (local.get $p) (i32.const 12)) (i32.const 9)))))
      (br_if $next (i32.lt_u (local.get $p) (i32.const 200000)))))
  (func $image (local $p i32)
    (local.set $p (i32.const 4096))
    (loop $next
      (if (i32.ne (i32.shr_u (local.get $p) (i32.const 12)) (i32.const 9)) (then
        (if (i64.ne (i64.load offset=200 (local.get $p))
          (select (i64.const 0x3737373737373737) (i64.const 0) (i32.lt_u (local.get $p) (i32.const 65336)))) (then unreachable))))
      (local.set $p (i32.add (local.get $p) (i32.const 320)))
      (br_if $next (i32.lt_u (local.get $p) (i32.const 200000)))))
  (func (export "handle")
    (drop (call $head (i32.const 8) (i32.const 8)))
    (call $each (i64.const 0))
    (if (i32.ne (call $wait (i32.const 7)) (i32.const 1)) (then unreachable))
    (call $each (i64.const 1)) (call $image)
    (if (i64.ne (i64.load (i32.const 20096)) (i64.const -2)) (then unreachable))
    (if (i32.ne (call $wait (i32.const 8)) (i32.const 1)) (then unreachable))
    (call $each (i64.const 1))))`

// Of pages that are given back nothing is lost: neither to the guest that goes on, nor to the host
// that reads or writes its memory while it waits; and nothing is left for who comes next.
func TestFoldedMemoryIsWhole(t *testing.T) {
	if !cshim.Scanning() {
		t.Skip("PAGEMAP_SCAN does not work on this kernel")
	}
	p, img := build(t, strings.Replace(foldWAT, "SEVENS", strings.Repeat("7", 65536), 1), ProgramConfig{})
	const where = 20096 // one of the lines that every guest writes
	before := eng.Stats()
	instances := make([]*Instance, crowd+200)
	for i := range instances {
		instances[i] = start(t, p, StartConfig{Head: binary.LittleEndian.AppendUint64(nil, uint64(i)<<32)})
		if e := run(instances[i]); e.Kind != Call {
			t.Fatalf("instance %d: %+v, trap %v", i, e, e.Trap)
		}
	}
	after := eng.Stats()
	if folded := after.PagesFolded - before.PagesFolded; folded < 150*40 {
		t.Errorf("%d pages were folded, want 40 or more of each of the last", folded)
	}
	for i, in := range instances {
		if i%3 == 0 {
			in.Close() // as it is
			continue
		}
		b, ok := in.Borrow(where, 8)
		if !ok {
			t.Fatal("no borrow")
		}
		if got, want := binary.LittleEndian.Uint64(b.Bytes()), uint64(i)<<32^where; got != want {
			t.Fatalf("instance %d: the host reads %#x, want %#x", i, got, want)
		}
		binary.LittleEndian.PutUint64(b.Bytes(), ^uint64(1))
		b.Release()
		for range 2 {
			in.Resume(1)
			if e := run(in); e.Kind == Failed {
				t.Fatalf("instance %d: %v", i, e.Trap)
			}
		}
		in.Close()
	}
	if slots, err := img.Audit(); err != nil || slots < 1 {
		t.Errorf("audit of %d slots: %v", slots, err)
	}
}
