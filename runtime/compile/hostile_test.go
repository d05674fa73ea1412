package compile

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/runtime/jail"
	"github.com/selvage-edge/selvage/runtime/scan"
	wasm "github.com/selvage-edge/selvage/runtime/scan/scantest"
)

// text is a module around fields, with the memory and the handle that the
// platform wants; the handle's code is body.
func text(t *testing.T, fields, body string) []byte {
	t.Helper()
	return guesttest.Module(t, `(module (memory (export "memory") 1) `+fields+` (func (export "handle") `+body+`))`)
}

// The proposals that are on, one small module each: it goes through a helper
// and runs.
func TestProposalsTaken(t *testing.T) {
	r, e := openJail(t, jail.Config{}), guesttest.Engine(t)
	for name, m := range map[string][]byte{
		"sign extension":       text(t, "", `(if (i32.ne (i32.extend8_s (i32.const 255)) (i32.const -1)) (then unreachable))`),
		"saturating":           text(t, "", `(if (i32.ne (i32.trunc_sat_f32_s (f32.const 1e30)) (i32.const 2147483647)) (then unreachable))`),
		"several values":       text(t, `(func $two (result i32 i32) (i32.const 2) (i32.const 3))`, `(if (i32.ne (i32.sub (call $two)) (i32.const -1)) (then unreachable))`),
		"mutable globals":      text(t, `(global $g (export "g") (mut i32) (i32.const 5))`, `(if (i32.ne (global.get $g) (i32.const 5)) (then unreachable))`),
		"bulk memory":          text(t, `(data $d "xyz")`, `(memory.init $d (i32.const 0) (i32.const 0) (i32.const 3)) (data.drop $d) (memory.fill (i32.const 3) (i32.const 1) (i32.const 9))`),
		"references":           text(t, `(table 3 funcref)`, `(if (i32.ne (table.grow (ref.null func) (i32.const 2)) (i32.const 3)) (then unreachable))`),
		"vectors":              text(t, "", `(if (i32.ne (i32x4.extract_lane 1 (i32x4.add (v128.const i32x4 1 2 3 4) (v128.const i32x4 1 2 3 4))) (i32.const 4)) (then unreachable))`),
		"extended constants":   text(t, `(global $g i32 (i32.mul (i32.const 6) (i32.add (i32.const 3) (i32.const 4))))`, `(if (i32.ne (global.get $g) (i32.const 42)) (then unreachable))`),
		"branch hints":         append(wasm.Handle(), wasm.Custom("metadata.code.branch_hint", []byte{0})...),
		"what tools say of it": append(wasm.Handle(), wasm.Custom("target_features", wasm.Vec(wasm.Join([]byte{'+'}, wasm.Name("atomics"))))...),
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Prepare(t.Context(), r, m, function.SnapshotAuto)
			if err != nil {
				t.Fatal(err)
			}
			img, err := image.Decode(p.Image, image.MaxSize)
			if err != nil {
				t.Fatal(err)
			}
			artifact, err := e.Compile(p.Code)
			if err != nil {
				t.Fatal(err)
			}
			handleOnce(t, e, artifact, img)
		})
	}
}

