package engine

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/selvage-edge/selvage/runtime/engine/cshim"
	"github.com/selvage-edge/selvage/runtime/tooltest"
)

// A new slot of an image has, before its guest has run, copies of the pages that
// the image's first instance wrote to: as many, and equal to the image.
func TestNewSlotsArePrefaulted(t *testing.T) {
	if !cshim.Scanning() {
		tooltest.Machine(t, "what instances write to is found by PAGEMAP_SCAN, which does not work on this kernel")
	}
	p, img := build(t, `(module
	  (import "selvage_v1" "request_head" (func $head (param i32 i32) (result i32)))
	  (memory (export "memory") 16) (data (i32.const 4096) "old")
	  (func (export "handle")
	    (if (call $head (i32.const 0) (i32.const 0)) (then
	      (i32.store (i32.const 4096) (i32.const -1)) (i32.store (i32.const 8192) (i32.const -1)) (i32.store (i32.const 500000) (i32.const -1))))))`,
		ProgramConfig{})
	own := func(in *Instance) int {
		b, ok := in.Borrow(0, 1)
		if !ok {
			t.Fatal("no memory")
		}
		defer b.Release()
		return anonymous(t, uintptr(unsafe.Pointer(unsafe.SliceData(b.Bytes()))))
	}
	first := start(t, p, StartConfig{Head: []byte("write")})
	if e := run(first); e.Kind != Done {
		t.Fatalf("%+v", e)
	}
	if n := own(first); n != 3 {
		t.Fatalf("the first has %d pages of its own, and wrote to 3", n)
	}
	first.Close()
	var held []*Instance
	for range 3 { // the first of them has the slot of before
		in := start(t, p, StartConfig{})
		if e := run(in); e.Kind != Done {
			t.Fatalf("%+v", e)
		}
		if n := own(in); n != 3 {
			t.Errorf("an instance that wrote nothing has %d pages of its own, want 3 from the start", n)
		}
		if got := bytesAt(t, in, 4096, 3); string(got) != "old" {
			t.Errorf("it has %q where the image has \"old\"", got)
		}
		held = append(held, in)
	}
	for _, in := range held {
		in.Close()
	}
	if n, err := img.Audit(); err != nil || n != 3 {
		t.Errorf("audit of %d slots: %v", n, err)
	}
}

// anonymous is how many pages the mapping around an address has of its own.
func anonymous(t *testing.T, at uintptr) int {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inside := false
	for s := bufio.NewScanner(f); s.Scan(); {
		var from, to uintptr
		if n, _ := fmt.Sscanf(s.Text(), "%x-%x ", &from, &to); n == 2 {
			inside = from <= at && at < to
		}
		if rest, ok := strings.CutPrefix(s.Text(), "Anonymous:"); ok && inside {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib / 4
		}
	}
	t.Fatal("no such mapping")
	return 0
}
