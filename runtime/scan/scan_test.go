package scan

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	wasm "github.com/selvage-edge/selvage/runtime/scan/scantest"
)

const i32, i64 = 0x7f, 0x7e

var allowed = []Func{
	{Module: "selvage_v1", Name: "request_head", Params: []byte{i32, i32}, Results: []byte{i32}},
	{Module: "wasi_snapshot_preview1", Name: "fd_write", Params: []byte{i32, i32, i32, i32}, Results: []byte{i32}},
}

func TestTakes(t *testing.T) {
	for name, m := range map[string][]byte{
		"smallest":     wasm.Handle(),
		"arithmetic":   wasm.Handle(0x41, 0x80, 0x80, 0x04, 0x42, 0x7f, 0xa7, 0x6a, 0x1a),
		"floats":       wasm.Handle(0x43, 0, 0, 0, 0, 0x1a, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0x1a),
		"loads":        wasm.Handle(0x41, 0, 0x28, 2, 0x80, 1, 0x1a),
		"blocks":       wasm.Handle(0x02, 0x40, 0x03, 0x7f, 0x41, 0, 0x0b, 0x1a, 0x0b),
		"if else":      wasm.Handle(0x41, 0, 0x04, 0x40, 0x05, 0x0b),
		"block type":   wasm.Handle(0x02, 0x00, 0x0b),
		"br_table":     wasm.Handle(0x02, 0x40, 0x41, 0, 0x0e, 1, 0, 0, 0x0b),
		"typed select": wasm.Handle(0x41, 0, 0x41, 0, 0x41, 0, 0x1c, 1, 0x7f, 0x1a),
		"memory":       wasm.Handle(0x3f, 0, 0x40, 0, 0x1a),
		"bulk memory":  wasm.Handle(0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 11, 0, 0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 10, 0, 0),
		"references":   wasm.Handle(0xd0, 0x70, 0xd1, 0x1a, 0xd2, 0, 0x1a),
		"saturating":   wasm.Handle(0x43, 0, 0, 0, 0, 0xfc, 0, 0x1a),
		"vectors":      wasm.Handle(0xfd, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfd, 21, 3, 0x1a),
		"vector load":  wasm.Handle(0x41, 0, 0xfd, 0, 4, 0, 0x41, 0, 0xfd, 84, 0, 0, 3, 0x1a),
		"vector add":   wasm.Handle(0xfd, 0xae, 1),
		"with a table": wasm.Table(100),
		"custom":       append(wasm.Handle(), wasm.Custom("anything", []byte{1, 2, 3})...),
		"deep":         wasm.Handle(wasm.Nested(MaxNesting - 1)...),
		"a bomb":       wasm.Bomb(1 << 20),
	} {
		if _, err := Module(m, allowed); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// sections builds a module with another section in the place of one of Handle's.
func sections(id byte, body []byte) []byte {
	all := map[byte][]byte{1: wasm.Types, 3: wasm.Funcs, 5: wasm.Memory, 7: wasm.Exports, 10: wasm.Section(10, wasm.Vec(wasm.Body()))}
	all[id] = wasm.Section(id, body)
	var m [][]byte
	for _, i := range []byte{1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11} {
		m = append(m, all[i])
	}
	return wasm.Module(m...)
}

func imports(items ...[]byte) []byte {
	t := wasm.Section(1, wasm.Vec(wasm.Type(nil, nil), wasm.Type([]byte{i32, i32}, []byte{i32}), wasm.Type([]byte{i64}, nil)))
	exports := wasm.Section(7, wasm.Vec(wasm.Export("memory", 2, 0), wasm.Export("handle", 0, len(items))))
	return wasm.Module(t, wasm.Section(2, wasm.Vec(items...)), wasm.Funcs, wasm.Memory, exports, wasm.Section(10, wasm.Vec(wasm.Body())))
}

func TestRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		module []byte
		want   error
		text   string
	}{
		"empty":       {nil, ErrNotWasm, "the file is empty"},
		"text":        {[]byte("(module)"), ErrNotWasm, "wat2wasm"},
		"native":      {[]byte("\x7fELF\x02\x01\x01\x00"), ErrNotWasm, "GOOS=wasip1"},
		"version 2":   {[]byte("\x00asm\x02\x00\x00\x00"), ErrNotWasm, "version"},
		"component":   {[]byte("\x00asm\x0d\x00\x01\x00"), ErrComponent, "-buildmode=c-shared"},
		"too large":   {append([]byte("\x00asm\x01\x00\x00\x00"), make([]byte, MaxBytes)...), ErrLimit, "at most 67108864"},
		"cut":         {wasm.Handle()[:20], ErrMalformed, "byte"},
		"trailing":    {append(wasm.Handle(), 0x63), ErrMalformed, ""},
		"order":       {wasm.Module(wasm.Funcs, wasm.Types), ErrMalformed, ""},
		"twice":       {wasm.Module(wasm.Types, wasm.Types), ErrMalformed, "out of order"},
		"no bodies":   {wasm.Module(wasm.Types, wasm.Funcs, wasm.Memory, wasm.Exports), ErrMalformed, "differ in number"},
		"long number": {sections(1, []byte{0x80, 0x80, 0x80, 0x80, 0x10}), ErrMalformed, "number"},
		"big count":   {sections(3, []byte{0x7f, 0}), ErrMalformed, "count"},
		"name":        {sections(7, wasm.Vec(wasm.Export("\xff", 0, 0))), ErrMalformed, "UTF-8"},
		"opcode":      {wasm.Handle(0xff), ErrMalformed, "unknown instruction"},
		"no end":      {sections(10, wasm.Vec(wasm.Sized([]byte{0, 1}))), ErrMalformed, "ends early"},
		"past end":    {wasm.Handle(0x0b, 0x01), ErrMalformed, "goes on after its end"},

		"exceptions":        {wasm.Handle(0x08, 0), ErrFeature, "exceptions"},
		"tags":              {sections(13, wasm.Vec([]byte{0, 0})), ErrFeature, "exceptions"},
		"tail calls":        {wasm.Handle(0x12, 0), ErrFeature, "tail calls"},
		"threads":           {wasm.Handle(0xfe, 3, 0), ErrFeature, "threads"},
		"shared memory":     {sections(5, wasm.Vec([]byte{3, 1, 1})), ErrFeature, "threads"},
		"memory64":          {sections(5, wasm.Vec([]byte{4, 1})), ErrFeature, "64-bit"},
		"page size":         {sections(5, wasm.Vec([]byte{8, 1, 0})), ErrFeature, "page sizes"},
		"gc":                {wasm.Handle(0xfb, 0, 0), ErrFeature, "garbage"},
		"gc types":          {sections(1, wasm.Vec([]byte{0x5f, 0})), ErrFeature, "garbage"},
		"typed references":  {sections(1, wasm.Vec(wasm.Type([]byte{0x64}, nil))), ErrFeature, "references"},
		"call_ref":          {wasm.Handle(0x14, 0), ErrFeature, "references"},
		"relaxed":           {wasm.Handle(0xfd, 0x80, 2), ErrFeature, "relaxed"},
		"wide":              {wasm.Handle(0xfc, 19), ErrFeature, "wide"},
		"multi memory load": {wasm.Handle(0x41, 0, 0x28, 0x42, 1, 0), ErrFeature, "several memories"},
		"multi memory grow": {wasm.Handle(0x41, 0, 0x40, 1), ErrFeature, "several memories"},

		"functions":     {sections(3, wasm.Repeat(MaxFunctions+1, wasm.U(0))), ErrLimit, "functions"},
		"types":         {sections(1, wasm.Repeat(MaxTypes+1, wasm.Type(nil, nil))), ErrLimit, "types"},
		"params":        {sections(1, wasm.Vec(wasm.Type(bytes.Repeat([]byte{i32}, MaxParams+1), nil))), ErrLimit, "parameters"},
		"a million":     {sections(2, wasm.Repeat(1_000_000, wasm.ImportFunc("m", "n", 0))), ErrLimit, "imports"},
		"exports":       {sections(7, wasm.Repeat(MaxExports+1, wasm.Export("a", 0, 0))), ErrLimit, "exports"},
		"globals":       {sections(6, wasm.Repeat(MaxGlobals+1, []byte{i32, 0, 0x41, 0, 0x0b})), ErrLimit, "globals"},
		"two tables":    {sections(4, wasm.Repeat(2, []byte{0x70, 0, 0})), ErrLimit, "tables"},
		"large table":   {wasm.Table(MaxElements + 1), ErrLimit, "a table has 65537 elements"},
		"two memories":  {sections(5, wasm.Repeat(2, []byte{0, 1})), ErrLimit, "memories"},
		"elements":      {sections(9, wasm.Repeat(3, wasm.Join([]byte{0, 0x41, 0, 0x0b}, wasm.Repeat(MaxElements/2, []byte{0})))), ErrLimit, "elements"},
		"segments":      {sections(11, wasm.Repeat(MaxSegments+1, []byte{1, 0})), ErrLimit, "data segments"},
		"long function": {wasm.Handle(make([]byte, MaxBody)...), ErrLimit, "function 0 has"},
		"locals":        {sections(10, wasm.Vec(wasm.Sized(wasm.Join(wasm.Vec(wasm.Join(wasm.U(MaxLocals+1), []byte{i32})), []byte{0x0b})))), ErrLimit, "locals"},
		"local overflow": {sections(10, wasm.Vec(wasm.Sized(wasm.Join(wasm.Repeat(9000, wasm.Join(wasm.U(1<<32-1), []byte{i32})), []byte{0x0b})))),
			ErrLimit, "locals"},
		"long constant": {sections(6, wasm.Vec(wasm.Join([]byte{i32, 0, 0x41, 0}, bytes.Repeat([]byte{0x41, 0, 0x6a}, MaxConstant), []byte{0x0b}))), ErrLimit, "more than 64 instructions"},
		"long constants": {sections(9, wasm.Vec(wasm.Join([]byte{4, 0x41, 0, 0x0b}, wasm.Vec(wasm.Join(bytes.Repeat([]byte{0xd2, 0}, MaxConstant+1), []byte{0x0b}))))),
			ErrLimit, "more than 64 instructions"},
		"nesting":   {wasm.Handle(wasm.Nested(MaxNesting + 1)...), ErrLimit, "nests"},
		"br_table":  {wasm.Handle(wasm.Join([]byte{0x41, 0, 0x0e}, wasm.Repeat(MaxBranchTable+1, []byte{0}), []byte{0})...), ErrLimit, "br_table"},
		"long name": {sections(7, wasm.Vec(wasm.Export(strings.Repeat("x", MaxName+1), 0, 0))), ErrLimit, "name"},
		"customs":   {wasm.Module(bytes.Repeat(wasm.Custom("c", nil), MaxCustom+1)), ErrLimit, "custom"},
		"4 GiB":     {sections(5, wasm.Vec(wasm.Join([]byte{0}, wasm.U(65537)))), ErrMalformed, "4 GiB"},

		"no memory":      {sections(7, wasm.Vec(wasm.Export("handle", 0, 0))), ErrExport, `"memory"`},
		"memory is func": {sections(7, wasm.Vec(wasm.Export("memory", 0, 0), wasm.Export("handle", 0, 0))), ErrExport, `"memory"`},
		"no handle":      {sections(7, wasm.Vec(wasm.Export("memory", 2, 0))), ErrExport, "edge.Serve"},
		"command":        {sections(7, wasm.Vec(wasm.Export("memory", 2, 0), wasm.Export("_start", 0, 0))), ErrExport, "build a reactor"},
		"reserved":       {sections(7, wasm.Vec(wasm.Export("selvage:global:0", 0, 0))), ErrExport, "the platform's"},
		"same name":      {sections(7, wasm.Vec(wasm.Export("handle", 0, 0), wasm.Export("handle", 0, 0))), ErrMalformed, "same name"},
		"handle's type": {wasm.Module(wasm.Section(1, wasm.Vec(wasm.Type([]byte{i32}, nil))), wasm.Funcs, wasm.Memory, wasm.Exports, wasm.Section(10, wasm.Vec(wasm.Body()))),
			ErrExport, "it is (i32) -> ()"},

		"unknown import": {imports(wasm.ImportFunc("selvage_v1", "teleport", 0)), ErrImport, "selvage_v1.teleport: selvage_v1 has no such function"},
		"env":            {imports(wasm.ImportFunc("env", "puts", 0)), ErrImport, "env.puts: not found by the linker"},
		"sockets":        {imports(wasm.ImportFunc("wasi_snapshot_preview1", "sock_open", 0)), ErrImport, "use the SDK's fetch"},
		"browser":        {imports(wasm.ImportFunc("gojs", "syscall/js.valueGet", 0)), ErrImport, "GOOS=wasip1"},
		"newer":          {imports(wasm.ImportFunc("selvage_v2", "request_head", 0)), ErrImport, "upgrade the platform"},
		"foreign":        {imports(wasm.ImportFunc("mine", "f", 0)), ErrImport, "mine.f: link it"},
		"other type":     {imports(wasm.ImportFunc("selvage_v1", "request_head", 2)), ErrImport, "declared as (i64) -> (); it is (i32, i32) -> (i32)"},
		"import memory":  {sections(2, wasm.Vec(wasm.Join(wasm.Name("env"), wasm.Name("memory"), []byte{2, 0, 1}))), ErrImport, "env.memory is a memory"},
		"import table":   {sections(2, wasm.Vec(wasm.Join(wasm.Name("env"), wasm.Name("t"), []byte{1, 0x70, 0, 1}))), ErrImport, "env.t is a table"},
		"import global":  {sections(2, wasm.Vec(wasm.Join(wasm.Name("env"), wasm.Name("g"), []byte{3, i32, 0}))), ErrImport, "env.g is a global"},
		"many unknown":   {imports(slices.Repeat([][]byte{wasm.ImportFunc("x", "y", 0)}, 20)...), ErrImport, "and 12 more"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Module(tc.module, allowed)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("err = %v; want %v with %q", err, tc.want, tc.text)
			}
		})
	}
}

