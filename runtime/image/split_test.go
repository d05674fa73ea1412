package image

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/bytecodealliance/wasmtime-go/v39"
)

func module_(t testing.TB, wat string) []byte {
	t.Helper()
	b, err := wasmtime.Wat2Wasm(wat)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func split(t testing.TB, wat string) ([]byte, *Image) {
	t.Helper()
	code, img, err := Split(module_(t, wat))
	if err != nil {
		t.Fatalf("%v\n%s", err, wat)
	}
	return code, img
}

// flat is an image's memory, as text of its nonzero stretches: "offset:bytes ...".
func flat(img *Image) string {
	var parts []string
	for _, r := range img.Runs {
		parts = append(parts, fmt.Sprintf("%d:%s", r.Offset, r.Data))
	}
	return strings.Join(parts, " ")
}

func TestSplitData(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"none", ``, ""},
		{"one", `(data (i32.const 5) "abc")`, "5:abc"},
		{"at the very end", `(data (i32.const 65533) "abc")`, "65533:abc"},
		{"empty at the end", `(data (i32.const 65536) "")`, ""},
		{"far apart", `(data (i32.const 60000) "b") (data (i32.const 5) "a")`, "5:a 60000:b"},
		{"joined", `(data (i32.const 5) "a") (data (i32.const 8) "b")`, "5:a\x00\x00b"},
		{"zeroes are nothing", `(data (i32.const 5) "\00\00a\00\00") (data (i32.const 100) "\00\00")`, "7:a"},
		{"the later wins", `(data (i32.const 5) "aaaa") (data (i32.const 6) "bb")`, "5:abba"},
		{"the later wins, earlier in place", `(data (i32.const 6) "bbbb") (data (i32.const 4) "aaa")`, "4:aaabbb"},
		{"three deep", `(data (i32.const 0) "aaaaaaaaa") (data (i32.const 1) "bbbbbb") (data (i32.const 2) "cc") (data (i32.const 8) "d")`, "0:abccbbbad"},
		{"zeroes on top", `(data (i32.const 5) "aaaa") (data (i32.const 6) "\00\00")`, "5:a\x00\x00a"},
		{"passive stays out", `(data "xyz") (data (i32.const 5) "a")`, "5:a"},
		{"a constant global", `(global $g i32 (i32.const 9)) (data (global.get $g) "a")`, "9:a"},
		{"arithmetic", `(global $g i32 (i32.const 9)) (data (i32.add (global.get $g) (i32.mul (i32.const 3) (i32.const 5))) "a")`, "24:a"},
		{"wraps", `(data (i32.add (i32.const -1) (i32.const 11)) "a")`, "10:a"},
	} {
		_, img := split(t, `(module (memory 1) `+c.body+`)`)
		if got := flat(img); got != c.want || img.Size != PageSize {
			t.Errorf("%s: %q in %d bytes, want %q", c.name, got, img.Size, c.want)
		}
	}
}

