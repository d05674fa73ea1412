package engine

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/runtime/engine/cshim"
	"github.com/selvage-edge/selvage/runtime/tooltest"
)

// spyWAT looks for anything that is not its image's, in all of the memory that
// it has and in a megabyte that it grows by, in its globals and its table; then
// writes its secret, which its request says, all over them.
const spyWAT = `(module
  (import "selvage_v1" "request_head" (func $head (param i32 i32) (result i32)))
  (memory (export "memory") 20) (table $t 8 funcref)
  (global $g (mut i64) (i64.const 77)) (global $f (mut f64) (f64.const 0))
  (data (i32.const 8) "SEED")
  (func $dirty unreachable) (elem declare func $dirty)
  (func $look (param $p i32) (param $end i32)
    (loop $l
      (if (i64.ne (i64.load (local.get $p)) (i64.const 0)) (then unreachable))
      (local.set $p (i32.add (local.get $p) (i32.const 8)))
      (br_if $l (i32.lt_u (local.get $p) (local.get $end)))))
  (func (export "handle") (local $secret i64) (local $old i32) (local $i i32)
    (if (i64.ne (global.get $g) (i64.const 77)) (then unreachable))
    (if (f64.ne (global.get $f) (f64.const 0)) (then unreachable))
    (if (i32.ne (table.size) (i32.const 8)) (then unreachable))
    (loop $l
      (if (i32.eqz (ref.is_null (table.get (local.get $i)))) (then unreachable))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 8))))
    (if (i32.ne (i32.load (i32.const 8)) (i32.const MARK)) (then unreachable))
    (if (i64.ne (i64.load (i32.const 0)) (i64.const 0)) (then unreachable))
    (call $look (i32.const 16) (i32.const 1310720))
    (local.set $old (memory.grow (i32.const 16)))
    (if (i32.ne (local.get $old) (i32.const 20)) (then unreachable))
    (call $look (i32.const 1310720) (i32.const 2359296))
    (drop (call $head (i32.const 0) (i32.const 8)))
    (local.set $secret (i64.load (i32.const 0)))
    (global.set $g (local.get $secret)) (global.set $f (f64.reinterpret_i64 (local.get $secret)))
    (drop (table.grow (ref.func $dirty) (i32.const 8)))
    (table.fill (i32.const 0) (ref.func $dirty) (i32.const 16))
    (local.set $i (i32.const 0))
    (loop $w
      (i64.store (local.get $i) (local.get $secret))
      (br_if $w (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const STEP))) (i32.const 2359296))))))`

// spyOf is a tenant whose image holds the four bytes of seed, and who writes at
// every so many bytes.
func spyOf(seed, step string) string {
	mark := binary.LittleEndian.Uint32([]byte(seed))
	return strings.NewReplacer("SEED", seed, "MARK", fmt.Sprint(mark), "STEP", step).Replace(spyWAT)
}

// alternations is how often two tenants follow one another in one process.
const alternations = 10_000

// spy runs two tenants of different projects after one another, again and
// again. Now and then every free slot goes; each thousandth time all slots are
// compared with their image over the whole range.
func spy(t *testing.T, rounds int) {
	tenants := [2]*Program{}
	images := [2]*Image{}
	for i, seed := range []string{"AAAA", "BBBB"} {
		tenants[i], images[i] = build(t, spyOf(seed, []string{"8", "4096"}[i]), ProgramConfig{})
	}
	for n := range rounds {
		i := n % 2
		in := start(t, tenants[i], StartConfig{Head: []byte([2]string{"secret-A", "secret-B"}[i])})
		if e := run(in); e.Kind != Done {
			t.Fatalf("run %d, tenant %d: event %d, %v", n, i, e.Kind, e.Trap)
		}
		in.Close()
		if n%1000 > 1 {
			continue
		}
		if slots, err := images[i].Audit(); err != nil || slots == 0 {
			t.Fatalf("run %d: audit of %d slots: %v", n, slots, err)
		}
		if n%2000 == 1 {
			tenants[0].Close()
			images[0].Close() // its slots go with it
			tenants[0], images[0] = build(t, spyOf("AAAA", "8"), ProgramConfig{})
		}
	}
}

func TestTenantsDoNotSeeEachOther(t *testing.T) {
	rounds := alternations
	if testing.Short() {
		rounds = 500
	}
	for _, scanning := range []bool{true, false} {
		name := map[bool]string{true: "scan", false: "remap"}[scanning]
		t.Run(name, func(t *testing.T) {
			was := cshim.Scanning()
			if scanning && !was {
				tooltest.Machine(t, "PAGEMAP_SCAN does not work on this kernel")
			}
			cshim.SetScanning(scanning)
			defer cshim.SetScanning(was)
			spy(t, rounds)
		})
	}
}
