// Package guesttest makes guests for tests: small ones in the text format, real
// ones with the Go toolchain.
package guesttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bytecodealliance/wasmtime-go/v39"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/guest"
)

// Module assembles a module in the text format.
func Module(t testing.TB, text string) []byte {
	t.Helper()
	wasm, err := wasmtime.Wat2Wasm(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return wasm
}

// Guest assembles a module around body, which defines at least "handle". It
// has a memory of two pages, exported, and every import there is under its own
// name: selvage_v1's as $name, WASI's as $wasi_name.
func Guest(t testing.TB, body string) []byte {
	t.Helper()
	var b strings.Builder
	b.WriteString("(module\n")
	for _, i := range guest.Imports() {
		prefix := "$"
		if i.Module == "wasi_snapshot_preview1" {
			prefix = "$wasi_"
		}
		fmt.Fprintf(&b, "(import %q %q (func %s%s%s%s))\n", i.Module, i.Name, prefix, i.Name, kinds("param", i.Params), kinds("result", i.Results))
	}
	b.WriteString("(memory (export \"memory\") 2)\n" + body + ")")
	return Module(t, b.String())
}

func kinds(what string, list []engine.ValKind) string {
	if len(list) == 0 {
		return ""
	}
	s := " (" + what
	for _, k := range list {
		s += " " + k.String()
	}
	return s + ")"
}

// GoGuest builds the Go program in dir as a reactor, with the toolchain that
// runs the test.
func GoGuest(t testing.TB, dir string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOWORK=off")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", dir, err, msg)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// Source is the folder of a Go guest that this package brings along.
func Source(t testing.TB, name string) string {
	t.Helper()
	cmd := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/selvage-edge/selvage/runtime/guesttest")
	dir, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(dir)), "testdata", name)
}

// Imports lists the functions a module imports, as "module.name type".
func Imports(t testing.TB, wasm []byte) []string {
	t.Helper()
	module, err := wasmtime.NewModule(one(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range module.Imports() {
		if f := i.Type().FuncType(); f != nil {
			names = append(names, fmt.Sprintf("%s.%s%s%s", i.Module(), *i.Name(), types("param", f.Params()), types("result", f.Results())))
		}
	}
	return names
}

// Offered lists the functions the host has, in the form of Imports.
func Offered() []string {
	var names []string
	for _, i := range guest.Imports() {
		names = append(names, i.Module+"."+i.Name+kinds("param", i.Params)+kinds("result", i.Results))
	}
	return names
}

func types(what string, list []*wasmtime.ValType) string {
	if len(list) == 0 {
		return ""
	}
	s := " (" + what
	for _, k := range list {
		s += " " + k.String()
	}
	return s + ")"
}

var one = sync.OnceValue(wasmtime.NewEngine)
