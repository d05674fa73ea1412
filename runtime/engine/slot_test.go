package engine

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/selvage-edge/selvage/runtime/engine/cshim"
	"github.com/selvage-edge/selvage/runtime/image"
)

// hostileWAT does to its memory what its request says, in one byte:
// d dirties some pages, f fills everything, g grows by 40 MiB and fills that,
// t grows, fills and traps, w dirties and waits, o dirties every other page.
const hostileWAT = `(module
  (import "selvage_v1" "request_head" (func $head (param i32 i32) (result i32)))
  (import "test" "wait" (func $wait (param i32) (result i32)))
  (memory (export "memory") 20)
  (global $g (mut i32) (i32.const 5))
  (data (i32.const 8192) "the image's own bytes")
  (data (i32.const 1245184) "and some more")
  (func $grow
    (local $old i32)
    (local.set $old (memory.grow (i32.const 640)))
    (if (i32.eq (local.get $old) (i32.const -1)) (then unreachable))
    (memory.fill (i32.mul (local.get $old) (i32.const 65536)) (i32.const 0xc3) (i32.const 41943040)))
  (func $step (param $by i32)
    (local $p i32)
    (loop $l
      (i32.store8 (local.get $p) (i32.const 0xc3))
      (local.set $p (i32.add (local.get $p) (local.get $by)))
      (br_if $l (i32.lt_u (local.get $p) (i32.const 1310720)))))
  (func (export "handle") (local $c i32)
    (drop (call $head (i32.const 0) (i32.const 1)))
    (local.set $c (i32.load8_u (i32.const 0)))
    (global.set $g (i32.const 0xc3c3c3c3))
    (if (i32.eq (local.get $c) (i32.const 100)) (then (call $step (i32.const 300000))))
    (if (i32.eq (local.get $c) (i32.const 111)) (then (call $step (i32.const 8192))))
    (if (i32.eq (local.get $c) (i32.const 102)) (then (memory.fill (i32.const 0) (i32.const 0xc3) (i32.const 1310720))))
    (if (i32.eq (local.get $c) (i32.const 103)) (then (call $grow)))
    (if (i32.eq (local.get $c) (i32.const 116)) (then (call $grow) unreachable))
    (if (i32.eq (local.get $c) (i32.const 119)) (then (call $step (i32.const 4096)) (drop (call $wait (i32.const 0)))))))`

// hostileRuns uses slots in every way and then compares them with their image.
func hostileRuns(p *Program, img *Image) error {
	for round := range 8 {
		var together []*Instance
		for _, verb := range "dfgtwo" {
			in, err := p.Start(StartConfig{Head: []byte(string(verb)), MemoryLimit: memoryLimit})
			if err != nil {
				return err
			}
			together = append(together, in)
			want := map[rune]EventKind{'t': Failed, 'w': Call}[verb]
			if want == 0 {
				want = Done
			}
			if e := run(in); e.Kind != want {
				return fmt.Errorf("%c: event %d, trap %v", verb, e.Kind, e.Trap)
			}
			if round%2 == 0 { // one slot again and again; else six at once
				in.Close()
			}
		}
		for _, in := range together {
			in.Close()
		}
		n, err := img.Audit()
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if n == 0 {
			return fmt.Errorf("round %d: no slot to compare", round)
		}
	}
	return nil
}

func TestSlotsEqualTheirImage(t *testing.T) {
	p, img := build(t, hostileWAT, ProgramConfig{})
	if !cshim.Scanning() {
		t.Log("PAGEMAP_SCAN does not work on this kernel: only the fallback is tested")
	}
	before := eng.Stats()
	if err := hostileRuns(p, img); err != nil {
		t.Error(err)
	}
	after := eng.Stats()
	if after.Scanning && (after.Resets == before.Resets || after.Remaps != before.Remaps) {
		t.Errorf("scanning: %d resets and %d remaps", after.Resets-before.Resets, after.Remaps-before.Remaps)
	}
	if after.SlotsRetired != 0 {
		t.Errorf("%d slots retired", after.SlotsRetired)
	}
}

func TestSlotsEqualTheirImageWithoutScan(t *testing.T) {
	was := cshim.Scanning()
	cshim.SetScanning(false)
	defer cshim.SetScanning(was)
	p, img := build(t, hostileWAT, ProgramConfig{})
	before := eng.Stats()
	if err := hostileRuns(p, img); err != nil {
		t.Error(err)
	}
	if after := eng.Stats(); after.Remaps == before.Remaps || after.Resets != before.Resets {
		t.Errorf("%d resets and %d remaps", after.Resets-before.Resets, after.Remaps-before.Remaps)
	}
}