func TestSplitRefuses(t *testing.T) {
	for _, c := range []struct{ name, wat, want string }{
		{"out of bounds", `(module (memory 1) (data (i32.const 0) "ok") (data (i32.const 65534) "abc"))`, "data segment 1: 3 bytes at 65534"},
		{"negative", `(module (memory 1) (data (i32.const -1) "a"))`, "data segment 0: 1 bytes at 4294967295"},
		{"empty out of bounds", `(module (memory 1) (data (i32.const 65537) ""))`, "data segment 0"},
		{"no memory at all", `(module (memory 0) (data (i32.const 0) "a"))`, "data segment 0"},
		{"too large", `(module (memory 16385))`, "16385 pages"},
		{"reserved name", `(module (func (export "selvage:start")))`, "platform's"},
		{"shared", `(module (memory 1 2 shared))`, "not supported"},
		{"64-bit", `(module (memory i64 1))`, "not supported"},
		{"two memories", `(module (memory 1) (memory 1))`, "one is supported"},
		{"typed reference", `(module (type (func)) (global (mut (ref null 0)) (ref.null 0)))`, "not supported"},
	} {
		_, _, err := Split(module_(t, c.wat))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, garbage := range []string{"", "\x00asm", "\x00asm\x0d\x00\x01\x00", "\x7fELF\x01\x00\x00\x00", string(magic) + "\x05", string(magic) + "\x05\xff\xff\xff\xff\x0f",
		string(magic) + "\x05\x01\x00\x05\x01\x00", string(magic) + "\x06\x05\xff\xff\xff\xff\x0f", string(magic) + "\x0b\x05\xff\xff\xff\xff\x0f"} {
		if _, _, err := Split([]byte(garbage)); err == nil {
			t.Errorf("%q is accepted", garbage)
		}
	}
}

func parsed(t testing.TB, code []byte) *module {
	t.Helper()
	m, err := parse(code)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Once a segment's place cannot be computed, it and all after it stay.
func TestSplitStopsAtTheUnknown(t *testing.T) {
	code, img := split(t, `(module (import "m" "g" (global $g i32)) (memory 1)
	  (data (i32.const 1) "a") (data (global.get $g) "b") (data (i32.const 1) "c") (func (data.drop 1)))`)
	if flat(img) != "1:a" {
		t.Errorf("image %q", flat(img))
	}
	segments, err := parsed(t, code).readData()
	if err != nil || len(segments) != 3 || segments[0].active || !segments[1].active || string(segments[2].data) != "c" {
		t.Errorf("%+v, %v", segments, err)
	}
}

func TestSplitKeepsIndexesThatCodeUses(t *testing.T) {
	code, img := split(t, `(module (memory 1) (data (i32.const 1) "a") (data "passive") (data (i32.const 3) "b")
	  (func (memory.init 1 (i32.const 0) (i32.const 0) (i32.const 7))))`)
	segments, err := parsed(t, code).readData()
	if err != nil || len(segments) != 3 {
		t.Fatalf("%+v, %v", segments, err)
	}
	for i, want := range []string{"", "passive", ""} {
		if segments[i].active || string(segments[i].data) != want {
			t.Errorf("segment %d: %+v", i, segments[i])
		}
	}
	if flat(img) != "1:a\x00b" {
		t.Errorf("image %q", flat(img))
	}
	// Without a data count section nothing can name a segment: they go.
	code, _ = split(t, `(module (memory 1) (data (i32.const 1) "a") (data (i32.const 300) "b"))`)
	if segments, _ := parsed(t, code).readData(); len(segments) != 0 {
		t.Errorf("%d segments stay", len(segments))
	}
}

func TestSplitDataForAnImportedMemory(t *testing.T) {
	code, img := split(t, `(module (import "m" "mem" (memory 1)) (data (i32.const 99999) "a"))`)
	if segments, _ := parsed(t, code).readData(); len(segments) != 1 || !segments[0].active || img.Size != 0 || len(img.Runs) != 0 {
		t.Errorf("%d segments, image %+v", len(segments), img)
	}
}

func TestSplitMemoryAndExports(t *testing.T) {
	code, img := split(t, `(module (memory 3 9) (func $s) (start $s)
	  (global $i i32 (i32.const 4)) (global $m (mut i32) (i32.const 5)) (global $z (mut i64) (i64.const 0)) (global $f (mut f64) (f64.const 1))
	  (global $r (mut funcref) (ref.null func)) (func (export "handle")))`)
	m := parsed(t, code)
	if m.memory.min != 0 || !m.memory.hasMax || m.memory.max != 9 || img.Size != 3*PageSize || m.hasStart {
		t.Errorf("memory %+v, image of %d, start section %v", m.memory, img.Size, m.hasStart)
	}
	r := reader{b: m.exports}
	var names []string
	for range m.exportCount {
		names = append(names, fmt.Sprintf("%s %d %d", r.name(), r.byte(), r.u32()))
	}
	want := []string{"handle 0 1", "selvage:memory 2 0", "selvage:start 0 0", "selvage:global:1 3 1", "selvage:global:2 3 2", "selvage:global:3 3 3", "selvage:global:4 3 4"}
	if !reflect.DeepEqual(names, want) {
		t.Errorf("exports %q, want %q", names, want)
	}
	globals := []Global{{1, typeI32, 5}, {3, typeF64, 0x3ff0000000000000}}
	if !reflect.DeepEqual(img.Globals, globals) {
		t.Errorf("globals %+v, want %+v", img.Globals, globals)
	}
	for i, g := range m.globals {
		if zero := g.value.bits == 0; g.mutable && !zero || i == 0 && zero {
			t.Errorf("global %d starts at %d in the code", i, g.value.bits)
		}
	}
}

// A module that exports nothing still gets an export section, in its place.
func TestSplitAddsAnExportSection(t *testing.T) {
	code, _ := split(t, `(module (memory 1) (global (mut i32) (i32.const 5)) (table 1 funcref) (func $f) (elem (i32.const 0) $f) (data "x"))`)
	var ids []byte
	for _, s := range parsed(t, code).sections {
		if s.id != secCustom {
			ids = append(ids, s.id)
		}
	}
	for i := 1; i < len(ids); i++ {
		if order(ids[i]) <= order(ids[i-1]) {
			t.Fatalf("sections in the order %d", ids)
		}
	}
	if !bytes.Contains(ids, []byte{secExport}) {
		t.Errorf("sections %d", ids)
	}
}

// Modules that differ in data, memory size and globals only share their code.
func TestSplitSharesCode(t *testing.T) {
	one, _ := split(t, `(module (memory (export "memory") 3) (global (mut i32) (i32.const 70000)) (data (i32.const 1024) "one") (data (i32.const 9) "x") (func (export "handle")))`)
	two, _ := split(t, `(module (memory (export "memory") 17) (global (mut i32) (i32.const 65536)) (data (i32.const 4) "two") (func (export "handle")))`)
	if !bytes.Equal(one, two) {
		t.Error("the codes differ")
	}
}

func TestSplitKeepsNamesOnly(t *testing.T) {
	b := module_(t, `(module (func $named))`)
	b = appendSection(b, secCustom, append(appendName(nil, ".debug_info"), 1, 2, 3))
	code, _, err := Split(b)
	if err != nil || !bytes.Contains(code, []byte("named")) || bytes.Contains(code, []byte("debug")) {
		t.Errorf("%q, %v", code, err)
	}
}

// paint does what writing one segment after the other does.
func TestPaintLikeWriting(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		memory := make([]byte, 200)
		var segments []segment
		for range rng.IntN(12) {
			data := make([]byte, rng.IntN(60))
			for i := range data {
				data[i] = byte(rng.IntN(4))
			}
			at := rng.IntN(len(memory) - len(data) + 1)
			copy(memory[at:], data)
			segments = append(segments, segment{active: true, offset: constant{typeI32, uint64(at), true}, data: data})
		}
		got := make([]byte, len(memory))
		var end uint64
		for _, r := range paint(segments) {
			if r.Offset < end || len(r.Data) == 0 {
				t.Fatalf("run at %d after %d", r.Offset, end)
			}
			end = r.Offset + uint64(copy(got[r.Offset:], r.Data))
		}
		if !bytes.Equal(got, memory) {
			t.Fatalf("painted %x\nwritten %x", got, memory)
		}
	}
}

// Many segments over one another take no more memory than their bytes, nor long.
func TestPaintManyLayers(t *testing.T) {
	data := bytes.Repeat([]byte{1}, 1000)
	var segments []segment
	for i := range 100_000 {
		segments = append(segments, segment{active: true, offset: constant{typeI32, uint64(i % 1000), true}, data: data})
	}
	if runs := paint(segments); len(runs) != 1 || len(runs[0].Data) != 1999 {
		t.Errorf("%d runs", len(runs))
	}
}

func TestCheckSnapshot(t *testing.T) {
	const prefix = `(module (table 4 funcref) (memory 1) (elem $e func $f) (data $d "x") (func $f) (func `
	for _, c := range []struct{ body, want string }{
		{`(local v128 i64) (if (i32.const -5) (then (nop)) (else (loop (br 0)))) (block (br_table 0 0 0 (i32.const 1)))`, ""},
		{`(memory.copy (i32.const 0) (i32.const 0) (i32.const 0)) (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)) (memory.init $d (i32.const 0) (i32.const 0) (i32.const 0))`, ""},
		{`(drop (f64.const 1e9)) (drop (f32.const 2)) (drop (i64.const -123456789012345)) (drop (i64.trunc_sat_f64_s (f64.const 1))) (drop (ref.is_null (ref.null func)))`, ""},
		{`(drop (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 (v128.const i64x2 1 2) (v128.const i64x2 1 2))) (drop (i8x16.extract_lane_s 3 (v128.load offset=9 (i32.const 0)))) (v128.store8_lane 3 (i32.const 0) (v128.load32_zero (i32.const 0)))`, ""},
		{`(drop (table.get 0 (i32.const 0))) (drop (table.size 0)) (drop (select (result i32) (i32.const 0) (i32.const 0) (i32.const 0))) (call_indirect (i32.const 0)) (drop (memory.grow (i32.const 1)))`, ""},
		{`(table.set 0 (i32.const 0) (ref.null func))`, "table.set"},
		{`(drop (table.grow 0 (ref.null func) (i32.const 1)))`, "table.grow"},
		{`(table.fill 0 (i32.const 0) (ref.null func) (i32.const 1))`, "table.fill"},
		{`(table.copy (i32.const 0) (i32.const 0) (i32.const 1))`, "table.copy"},
		{`(table.init $e (i32.const 0) (i32.const 0) (i32.const 1))`, "table.init"},
		{`(elem.drop $e)`, "elem.drop"},
		{`(data.drop $d)`, "data.drop"},
	} {
		code, _ := split(t, prefix+c.body+"))")
		err := CheckSnapshot(code)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.body, err)
		}
	}
	for wat, want := range map[string]string{
		`(module (import "m" "g" (global i32)))`:                             "imports",
		`(module (import "m" "m" (memory 1)))`:                               "imports",
		`(module (global (mut funcref) (ref.null func)))`:                    "no number",
		`(module (global (mut v128) (v128.const i32x4 1 2 3 4)) (memory 1))`: "no number",
	} {
		code, _ := split(t, wat)
		if err := CheckSnapshot(code); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", wat, err)
		}
	}
}