// The proposals that are off, one small module each: whoever deploys it reads
// which it is, and the engine would not have taken it either.
func TestProposalsRefused(t *testing.T) {
	r, e := openJail(t, jail.Config{}), guesttest.Engine(t)
	section := func(id byte, body []byte) []byte {
		all := map[byte][]byte{1: wasm.Types, 3: wasm.Funcs, 5: wasm.Memory, 7: wasm.Exports, 10: wasm.Section(10, wasm.Vec(wasm.Body()))}
		all[id] = wasm.Section(id, body)
		var m [][]byte
		for _, i := range []byte{1, 2, 3, 4, 5, 13, 6, 7, 9, 10} {
			m = append(m, all[i])
		}
		return wasm.Module(m...)
	}
	aType := func(b ...byte) []byte { return section(1, wasm.Vec(wasm.Type(nil, nil), b)) }
	withLocal := func(valtype byte) []byte {
		return section(10, wasm.Vec(wasm.Sized([]byte{1, 1, valtype, 0x0b})))
	}
	for name, c := range map[string]struct {
		module []byte
		text   string
	}{
		"atomics":            {text(t, "", `(drop (i32.atomic.load (i32.const 0)))`), "threads"},
		"shared memory":      {guesttest.Module(t, `(module (memory (export "memory") 1 1 shared) (func (export "handle")))`), "threads"},
		"shared globals":     {section(6, wasm.Vec([]byte{0x7f, 3, 0x41, 0, 0x0b})), "threads"},
		"shared tables":      {section(4, wasm.Vec([]byte{0x70, 3, 1, 1})), "threads"},
		"memory64":           {guesttest.Module(t, `(module (memory (export "memory") i64 1) (func (export "handle")))`), "64-bit"},
		"table64":            {text(t, `(table i64 1 funcref)`, ""), "64-bit"},
		"custom page sizes":  {section(5, wasm.Vec([]byte{8, 1, 0})), "page sizes"},
		"two memories":       {text(t, `(memory 1)`, ""), "it has 2 memories; at most 1"},
		"another memory":     {wasm.Handle(0x41, 0, 0x28, 0x42, 1, 0, 0x1a), "several memories"},
		"two tables":         {text(t, `(table 1 funcref) (table 1 funcref)`, ""), "it has 2 tables; at most 1"},
		"tail call":          {text(t, `(func $f)`, `(return_call $f)`), "tail calls"},
		"tail call by table": {text(t, `(table 1 funcref) (type $v (func))`, `(return_call_indirect (type $v) (i32.const 0))`), "tail calls"},
		"struct":             {text(t, `(type (struct))`, ""), "garbage"},
		"array":              {text(t, `(type (array i32))`, ""), "garbage"},
		"recursive types":    {text(t, `(rec (type (func)) (type (func)))`, ""), "garbage"},
		"subtypes":           {aType(0x50, 0, 0x60, 0, 0), "garbage"},
		"i31":                {text(t, "", `(drop (ref.i31 (i32.const 1)))`), "garbage"},
		"anyref":             {withLocal(0x6e), "references"},
		"reference equality": {wasm.Handle(0xd0, 0x70, 0xd0, 0x70, 0xd3, 0x1a), "garbage"},
		"tag":                {text(t, `(tag)`, ""), "exceptions"},
		"imported tag":       {section(2, wasm.Vec(wasm.Join(wasm.Name("m"), wasm.Name("t"), []byte{4, 0, 0}))), "exceptions"},
		"exported tag":       {section(7, wasm.Vec(wasm.Export("t", 4, 0))), "exceptions"},
		"throw_ref":          {wasm.Handle(0x0a), "exceptions"},
		"try_table":          {wasm.Handle(0x1f, 0x40, 0, 0x0b), "exceptions"},
		"try of the old kind": {wasm.Handle(0x06, 0x40, 0x0b),
			"exceptions"},
		"exnref":                {withLocal(0x69), "references"},
		"typed reference":       {text(t, `(type $v (func)) (func (param (ref null $v)))`, ""), "function-references"},
		"call_ref":              {wasm.Handle(0xd2, 0, 0x14, 0), "references"},
		"return_call_ref":       {wasm.Handle(0xd2, 0, 0x15, 0), "references"},
		"br_on_null":            {wasm.Handle(0xd0, 0x70, 0xd5, 0, 0x1a), "references"},
		"table that is filled":  {section(4, wasm.Vec([]byte{0x40, 0, 0x70, 0, 1, 0xd0, 0x70, 0x0b})), "initial value"},
		"continuations":         {aType(0x5d, 0), "stack switching"},
		"suspend":               {wasm.Handle(0xe2, 0), "stack switching"},
		"wide arithmetic":       {text(t, "", `(i64.add128 (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0)) drop drop`), "wide arithmetic"},
		"memory control":        {wasm.Handle(0x41, 0, 0x41, 0, 0xfc, 18, 0), "memory.discard"},
		"relaxed vectors":       {text(t, "", `(drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0)))`), "relaxed vector"},
		"half-precision floats": {wasm.Handle(0x43, 0, 0, 0, 0, 0xfd, 0xa0, 2, 0x1a), "half-precision"},
		"component":             {guesttest.Module(t, `(component)`), "component"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Scan(c.module); err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("scan: %v; want a refusal with %q", err, c.text)
			}
			var refused *jail.Refused
			if _, err := Prepare(t.Context(), r, c.module, function.SnapshotAuto); !errors.As(err, &refused) || !strings.Contains(refused.Reason, c.text) {
				t.Errorf("deploy: %v; want a refusal with %q", err, c.text)
			}
			if _, err := e.Compile(c.module); err == nil && !ours[name] {
				t.Error("the engine takes it")
			}
		})
	}
}

