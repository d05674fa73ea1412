package engine

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/image"
)

func TestLoadFile(t *testing.T) {
	_, img := build(t, helloWAT, ProgramConfig{})
	code, _, err := image.Split(mustWasm(t, helloWAT))
	if err != nil {
		t.Fatal(err)
	}
	artifact, err := compileOnce(code)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("artifact", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "artifact")
	if _, err := f.Write(artifact); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
		t.Fatal(err)
	}
	loaded, err := eng.LoadFile(fd)
	f.Close() // mapped by now
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	q, err := eng.Program(ProgramConfig{Code: loaded, Image: img, Linker: linker(t), Entries: []string{"handle"}})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	in := start(t, q, StartConfig{})
	defer in.Close()
	if e := run(in); e.Kind != Done || string(in.Response().Body) != "hello world" {
		t.Errorf("event %d, body %q", e.Kind, in.Response().Body)
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, b := range []string{"", "not an artifact", "\x7fELF\x02\x01\x01"} {
		if _, err := eng.Load([]byte(b)); err == nil {
			t.Errorf("%q is loaded", b)
		}
	}
	if _, err := eng.LoadFile(-1); err == nil {
		t.Error("a descriptor that is not open is loaded")
	}
	if _, err := eng.Compile([]byte("no")); err == nil || !strings.Contains(err.Error(), "compile") {
		t.Errorf("compile: %v", err)
	}
}

func TestExterns(t *testing.T) {
	p, _ := build(t, `(module (import "test" "many" (func (param i32 i64 f32 f64) (result i64)))
	  (memory 1) (table (export "t") 1 funcref) (global (export "g") i32 (i32.const 1))
	  (func (export "handle")) (func (export "ref") (param funcref)))`, ProgramConfig{})
	im := p.code.Imports()
	if len(im) != 1 || im[0].Module != "test" || im[0].Name != "many" || signature(im[0].Params, im[0].Results) != "iIfF:I" {
		t.Errorf("imports %+v", im)
	}
	kinds := map[string]ExternKind{}
	for _, e := range p.code.Exports() {
		kinds[e.Name] = e.Kind
	}
	for name, kind := range map[string]ExternKind{"t": TableExtern, "g": GlobalExtern, "handle": FuncExtern, image.MemoryExport: MemoryExtern} {
		if got, ok := kinds[name]; !ok || got != kind {
			t.Errorf("export %s: %v, %v", name, got, ok)
		}
	}
	if !p.code.HasFunc("handle") || p.code.HasFunc("t") || p.code.HasFunc("none") {
		t.Error("HasFunc")
	}
}

// A snapshot holds memory, its grown size and the globals; the next program
// starts from there.
func TestSnapshot(t *testing.T) {
	const wat = `(module (memory (export "memory") 1) (global $n (mut i64) (i64.const 1)) (global $f (mut f32) (f32.const 0))
	  (data (i32.const 8) "before")
	  (func (export "_initialize") (drop (memory.grow (i32.const 2))) (i32.store8 (i32.const 150000) (i32.const 7))
	    (global.set $n (i64.const -5)) (global.set $f (f32.const 2.5)) (i32.store8 (i32.const 8) (i32.const 66)))
	  (func (export "handle") (i64.store (i32.const 0) (global.get $n)) (f32.store (i32.const 16) (global.get $f)) (i32.store8 (i32.const 20) (i32.load8_u (i32.const 150000)))))`
	p, _ := build(t, wat, ProgramConfig{Entries: []string{"_initialize"}})
	in := start(t, p, StartConfig{NoHostCalls: true})
	if _, err := in.Snapshot(); err == nil {
		t.Error("a snapshot before start-up ended")
	}
	if e := run(in); e.Kind != Done {
		t.Fatal(e.Trap)
	}
	taken, err := in.Snapshot()
	in.Close()
	if err != nil || taken.Size != 3*65536 {
		t.Fatalf("%+v, %v", taken, err)
	}
	code, _, err := image.Split(mustWasm(t, wat))
	if err != nil {
		t.Fatal(err)
	}
	q, _ := buildSplit(t, code, taken, ProgramConfig{Entries: []string{"handle"}})
	again := start(t, q, StartConfig{})
	defer again.Close()
	if e := run(again); e.Kind != Done {
		t.Fatal(e.Trap)
	}
	if got := string(bytesAt(t, again, 0, 21)); got != "\xfb\xff\xff\xff\xff\xff\xff\xffBefore\x00\x00\x00\x00\x20\x40\x07" {
		t.Errorf("%q", got)
	}
}

func TestSnapshotRefusesReferences(t *testing.T) {
	p, _ := build(t, `(module (memory 1) (global (mut funcref) (ref.null func)) (func (export "handle")))`, ProgramConfig{})
	in := start(t, p, StartConfig{})
	defer in.Close()
	run(in)
	if _, err := in.Snapshot(); err == nil || !strings.Contains(err.Error(), "reference") {
		t.Errorf("%v", err)
	}
}