func FuzzSplit(f *testing.F) {
	for _, wat := range []string{
		`(module)`,
		`(module (memory 1) (data (i32.const 5) "abc") (data "p") (func (data.drop 1)))`,
		`(module (import "m" "g" (global i32)) (import "m" "f" (func)) (memory 1 2) (data (global.get 0) "a") (start 0))`,
		`(module (memory 2) (global (mut i64) (i64.const 7)) (global (mut f32) (f32.const 7)) (export "m" (memory 0)) (data (i32.const 1) "a") (data (i32.const 0) "bbb"))`,
		`(module (table 1 funcref) (func $f (param i32) (drop (i32.const 1))) (elem (i32.const 0) $f) (global i32 (i32.add (i32.const 1) (i32.const 2))))`,
	} {
		f.Add(module_(f, wat))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		code, img, err := Split(b)
		if err != nil {
			return
		}
		if err := img.Validate(); err != nil {
			t.Fatal(err)
		}
		m, err := parse(code)
		if err != nil {
			t.Fatalf("its code cannot be read: %v", err)
		}
		again, empty, err := Split(code)
		if err == nil && !bytes.Equal(again, code) {
			t.Fatal("splitting the code changes it")
		}
		if err == nil && (len(empty.Runs) != 0 || len(empty.Globals) != 0) && m.memory != nil && img.Size != 0 {
			t.Fatalf("the code still has an image: %+v", empty)
		}
		CheckSnapshot(code)
		back, err := Decode(img.Encode(), MaxSize)
		if err != nil || back.Size != img.Size || len(back.Runs) != len(img.Runs) {
			t.Fatalf("its image does not come back: %v", err)
		}
	})
}

