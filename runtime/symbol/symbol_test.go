package symbol

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	wasm "github.com/selvage-edge/selvage/runtime/scan/scantest"
	"github.com/selvage-edge/selvage/runtime/tooltest"
)

// backtrace runs a module to its trap, or until it has computed for a second.
func backtrace(t *testing.T, module []byte) string {
	t.Helper()
	var in engine.Instance
	e, err := guesttest.Program(t, module).Run(&in, &engine.StartConfig{MemoryLimit: 64 << 20, CPULimit: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for e.Kind == engine.Yield {
		e = in.Poll()
	}
	if e.Kind != engine.Failed {
		t.Fatalf("event %+v", e)
	}
	return e.Trap.Backtrace
}

// line is the number of the only line of source that holds mark.
func line(t *testing.T, source, mark string) int {
	t.Helper()
	n := 0
	for i, l := range strings.Split(source, "\n") {
		if strings.Contains(l, mark) {
			if n != 0 {
				t.Fatalf("%q is there twice", mark)
			}
			n = i + 1
		}
	}
	return n
}

const goSource = `package main

import (
	"os"
	"unsafe"
)

//go:wasmimport selvage_v1 response_write
func write(p unsafe.Pointer, n uint32) int32

var far, arg = ^uint32(0) - 8, len(os.Args)

//go:noinline
func leave(n int) {
	if n > 0 {
		os.Exit(n) // leaves
	}
}

//go:noinline
func pointer() int32 {
	return write(unsafe.Pointer(uintptr(far)), 16) // passes
}

//go:noinline
func load() int64 {
	p := (*int64)(unsafe.Pointer(uintptr(far)))
	return *p // loads
}

//go:noinline
func spin(n int) {
	for n > 0 { // spins
		arg += n
	}
}

//go:wasmexport handle
func handle() {
	FAULT // begins
}

func main() {}
`

// A Go program that was linked with -s -w still has names and lines: those of its own stack traces.
func TestGo(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and compiles Go guests")
	}
	for _, c := range []struct{ fault, function, mark string }{
		{"leave(arg)", "main.leave", "// leaves"},
		{"pointer()", "main.pointer", "// passes"},
		{"load()", "main.load", "// loads"},
		{"spin(arg)", "main.spin", "// spins"},
	} {
		t.Run(c.function, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			source := strings.Replace(goSource, "FAULT", c.fault, 1)
			for name, text := range map[string]string{"main.go": source, "go.mod": "module guest\ngo 1.26\n"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			module := guesttest.GoGuest(t, dir)
			raw := backtrace(t, module)
			got := New(module).Annotate(raw)
			at := filepath.Join(dir, "main.go") + ":"
			for name, mark := range map[string]string{c.function: c.mark, "main.handle": "// begins"} {
				if !regexp.MustCompile(regexp.QuoteMeta(name) + ` \(function \d+\+0x[0-9a-f]+\) ` + regexp.QuoteMeta(at) + strconv.Itoa(line(t, source, mark)) + "\n").MatchString(got) {
					t.Errorf("want %s at line %d in\n%s\nfrom\n%s", name, line(t, source, mark), got, raw)
				}
			}
		})
	}
}

// buildC builds testdata/fault.c, which must be free of libraries.
func buildC(t *testing.T, flags ...string) []byte {
	t.Helper()
	var clang, linker string
	for _, v := range []string{"", "-21", "-20", "-19", "-18"} {
		if c, err := exec.LookPath("clang" + v); err == nil && clang == "" {
			clang = c
		}
		if l, err := exec.LookPath("wasm-ld" + v); err == nil && linker == "" {
			linker = l
		}
	}
	if clang == "" || linker == "" {
		tooltest.Need(t, "clang and wasm-ld: apt-get install clang-19 lld-19")
	}
	out := filepath.Join(t.TempDir(), "fault.wasm")
	args := append([]string{"--target=wasm32", "-nostdlib", "-Wl,--no-entry", "-Wl,--gc-sections", "-ffunction-sections", "-O1", "--ld-path=" + linker, "-o", out, "testdata/fault.c"}, flags...)
	if msg, err := exec.Command(clang, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestC(t *testing.T) {
	source, err := os.ReadFile("testdata/fault.c")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flags  []string
		frames map[string]string // the function, and a mark in its line
	}{
		{[]string{"-gdwarf-4"}, map[string]string{"divide": "return a / b", "handle": "divide(7)"}},
		{[]string{"-gdwarf-5"}, map[string]string{"divide": "return a / b", "handle": "divide(7)"}},
		{[]string{"-gdwarf-5", "-DSPIN"}, map[string]string{"spin": "for (;;)", "handle": "spin();"}},
	} {
		module := buildC(t, c.flags...)
		raw := backtrace(t, module)
		got := New(module).Annotate(raw)
		for name, mark := range c.frames {
			if !regexp.MustCompile(`\d: ` + name + ` \(function \d+\+0x[0-9a-f]+\) .*testdata/fault\.c:` + strconv.Itoa(line(t, string(source), mark)) + "\n").MatchString(got) {
				t.Errorf("%s: want %s at line %d in\n%s\nfrom\n%s", c.flags, name, line(t, string(source), mark), got, raw)
			}
		}
	}
}

func TestNothingToSay(t *testing.T) {
	module := guesttest.Guest(t, `(func $deep (export "handle") unreachable)`)
	raw := backtrace(t, module)
	if s := New(module); s.Err() == nil || s.Annotate(raw) != raw || !strings.Contains(raw, "deep (function ") {
		t.Errorf("%v: %q", s.Err(), raw)
	}
	if s := New([]byte("no module")); s.Err() == nil || s.Annotate("0: (function 0+0x0)") != "0: (function 0+0x0)" {
		t.Error("it found lines in no module")
	}
}

// FuzzTable reads hostile tables: as sections of a module, and as Go's data in its memory.
func FuzzTable(f *testing.F) {
	f.Add([]byte(nil), []byte(nil), []byte(nil), []byte(nil), uint32(0))
	f.Add([]byte{0}, []byte("\x08\x00\x00\x00\x04\x00\x00\x00\x00\x00\x04\x00"), []byte{0}, append(append([]byte(nil), goMagic...), make([]byte, 64)...), uint32(3))
	f.Fuzz(func(t *testing.T, abbrev, info, lines, data []byte, offset uint32) {
		module := wasm.Module(
			wasm.Section(1, wasm.Vec(wasm.Type(nil, nil))), wasm.Section(3, wasm.Vec([]byte{0})), wasm.Section(5, []byte{1, 0, 1}),
			wasm.Section(10, wasm.Vec(wasm.Body(0x10, 0))), wasm.Section(11, wasm.Vec(wasm.Join([]byte{0, 0x41, 0, 0x0b}, wasm.Sized(data)))),
			wasm.Custom(".debug_abbrev", abbrev), wasm.Custom(".debug_info", info), wasm.Custom(".debug_line", lines), wasm.Custom(".debug_str", data),
		)
		s := New(module)
		for _, o := range []uint32{1, offset} {
			if p, ok := s.Find(0, o); ok && (p.File == "" || p.Line <= 0 || len(p.File) > 1<<20) {
				t.Errorf("%+v", p)
			}
		}
		New(data).Find(0, offset)
	})
}
