package engine

import (
	"testing"
)

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
	const n = 400
	p, img := build(t, crowdWAT, ProgramConfig{})
	before := eng.Stats().PagesTrimmed
	instances := make([]*Instance, n)
	for i := range instances {
		instances[i] = start(t, p, StartConfig{})
		if e := run(instances[i]); e.Kind != Call || e.Op != opWait {
			t.Fatalf("instance %d: %+v, trap %v", i, e, e.Trap)
		}
	}
	each := float64(eng.Stats().PagesTrimmed-before) / (n - 256)
	t.Logf("%.1f pages each", each)
	// Of the table, whose ends may share a page with others, 31 pages are whole, and three elements lie in three of them.
	if want := 26.0; each < want {
		t.Errorf("%.1f pages were given back by each, want %.0f or more", each, want)
	}
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