// ours are limits of the platform, not of the engine.
var ours = map[string]bool{"two tables": true}

// Modules that go up to a limit and not over it may cost a helper much, but
// end in an answer: taken, refused, out of time, out of memory. No helper dies.
func TestAtTheLimits(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles what is slow to compile")
	}
	r := openJail(t, jail.Config{})
	locals := wasm.Join(wasm.U(1), wasm.U(scan.MaxLocals), []byte{0x7b})
	constant := append(bytes.Repeat([]byte{0x41, 1}, scan.MaxConstant/2), bytes.Repeat([]byte{0x6a}, scan.MaxConstant/2-1)...)
	params := bytes.Repeat([]byte{0x7e}, scan.MaxParams)
	for name, m := range map[string][]byte{
		"functions": wasm.WithFunctions(scan.MaxFunctions-1, wasm.Body()),
		"locals":    wasm.WithFunctions(100, wasm.Sized(wasm.Join(locals, []byte{0x0b}))),
		"nesting":   wasm.WithFunctions(100, wasm.Body(wasm.Nested(scan.MaxNesting-1)...)),
		"br_table": wasm.WithFunctions(60, wasm.Body(wasm.Join([]byte{0x02, 0x40, 0x41, 0, 0x0e},
			wasm.Repeat(scan.MaxBranchTable, []byte{0}), []byte{0, 0x0b})...)),
		"one body": wasm.Handle(bytes.Repeat([]byte{0x41, 0, 0x1a}, (scan.MaxBody-8)/3)...),
		"globals": wasm.Module(wasm.Types, wasm.Funcs, wasm.Memory,
			wasm.Section(6, wasm.Repeat(scan.MaxGlobals, wasm.Join([]byte{0x7f, 0}, constant, []byte{0x0b}))),
			wasm.Exports, wasm.Section(10, wasm.Vec(wasm.Body()))),
		"elements": wasm.Module(wasm.Types, wasm.Funcs, wasm.Section(4, wasm.Vec(wasm.Join([]byte{0x70, 0}, wasm.U(scan.MaxElements)))), wasm.Memory, wasm.Exports,
			wasm.Section(9, wasm.Repeat(scan.MaxElements, []byte{0, 0x41, 0, 0x0b, 1, 0})), wasm.Section(10, wasm.Vec(wasm.Body()))),
		"segments": wasm.Module(wasm.Types, wasm.Funcs, wasm.Memory, wasm.Exports, wasm.Section(10, wasm.Vec(wasm.Body())),
			wasm.Section(11, wasm.Repeat(scan.MaxSegments, []byte{0, 0x41, 9, 0x0b, 1, 'x'}))),
		"types": wasm.Module(wasm.Section(1, wasm.Join(wasm.U(1+scan.MaxTypes-1), wasm.Type(nil, nil), bytes.Repeat(wasm.Type(params, params[:10]), scan.MaxTypes-1))),
			wasm.Funcs, wasm.Memory, wasm.Exports, wasm.Section(10, wasm.Vec(wasm.Body()))),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Scan(m); err != nil {
				t.Fatalf("it is over a limit: %v", err)
			}
			_, err := Prepare(t.Context(), r, m, function.SnapshotAuto)
			var refused *jail.Refused
			if err != nil && !errors.As(err, &refused) && !errors.Is(err, jail.ErrTime) && !errors.Is(err, jail.ErrMemory) {
				t.Errorf("%v", err)
			}
			t.Logf("%d bytes: %v", len(m), err)
		})
	}
}
