package compile

import (
	"bytes"
	"errors"
	"testing"

	"github.com/bytecodealliance/wasmtime-go/v39"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/runtime/scan"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// ending is how one run of a module's start section and handle ended.
type ending struct {
	cut    bool   // not comparable: out of time, out of stack, refused to begin
	failed bool   // it trapped
	memory []byte // of a run that did not
}

const (
	fuzzMemory = 4 << 20 // bytes that a module may grow to, in both runs
	fuzzFuel   = 200_000 // instructions of the run that counts them
	fuzzYields = 50      // ticks of the run that does not
)

// whole runs the module as it is, in an engine of its own.
func whole(t *testing.T, e *wasmtime.Engine, m *wasmtime.Module) (end ending) {
	store := wasmtime.NewStore(e)
	defer store.Close()
	store.Limiter(fuzzMemory, scan.MaxElements, 1, 1, 1)
	if err := store.SetFuel(fuzzFuel); err != nil {
		t.Fatal(err)
	}
	in, err := wasmtime.NewInstance(store, m, nil)
	if err == nil {
		_, err = in.GetFunc(store, abi.ExportHandle).Call(store)
	}
	if err != nil {
		var trap *wasmtime.Trap
		if !errors.As(err, &trap) || trap.Code() == nil {
			return ending{cut: true}
		}
		code := *trap.Code()
		return ending{failed: true, cut: code == wasmtime.OutOfFuel || code == wasmtime.StackOverflow}
	}
	memory := in.GetExport(store, abi.ExportMemory).Memory()
	return ending{memory: bytes.Clone(memory.UnsafeData(store))}
}

// halves runs what Split made of it, as a node does.
func halves(t *testing.T, e *engine.Engine, artifact []byte, img *image.Image) ending {
	c, err := e.Load(artifact)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m, err := e.Image(img)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	l, err := e.Link(guest.Imports())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var entries []string
	for _, name := range []string{image.StartExport, abi.ExportHandle} {
		if c.HasFunc(name) {
			entries = append(entries, name)
		}
	}
	p, err := e.Program(engine.ProgramConfig{Code: c, Image: m, Linker: l, Entries: entries})
	if err != nil {
		return ending{cut: true}
	}
	defer p.Close()
	in, err := p.Start(engine.StartConfig{MemoryLimit: fuzzMemory})
	if err != nil {
		return ending{cut: true}
	}
	defer in.Close()
	for range fuzzYields {
		switch ev := in.Poll(); ev.Kind {
		case engine.Yield:
			continue
		case engine.Done:
			b, ok := in.Borrow(0, uint32(in.Usage().MemoryBytes))
			if !ok {
				t.Fatalf("a memory of %d bytes cannot be read", in.Usage().MemoryBytes)
			}
			defer b.Release()
			return ending{memory: bytes.Clone(b.Bytes())}
		case engine.Failed:
			return ending{failed: true, cut: ev.Trap.Code == engine.TrapStack || ev.Trap.Code == engine.TrapStart}
		default:
			t.Fatalf("a module without imports calls the host: %+v", ev)
		}
	}
	return ending{cut: true}
}

// FuzzModule takes what the scan takes to the engine: of a valid module the code
// is valid too, and the code on its image ends as the module does, with the
// same memory.
func FuzzModule(f *testing.F) {
	for _, fields := range []string{
		`(func (export "handle"))`,
		`(data (i32.const 9) "abc") (data "passive") (func (export "handle") (memory.init 1 (i32.const 0) (i32.const 1) (i32.const 3)) (data.drop 1))`,
		`(data (i32.const 9) "abc") (func (export "handle") (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 1)))`,
		`(data (i32.const 5) "aaaa") (data (i32.const 6) "\00b") (func (export "handle") (i32.store (i32.const 20) (i32.load (i32.const 5))))`,
		`(global $g (mut i64) (i64.const -7)) (data (i32.mul (i32.const 5) (i32.const 4)) "xyz") (func $s (global.set $g (i64.add (global.get $g) (i64.const 1)))) (start $s)
		  (func (export "handle") (i64.store (i32.const 0) (global.get $g)))`,
		`(global $f (mut f32) (f32.const 1.5)) (global $d (mut f64) (f64.const -2.5)) (global $v (mut v128) (v128.const i32x4 1 2 3 4))
		  (func (export "handle") (f32.store (i32.const 0) (global.get $f)) (f64.store (i32.const 8) (global.get $d)) (v128.store (i32.const 16) (global.get $v)))`,
		`(table 4 funcref) (elem (i32.const 1) $one) (type $t (func (result i32))) (func $one (type $t) (memory.grow (i32.const 2)))
		  (func (export "handle") (i32.store8 (i32.const 65535) (call_indirect (type $t) (i32.const 1))) (i32.store (i32.const 100) (memory.size)))`,
		`(func (export "handle") (loop $l (br $l)))`,
		`(func (export "handle") (i32.store (i32.const 65533) (i32.const 1)))`,
	} {
		f.Add(guesttest.Module(f, `(module (memory (export "memory") 1) `+fields+`)`))
	}
	own := guesttest.Engine(f)
	config := wasmtime.NewConfig()
	config.SetConsumeFuel(true)
	config.SetWasmRelaxedSIMD(false)
	reference := wasmtime.NewEngineWithConfig(config)
	f.Fuzz(func(t *testing.T, m []byte) {
		compare(t, own, reference, m)
	})
}

// compare reports whether the module came as far as two memories to compare.
func compare(t *testing.T, own *engine.Engine, reference *wasmtime.Engine, m []byte) bool {
	r, err := Scan(m)
	if err != nil || len(r.Imports) > 0 || len(m) > 1<<20 {
		return false
	}
	code, img, err := image.Split(m)
	if err != nil {
		return false // a segment outside: the module would trap
	}
	if own.Validate(m) != nil {
		own.Compile(code) // prepare does not come this far; a node would refuse it or not, but live
		return false
	}
	artifact, err := own.Compile(code)
	if err != nil {
		t.Fatalf("the module is valid, its code is not: %v", err)
	}
	module, err := wasmtime.NewModule(reference, m)
	if err != nil {
		t.Fatalf("another engine of the same features refuses it: %v", err)
	}
	defer module.Close()
	a, b := whole(t, reference, module), halves(t, own, artifact, img)
	if a.cut || b.cut {
		return false
	}
	if a.failed != b.failed {
		t.Fatalf("the module trapped: %t; its halves: %t", a.failed, b.failed)
	}
	if !bytes.Equal(a.memory, b.memory) {
		t.Fatalf("memories of %d and %d bytes differ at %d", len(a.memory), len(b.memory), firstDifference(a.memory, b.memory))
	}
	return true
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