func TestTouches(t *testing.T) {
	all := wasm.Table(1, 0x41, 0, 0xd0, 0x70, 0x26, 0, // table.set
		0xd0, 0x70, 0x41, 0, 0xfc, 15, 0, 0x1a, // table.grow
		0x41, 0, 0xd0, 0x70, 0x41, 0, 0xfc, 17, 0, // table.fill
		0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 12, 0, 0, // table.init
		0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 14, 0, 0, // table.copy
		0xfc, 16, 0, 0x1a, // table.size changes nothing
		0xfc, 13, 0, 0xfc, 9, 0, // elem.drop, data.drop
		0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 8, 0, 0) // memory.init
	r, err := Module(all, nil)
	want := []string{"data.drop", "elem.drop", "memory.init", "table.copy", "table.fill", "table.grow", "table.init", "table.set"}
	if err != nil || !slices.Equal(r.Touches, want) {
		t.Errorf("touches %q, %v", r.Touches, err)
	}
	if r, _ := Module(wasm.Handle(0x41, 0x26, 0x1a), nil); len(r.Touches) != 0 {
		t.Errorf("a constant was taken for an instruction: %q", r.Touches)
	}
}

// Every prefix of a module is refused, without a panic.
func TestTruncated(t *testing.T) {
	whole := imports(wasm.ImportFunc("selvage_v1", "request_head", 1))
	if _, err := Module(whole, allowed); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, err := Module(whole[:n], allowed); err == nil {
			t.Errorf("the first %d of %d bytes were taken", n, len(whole))
		}
	}
}