func TestSplitSaysWhatIsRenewable(t *testing.T) {
	for wat, want := range map[string]bool{
		`(module (memory 1) (func (export "f")))`:                                                               true,
		`(module (memory 1) (global (mut i32) (i32.const 3)) (data (i32.const 1) "x") (func (export "f")))`:     true,
		`(module (memory 1) (data $p "x") (func (memory.init $p (i32.const 0) (i32.const 0) (i32.const 1))))`:   true,
		`(module (memory 1) (table 1 funcref) (elem (i32.const 0) $f) (func $f (call_indirect (i32.const 0))))`: true,
		`(module (func (export "f")))`: false,
		`(module (memory 1) (table 1 funcref) (func (table.set (i32.const 0) (ref.null func))))`:                                  false,
		`(module (memory 1) (table 1 funcref) (func (drop (table.grow (ref.null func) (i32.const 1)))))`:                          false,
		`(module (memory 1) (table 1 funcref) (func (table.fill (i32.const 0) (ref.null func) (i32.const 1))))`:                   false,
		`(module (memory 1) (table 1 funcref) (func (table.copy (i32.const 0) (i32.const 0) (i32.const 1))))`:                     false,
		`(module (memory 1) (data $p "x") (func (data.drop $p)))`:                                                                 false,
		`(module (memory 1) (table 1 funcref) (elem $e func 0) (func (elem.drop $e)))`:                                            false,
		`(module (memory 1) (table 1 funcref) (elem $e func 0) (func (table.init $e (i32.const 0) (i32.const 0) (i32.const 1))))`: false,
		`(module (import "a" "t" (table 1 funcref)) (memory 1) (func (export "f")))`:                                              false,
		`(module (memory 1) ` + strings.Repeat(`(global (mut i32) (i32.const 0))`, RenewableGlobals) + `)`:                        true,
		`(module (memory 1) ` + strings.Repeat(`(global (mut i32) (i32.const 0))`, RenewableGlobals+1) + `)`:                      false,
		`(module (memory 1) (global (mut funcref) (ref.null func)) (func (export "f")))`:                                          false,
		`(module (import "a" "b" (global i32)) (memory 1) (func (export "f")))`:                                                   false,
		`(module (import "a" "b" (global i32)) (memory 1) (data (global.get 0) "x") (func (export "f")))`:                         false,
	} {
		code, _, err := Split(module_(t, wat))
		if err != nil {
			t.Fatalf("%s: %v", wat, err)
		}
		if got := bytes.Contains(code, []byte(RenewableExport)); got != want {
			t.Errorf("%s: renewable %v", wat, got)
		}
		if _, _, err := Split(code); want && err == nil {
			t.Errorf("%s: a module may not say so itself", wat)
		}
	}
}

func TestCheckRenewable(t *testing.T) {
	code, _ := split(t, `(module (memory 1) (func (export "f")))`)
	if err := CheckRenewable(code); err != nil {
		t.Error(err)
	}
	pretends := module_(t, `(module (memory (export "selvage:renewable") 1) (table 1 funcref) (func (table.set (i32.const 0) (ref.null func))))`)
	if err := CheckRenewable(pretends); err == nil || !strings.Contains(err.Error(), "table.set") {
		t.Error(err)
	}
}
