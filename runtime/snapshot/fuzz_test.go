package snapshot

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/runtime/scan"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// state is the memory and globals after entries have run on a fresh instance of
// img; nil if they did not all return.
func state(t *testing.T, s Source, img *image.Image, entries []string) []byte {
	t.Helper()
	prepared, err := s.Engine.Image(img)
	if err != nil {
		t.Fatal(err)
	}
	defer prepared.Close()
	p, err := s.Engine.Program(engine.ProgramConfig{Code: s.Code, Image: prepared, Linker: s.Linker, Entries: entries})
	if err != nil {
		return nil // the memory of the code is another
	}
	defer p.Close()
	in, err := p.Start(engine.StartConfig{MemoryLimit: small.MemoryBytes, NoHostCalls: true})
	if err != nil {
		return nil
	}
	defer in.Close()
	for range 50 {
		switch in.Poll().Kind {
		case engine.Yield:
		case engine.Done:
			end, err := in.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			return end.Encode()
		default:
			return nil
		}
	}
	return nil
}

// FuzzTake has start-up of any module run ahead: it fails for a reason that is
// the guest's, or requests end in the same memory and globals as with start-up
// before each.
func FuzzTake(f *testing.F) {
	for _, fields := range []string{
		`(func (export "_initialize") (i32.store (i32.const 8) (i32.const 9))) (func (export "handle") (i32.store (i32.const 12) (i32.load (i32.const 8))))`,
		`(global $g (mut i64) (i64.const 3)) (start $s) (func $s (global.set $g (i64.const 4))) (func (export "handle") (i64.store (i32.const 0) (global.get $g)))`,
		`(func (export "selvage_start") (drop (memory.grow (i32.const 1)))) (func (export "handle") (i32.store (i32.const 70000) (memory.size)))`,
		`(table 1 funcref) (elem (i32.const 0) $f) (func $f) (func (export "_initialize") (call_indirect (i32.const 0))) (func (export "handle") (call_indirect (i32.const 0)))`,
		`(data $d "abc") (func (export "selvage_start") (memory.init $d (i32.const 1) (i32.const 0) (i32.const 3))) (func (export "handle"))`,
		`(data $d "abc") (func (export "selvage_start") (data.drop $d)) (func (export "handle") (memory.init $d (i32.const 1) (i32.const 0) (i32.const 3)))`,
		`(global $v (mut v128) (v128.const i32x4 1 2 3 4)) (func (export "_initialize")) (func (export "handle"))`,
		`(func (export "_initialize") unreachable) (func (export "handle"))`,
		`(func (export "_initialize") (loop $l (br $l))) (func (export "handle"))`,
	} {
		f.Add(guesttest.Module(f, `(module (memory (export "memory") 1) `+fields+`)`))
	}
	e := guesttest.Engine(f)
	linker, err := e.Link(guest.Imports())
	if err != nil {
		f.Fatal(err)
	}
	quick := Limits{CPU: 20 * time.Millisecond, Wall: 10 * time.Second, MemoryBytes: small.MemoryBytes, LogBytes: 1}
	f.Fuzz(func(t *testing.T, m []byte) {
		if _, err := scan.Module(m, nil); err != nil || len(m) > 1<<20 {
			return
		}
		code, img, err := image.Split(m)
		if err != nil || e.Validate(m) != nil {
			return
		}
		artifact, err := e.Compile(code)
		if err != nil {
			t.Fatal(err)
		}
		c, err := e.Load(artifact)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s := Source{Engine: e, Linker: linker, Module: code, Code: c, Image: img}
		r, err := Take(s, quick)
		switch {
		case errors.Is(err, ErrInexact), errors.Is(err, ErrTime), errors.Is(err, ErrMemory), errors.Is(err, ErrFailed):
			return
		case err != nil:
			if state(t, s, img, nil) == nil {
				return // it cannot be instantiated either
			}
			t.Fatal(err)
		}
		without := state(t, s, img, append(Entries(c), abi.ExportHandle))
		with := state(t, s, r.Image, []string{abi.ExportHandle})
		if (without == nil) != (with == nil) || !bytes.Equal(without, with) {
			t.Fatalf("state without a snapshot %d bytes, with one %d; they differ", len(without), len(with))
		}
	})
}