// A slot with a lot to copy back is mapped anew, and keeps nothing resident.
func TestLargeResetRemaps(t *testing.T) {
	p, img := build(t, `(module (memory (export "memory") 128) (data (i32.const 70000) "x")
	  (func (export "handle") (memory.fill (i32.const 0) (i32.const 1) (i32.const 8388608))))`, ProgramConfig{})
	before := eng.Stats()
	in := start(t, p, StartConfig{})
	if e := run(in); e.Kind != Done {
		t.Fatal(e.Trap)
	}
	in.Close()
	after := eng.Stats()
	if after.Scanning && after.Remaps != before.Remaps+1 {
		t.Errorf("%d remaps", after.Remaps-before.Remaps)
	}
	if after.ResidentBytes > before.ResidentBytes {
		t.Errorf("%d bytes kept", after.ResidentBytes-before.ResidentBytes)
	}
	if _, err := img.Audit(); err != nil {
		t.Error(err)
	}
}

// The pages of an image stay as they are when many write to them at once.
func TestImageIsNeverWritten(t *testing.T) {
	p, img := build(t, hostileWAT, ProgramConfig{})
	in := start(t, p, StartConfig{Head: []byte("f")})
	run(in)
	other := start(t, p, StartConfig{Head: []byte("w")})
	if e := run(other); e.Kind != Call {
		t.Fatal(e.Trap)
	}
	b, ok := other.Borrow(8193, 20)
	if !ok || string(b.Bytes()) != "he image's own bytes" {
		t.Errorf("another instance sees %q", b.Bytes())
	}
	b.Release()
	in.Close()
	other.Close()
	if _, err := img.Audit(); err != nil {
		t.Error(err)
	}
}

func TestGlobalsComeFromTheImage(t *testing.T) {
	wat := `(module (memory (export "memory") 1)
	  (global $a (mut i32) (i32.const 7)) (global $b (mut i64) (i64.const -9)) (global $c (mut f32) (f32.const 1.5)) (global $d (mut f64) (f64.const -2.5))
	  (func (export "handle")
	    (i32.store (i32.const 0) (global.get $a)) (i64.store (i32.const 8) (global.get $b))
	    (f32.store (i32.const 16) (global.get $c)) (f64.store (i32.const 24) (global.get $d))
	    (global.set $a (i32.const 1)) (global.set $b (i64.const 1)) (global.set $c (f32.const 1)) (global.set $d (f64.const 1))))`
	p, _ := build(t, wat, ProgramConfig{})
	var first string
	for range 2 {
		in := start(t, p, StartConfig{})
		if e := run(in); e.Kind != Done {
			t.Fatal(e.Trap)
		}
		b, _ := in.Borrow(0, 32)
		got := fmt.Sprintf("%x", b.Bytes())
		b.Release()
		in.Close()
		if first == "" {
			first = got
		}
		if want := "0700000000000000f7ffffffffffffff0000c03f0000000000000000000004c0"; got != want {
			t.Errorf("globals %s, want %s", got, want)
		}
	}
}

func TestImageOfOtherCode(t *testing.T) {
	p, big := build(t, `(module (memory (export "memory") 5) (global (mut i32) (i32.const 3)) (func (export "handle")))`, ProgramConfig{})
	c := ProgramConfig{Code: p.code, Linker: linker(t), Entries: []string{"handle"}}
	none, err := eng.Image(&image.Image{Size: 1 << 20, Globals: []image.Global{{Index: 9, Type: 0x7f, Bits: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	c.Image = none
	if _, err := eng.Program(c); err == nil || !strings.Contains(err.Error(), "belong") {
		t.Errorf("an image with another code's globals: %v", err)
	}
	small, err := eng.Image(&image.Image{Size: 65536})
	if err != nil {
		t.Fatal(err)
	}
	c.Image = small
	limited, _ := build(t, `(module (memory (export "memory") 0 0) (func (export "handle")))`, ProgramConfig{})
	c.Code = limited.code
	if _, err := eng.Program(c); err == nil || !strings.Contains(err.Error(), "belong") {
		t.Errorf("an image over the code's maximum: %v", err)
	}
	small.Close()
	if _, err := eng.Program(c); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("a closed image: %v", err)
	}
	c.Code = p.code
	c.Image, c.Entries = big, []string{"missing"}
	if _, err := eng.Program(c); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a missing entry: %v", err)
	}
}

// child runs the test binary again with an engine of its own.
func child(t *testing.T, name string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SELVAGE_TEST_CHILD="+name)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func TestSlotsUnderMlockall(t *testing.T) {
	if out := child(t, "mlockall"); strings.Contains(out, "skip") {
		t.Skip(out)
	}
}

// Under mlockall pages cannot be dropped by madvise; the bytes would stay.
func mlockallChild(t testing.TB) error {
	if err := syscall.Mlockall(1 | 2); err != nil { // MCL_CURRENT, MCL_FUTURE
		fmt.Println("skip: mlockall:", err)
		return nil
	}
	p, img := build(t, hostileWAT, ProgramConfig{})
	return hostileRuns(p, img)
}
