package compile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/runtime/jail"
	"github.com/selvage-edge/selvage/runtime/scan"
	wasm "github.com/selvage-edge/selvage/runtime/scan/scantest"
)

const goGuest = `package main

import (
	"fmt"
	"unsafe"
)

//go:wasmimport selvage_v1 response_write
func write(p unsafe.Pointer, n uint32) int32

var counted = map[string]int{}

func init() {
	for i := range 1000 {
		counted[fmt.Sprint(i)] = i
	}
}

//go:wasmexport selvage_start
func start() { counted["started"]++ }

//go:wasmexport handle
func handle() {
	counted["handled"]++
	s := []byte(fmt.Sprint(counted["999"], counted["started"], counted["handled"]))
	write(unsafe.Pointer(&s[0]), uint32(len(s)))
}

func main() {}
`

// buildGo builds a Go guest of one file.
func buildGo(t *testing.T, source string) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": source, "go.mod": "module guest\ngo 1.26\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return guesttest.GoGuest(t, dir)
}

// A guest of standard Go goes the whole way: prepared in one helper, compiled
// in another, kept, found again and run, with start-up behind it.
func TestGoGuestToTheEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and compiles a Go guest")
	}
	r := openJail(t, jail.Config{})
	p, err := Prepare(t.Context(), r, buildGo(t, goGuest), function.SnapshotAuto)
	if err != nil {
		t.Fatal(err)
	}
	rep := p.Report
	if !p.Started || !rep.Snapshot.Wanted || rep.Snapshot.Why != "" || !slices.Contains(rep.Snapshot.Notes, goFreezes(false)[0]) || rep.Artifact == 0 {
		t.Errorf("report %+v", rep.Snapshot)
	}
	img, err := image.Decode(p.Image, image.MaxSize)
	if err != nil || img.Size != rep.MemoryBytes {
		t.Fatalf("image of %d bytes, reported %d: %v", img.Size, rep.MemoryBytes, err)
	}
	e := guesttest.Engine(t)
	k := NewCompiler(CompilerConfig{Runner: r, Store: openStore(t, nil), Fingerprint: e.Fingerprint()})
	defer k.Close()
	digest := function.DigestOf(p.Code)
	for _, cached := range []bool{false, true} {
		b, fromCache, took, err := k.Artifact(t.Context(), digest, p.Code)
		if err != nil || fromCache != cached || took <= 0 {
			t.Fatalf("from cache %t, want %t; %v", fromCache, cached, err)
		}
		for range 2 {
			if got := handleOnce(t, e, b, img); got != "999 1 1" {
				t.Errorf("answer %q", got)
			}
		}
	}
	if n := r.runs.Load(); n != 2 {
		t.Errorf("%d helpers were run", n)
	}
}