// What the limits are measured by: a real program of standard Go.
func TestRealGo(t *testing.T) {
	m := buildGo(t, `package main
		import "net/http"
		func main() {}
		//go:wasmexport handle
		func handle() { r, _ := http.NewRequest("GET", "http://example.com/", nil); http.DefaultClient.Do(r) }`)
	r, err := Module(m, nil)
	if !errors.Is(err, ErrImport) {
		t.Fatalf("err = %v, want the imports that this test does not allow", err)
	}
	var all []Func
	for _, im := range r.Imports {
		all = append(all, Func{Module: im.Module, Name: im.Name})
	}
	_, err = Module(m, all)
	if !errors.Is(err, ErrImport) || !strings.Contains(err.Error(), "is declared as (i32") {
		t.Errorf("err = %v, want types that differ", err)
	}
	t.Logf("%d bytes, %d functions, largest %d bytes, %d locals, %d deep, br_table of %d, %d segments, by %q",
		r.Bytes, r.Functions, r.LargestBody, r.MostLocals, r.DeepestBlock, r.LongestBranch, r.Segments, r.Producers)
	if r.Functions < 1000 || r.Segments < 10_000 || len(r.Touches) != 0 || !r.ExportsFunc("handle") || len(r.Producers) == 0 {
		t.Errorf("report %+v", r)
	}
}

