package engine

import (
	"crypto/sha256"
	"fmt"
	"os"
	"testing"

	"github.com/bytecodealliance/wasmtime-go/v39"

	"github.com/selvage-edge/selvage/runtime/image"
)

var eng *Engine // the process's one

func TestMain(m *testing.M) {
	if child := os.Getenv("SELVAGE_TEST_CHILD"); child != "" {
		os.Exit(runChild(child))
	}
	var err error
	if eng, err = Open(Config{ParallelCompile: true}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := eng.Close(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const (
	opWait  Op = 1 // test.wait() -> i32
	opWrite Op = 2
	opRead  Op = 3
	opHead  Op = 4
	opPoll  Op = 5
	opMany  Op = 6
)

// testImports is a table like those of the ABI rooms.
var testImports = []Import{
	{Module: "test", Name: "wait", Params: []ValKind{I32}, Results: []ValKind{I32}, Op: opWait},
	{Module: "test", Name: "many", Params: []ValKind{I32, I64, F32, F64}, Results: []ValKind{I64}, Op: opMany},
	{Module: "selvage_v1", Name: "request_head", Params: []ValKind{I32, I32}, Results: []ValKind{I32}, Builtin: NativeRequestHead},
	{Module: "selvage_v1", Name: "request_read", Params: []ValKind{I32, I32}, Results: []ValKind{I32}, Builtin: NativeRequestRead, Op: opRead},
	{Module: "selvage_v1", Name: "response_head", Params: []ValKind{I32, I32, I32}, Results: []ValKind{I32}, Builtin: NativeResponseHead, Op: opHead},
	{Module: "selvage_v1", Name: "response_write", Params: []ValKind{I32, I32}, Results: []ValKind{I32}, Builtin: NativeResponseWrite, Op: opWrite},
	{Module: "selvage_v1", Name: "log", Params: []ValKind{I32, I32, I32}, Results: []ValKind{I32}, Builtin: NativeLog},
	{Module: "selvage_v1", Name: "clock_now", Params: []ValKind{I32}, Results: []ValKind{I64}, Builtin: NativeClockNow},
	{Module: "selvage_v1", Name: "random", Params: []ValKind{I32, I32}, Results: []ValKind{I32}, Builtin: NativeRandom},
	{Module: "selvage_v1", Name: "environment", Params: []ValKind{I32, I32}, Results: []ValKind{I32}, Builtin: NativeEnvironment},
	wasi("args_get", WASIArgsGet, I32, I32), wasi("args_sizes_get", WASIArgsSizesGet, I32, I32),
	wasi("environ_get", WASIEnvironGet, I32, I32), wasi("environ_sizes_get", WASIEnvironSizesGet, I32, I32),
	wasi("clock_time_get", WASIClockTimeGet, I32, I64, I32), wasi("random_get", WASIRandomGet, I32, I32),
	wasi("fd_write", WASIFdWrite, I32, I32, I32, I32), wasi("fd_read", WASIFdRead, I32, I32, I32, I32),
	wasi("fd_close", WASIFdClose, I32), wasi("fd_renumber", WASIFdRenumber, I32, I32), wasi("fd_fdstat_set_rights", WASIFdFdstatSetRights, I32, I64, I64), wasi("fd_fdstat_get", WASIFdFdstatGet, I32, I32), wasi("fd_fdstat_set_flags", WASIFdFdstatSetFlags, I32, I32),
	wasi("fd_prestat_get", WASIBadFD, I32, I32), wasi("fd_prestat_dir_name", WASIBadFD, I32, I32, I32),
	wasi("poll_oneoff", WASIPollOneoff, I32, I32, I32, I32), wasi("sched_yield", WASISchedYield),
	{Module: "wasi_snapshot_preview1", Name: "proc_exit", Params: []ValKind{I32}, Builtin: WASIProcExit},
}

func wasi(name string, b Builtin, params ...ValKind) Import {
	im := Import{Module: "wasi_snapshot_preview1", Name: name, Params: params, Results: []ValKind{I32}, Builtin: b}
	if b.Suspends() {
		im.Op = opPoll
	}
	return im
}

// testLinker is made once: linking is "once per process".
var testLinker *Linker

func linker(t testing.TB) *Linker {
	t.Helper()
	if testLinker == nil {
		l, err := eng.Link(testImports)
		if err != nil {
			t.Fatal(err)
		}
		testLinker = l
	}
	return testLinker
}

// build makes a program of a module in the text format; its image comes back for audits.
func build(t testing.TB, wat string, c ProgramConfig) (*Program, *Image) {
	t.Helper()
	code, img, err := image.Split(mustWasm(t, wat))
	if err != nil {
		t.Fatal(err)
	}
	return buildSplit(t, code, img, c)
}

func mustWasm(t testing.TB, wat string) []byte {
	t.Helper()
	wasm, err := wasmtime.Wat2Wasm(wat)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

func buildSplit(t testing.TB, code []byte, img *image.Image, c ProgramConfig) (*Program, *Image) {
	t.Helper()
	artifact, err := compileOnce(code)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := eng.Load(artifact)
	if err != nil {
		t.Fatal(err)
	}
	prepared, err := eng.Image(img)
	if err != nil {
		t.Fatal(err)
	}
	c.Code, c.Image, c.Linker = loaded, prepared, linker(t)
	if c.Entries == nil {
		for _, name := range []string{image.StartExport, "_initialize", "selvage_start", "handle"} {
			if loaded.HasFunc(name) {
				c.Entries = append(c.Entries, name)
			}
		}
	}
	p, err := eng.Program(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		loaded.Close()
		p.Close()
		prepared.Close()
	})
	return p, prepared
}

var artifacts = map[[32]byte][]byte{}

// compileOnce keeps artifacts by code: a Go guest takes seconds.
func compileOnce(code []byte) ([]byte, error) {
	key := sha256.Sum256(code)
	if a, ok := artifacts[key]; ok {
		return a, nil
	}
	a, err := eng.Compile(code)
	artifacts[key] = a
	return a, err
}

const memoryLimit = 128 << 20

func start(t testing.TB, p *Program, c StartConfig) *Instance {
	t.Helper()
	if c.MemoryLimit == 0 {
		c.MemoryLimit = memoryLimit
	}
	in, err := p.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// run polls through yields to the next event.
func run(in *Instance) Event {
	for {
		if e := in.Poll(); e.Kind != Yield {
			return e
		}
	}
}

const helloWAT = `(module
  (import "selvage_v1" "response_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 17)
  (data (i32.const 1024) "hello world")
  (func (export "handle") (drop (call $write (i32.const 1024) (i32.const 11)))))`

func TestHello(t *testing.T) {
	p, _ := build(t, helloWAT, ProgramConfig{})
	for range 3 {
		in := start(t, p, StartConfig{})
		if e := run(in); e.Kind != Done {
			t.Fatalf("event %+v, trap %v", e, e.Trap)
		}
		if body := string(in.Response().Body); body != "hello world" {
			t.Fatalf("body %q", body)
		}
		in.Close()
	}
}

func BenchmarkStart(b *testing.B) {
	p, _ := build(b, helloWAT, ProgramConfig{})
	b.Run("hello", func(b *testing.B) {
		for b.Loop() {
			in, err := p.Start(StartConfig{MemoryLimit: memoryLimit})
			if err != nil {
				b.Fatal(err)
			}
			if e := in.Poll(); e.Kind == Failed {
				b.Fatal(e.Trap)
			}
			in.Close()
		}
	})
	b.Run("hello/parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				in, err := p.Start(StartConfig{MemoryLimit: memoryLimit})
				if err != nil {
					b.Fatal(err)
				}
				if e := in.Poll(); e.Kind == Failed {
					b.Fatal(e.Trap)
				}
				in.Close()
			}
		})
	})
}

// runChild is the test binary run again: what needs a process of its own.
func runChild(name string) int {
	children := map[string]func(testing.TB) error{"mlockall": mlockallChild, "capacity": capacityChild, "budget": budgetChild, "blind": blindChild, "nomap": nomapChild, "addresses": addressesChild}
	configs := map[string]Config{"budget": {ResidentBytes: 1 << 20}}
	m, err := readMaps()
	if err == nil && name == "capacity" {
		m.most = m.now + 100
	}
	if err == nil {
		eng, err = open(configs[name].withDefaults(), production, m)
	}
	if err == nil {
		t := &childT{}
		err = children[name](t)
		t.clean()
	}
	if err == nil {
		err = eng.Close()
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// childT stands in for a test in a child process.
type childT struct {
	testing.TB
	cleanup []func()
}

func (t *childT) Helper()          {}
func (t *childT) Cleanup(f func()) { t.cleanup = append(t.cleanup, f) }
func (t *childT) Fatal(args ...any) {
	fmt.Println(args...)
	os.Exit(1)
}

func (t *childT) clean() {
	for _, f := range t.cleanup {
		f()
	}
}