func handleOnce(t *testing.T, e *engine.Engine, artifact []byte, img *image.Image) string {
	t.Helper()
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
	program, err := e.Program(engine.ProgramConfig{Code: c, Image: m, Linker: l, Entries: []string{"handle"}})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	in, err := program.Start(engine.StartConfig{MemoryLimit: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for {
		switch ev := in.Poll(); ev.Kind {
		case engine.Done:
			return string(in.Response().Body)
		case engine.Yield:
		default:
			t.Fatalf("handle: %+v", ev)
		}
	}
}

// The published examples and the public module that they serve are within every
// limit, with room to spare.
func TestScanTakesRealPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the examples")
	}
	for _, name := range []string{"hello", "redirects", "httpbin"} {
		began := time.Now()
		r, err := Scan(guesttest.GoGuest(t, filepath.Join("..", "..", "sdk", "examples", name)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		t.Logf("%s: %d bytes, %d functions, %d segments in %s with the build", name, r.Bytes, r.Functions, r.Segments, time.Since(began))
		for what, n := range map[string][2]int{
			"bytes": {r.Bytes, scan.MaxBytes}, "functions": {r.Functions, scan.MaxFunctions}, "imports": {len(r.Imports), scan.MaxImports},
			"body": {r.LargestBody, scan.MaxBody}, "locals": {r.MostLocals, scan.MaxLocals}, "nesting": {r.DeepestBlock, scan.MaxNesting},
			"br_table": {r.LongestBranch, scan.MaxBranchTable}, "elements": {r.Elements, scan.MaxElements},
		} {
			if n[0] > n[1]/3 {
				t.Errorf("%s: %s is %d, too near the limit of %d", name, what, n[0], n[1])
			}
		}
	}
}

func TestPrepareWithoutStartUp(t *testing.T) {
	p, err := Prepare(t.Context(), openJail(t, jail.Config{}), guesttest.Guest(t,
		`(data (i32.const 8) "its data") (func (export "handle"))`), function.SnapshotAuto)
	if err != nil {
		t.Fatal(err)
	}
	if p.Started || p.Report.Snapshot.Wanted || bytes.Contains(p.Code, []byte("its data")) {
		t.Errorf("%+v", p.Report.Snapshot)
	}
	img, err := image.Decode(p.Image, 1<<20)
	if err != nil || len(img.Runs) != 1 || string(img.Runs[0].Data) != "its data" {
		t.Errorf("image %+v, %v", img, err)
	}
}

// A start-up that cannot be run ahead is no fault: it runs with every request,
// and the developer learns why.
func TestPrepareSaysWhyNotStarted(t *testing.T) {
	r := openJail(t, jail.Config{})
	for text, start := range map[string]string{
		"kv_open": `(drop (call $kv_open (i32.const 0) (i32.const 1)))`,
		"poll":    `(drop (call $sleep (i64.const 1)))`,
	} {
		p, err := Prepare(t.Context(), r, guesttest.Guest(t, `(func (export "selvage_start") `+start+`) (func (export "handle"))`), function.SnapshotAuto)
		if text == "poll" {
			text = "sleep"
		}
		s := p.Report.Snapshot
		if err != nil || p.Started || !s.Wanted || !strings.Contains(s.Why, text) || strings.Contains(s.Why, "\n") {
			t.Errorf("%s: started %t, %+v, %v", text, p.Started, s, err)
		}
		if len(p.Code) == 0 || len(p.Image) == 0 {
			t.Errorf("%s: nothing to deploy", text)
		}
	}
}

// A start-up that fails would fail with every request: nothing is deployed.
func TestPrepareRefusesAStartUpThatFails(t *testing.T) {
	r := openJail(t, jail.Config{})
	for text, start := range map[string]string{
		"it exited":  `(call $wasi_proc_exit (i32.const 3))`,
		"wasm trap:": `unreachable`,
	} {
		_, err := Prepare(t.Context(), r, guesttest.Guest(t, `(func (export "selvage_start") `+start+`) (func (export "handle"))`), function.SnapshotAuto)
		var refused *jail.Refused
		if !errors.As(err, &refused) || !strings.Contains(refused.Reason, text) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestPrepareRefuses(t *testing.T) {
	r := openJail(t, jail.Config{})
	for name, tc := range map[string]struct {
		module []byte
		text   string
	}{
		"not wasm":       {[]byte("#!/bin/sh"), "not a WebAssembly module"},
		"nothing":        {nil, "the file is empty"},
		"component":      {[]byte("\x00asm\x0d\x00\x01\x00"), "components come in a later release"},
		"unknown import": {guesttest.Module(t, `(module (import "env" "puts" (func)) (memory (export "memory") 1) (func (export "handle")))`), "env.puts"},
		"no handle":      {guesttest.Module(t, `(module (memory (export "memory") 1))`), `"handle"`},
		"too deep":       {wasm.Handle(wasm.Nested(scan.MaxNesting + 1)...), "nests blocks"},
		"ill typed":      {wasm.Handle(0x6a), "type mismatch"},
		"bad index":      {wasm.Handle(0x10, 99), "99"},
		"bad segment": {guesttest.Module(t, `(module (memory (export "memory") 1) (data (i32.const 65535) "ab") (func (export "handle")))`),
			"segment"},
		"no constant": {guesttest.Module(t, `(module (memory (export "memory") 1) (global $g i32 (i32.const 9)) (data (global.get $g) "a") (func (export "handle")))`),
			"constant expression required"},
		"large memory": {guesttest.Module(t, `(module (memory (export "memory") 65536) (func (export "handle")))`), "pages"},
		"bad elements": {guesttest.Module(t, `(module (memory (export "memory") 1) (table 1 funcref) (func $f (export "handle")) (elem (i32.const 1) $f))`),
			"cannot be instantiated"},
		"too large": {append([]byte("\x00asm\x01\x00\x00\x00"), make([]byte, 64<<20)...), "at most 67108864"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Prepare(t.Context(), r, tc.module, function.SnapshotAuto)
			var no *jail.Refused
			if !errors.As(err, &no) || !strings.Contains(no.Reason, tc.text) {
				t.Errorf("err = %v; want a refusal with %q", err, tc.text)
			}
		})
	}
}

// A bomb is stopped where it does no harm: this process neither waits long nor
// grows.
func TestBombs(t *testing.T) {
	bomb := wasm.Bomb(40 << 20)
	if _, err := Scan(bomb); err != nil {
		t.Fatalf("it does not get past the scan: %v", err)
	}
	before := resident(t)
	_, err := openJail(t, jail.Config{MaxWall: 3 * time.Second}).Run(t.Context(), jail.Compile, bomb)
	if !errors.Is(err, jail.ErrTime) {
		t.Errorf("time: %v", err)
	}
	_, err = openJail(t, jail.Config{}).Run(t.Context(), jail.Prepare, encode(prepareMark, nil, append(bomb, narrow...)))
	if !errors.Is(err, jail.ErrMemory) {
		t.Errorf("memory: %v", err)
	}
	if after := resident(t); after > before+64<<20 {
		t.Errorf("this process grew from %d to %d MiB", before>>20, after>>20)
	}
}

// resident is how much memory this process has in use.
func resident(t *testing.T) int {
	t.Helper()
	var pages, unused int
	b, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, err = fmt.Sscan(string(b), &unused, &pages)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