func buildGo(t testing.TB, source string) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": source, "go.mod": "module guest\ngo 1.26\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", "guest.wasm", ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the guest: %v\n%s", err, out)
	}
	m, err := os.ReadFile(filepath.Join(dir, "guest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// FuzzScan: whatever it is, it is taken or refused with one of the errors, in
// time, and never with a panic.
func FuzzScan(f *testing.F) {
	f.Add(wasm.Handle())
	f.Add(wasm.Table(3, 0x41, 0, 0xd0, 0x70, 0x26, 0))
	f.Add(wasm.Handle(0x02, 0x40, 0x41, 0, 0x0e, 1, 0, 0, 0x0b, 0xfd, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1a))
	f.Add(imports(wasm.ImportFunc("selvage_v1", "request_head", 1), wasm.ImportFunc("env", "puts", 0)))
	f.Add(sections(9, wasm.Vec(wasm.Join([]byte{0, 0x41, 0, 0x0b}, wasm.Vec([]byte{0})), wasm.Join([]byte{5, 0x70}, wasm.Vec([]byte{0xd2, 0, 0x0b})))))
	f.Add(sections(11, wasm.Vec(wasm.Join([]byte{0, 0x41, 0, 0x0b}, wasm.Name("data")), wasm.Join([]byte{1}, wasm.Name("passive")))))
	f.Add(sections(6, wasm.Vec([]byte{i32, 1, 0x41, 0, 0x0b}, []byte{i64, 0, 0x42, 0x7f, 0x42, 1, 0x7c, 0x0b})))
	f.Add(append(wasm.Handle(), wasm.Custom("producers", wasm.Vec(wasm.Join(wasm.Name("language"), wasm.Vec(wasm.Join(wasm.Name("Go"), wasm.Name("1.26"))))))...))
	known := []error{ErrNotWasm, ErrComponent, ErrMalformed, ErrFeature, ErrLimit, ErrImport, ErrExport}
	f.Fuzz(func(t *testing.T, m []byte) {
		r, err := Module(m, allowed)
		if err != nil && !slices.ContainsFunc(known, func(k error) bool { return errors.Is(err, k) }) {
			t.Errorf("err = %v", err)
		}
		if err == nil && (!r.ExportsFunc("handle") || r.Bytes != len(m)) {
			t.Errorf("taken: %+v", r)
		}
	})
}

func BenchmarkModule(b *testing.B) {
	m := wasm.Bomb(8 << 20)
	b.SetBytes(int64(len(m)))
	for b.Loop() {
		if _, err := Module(m, nil); err != nil {
			b.Fatal(err)
		}
	}
}
