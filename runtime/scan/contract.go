package scan

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/selvage-edge/selvage/sdk/abi"
)

// reserved begins the export names that the platform adds.
const reserved = "selvage:"

// maxTold is how many unknown imports an error names.
const maxTold = 8

// contract holds the module against what the platform calls and offers.
func (w *walker) contract() error {
	if len(w.unknown) > 0 {
		return w.importError()
	}
	if e, ok := w.exported[abi.ExportMemory]; !ok || e.Kind != "memory" {
		return fmt.Errorf("%w: %q, its memory; %s", ErrExport, abi.ExportMemory, buildHint)
	}
	if _, ok := w.exported[abi.ExportHandle]; !ok {
		return w.noHandle()
	}
	for _, name := range []string{abi.ExportHandle, abi.ExportInitialize, abi.ExportStart} {
		if err := w.entry(name); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) noHandle() error {
	hint := "export a function of that name without parameters and results; with the Go SDK, import it and call edge.Serve in main"
	if _, ok := w.exported["_start"]; ok {
		hint = "it exports _start instead, so it was built as a program that runs once; build a reactor: " + buildHint
	}
	return fmt.Errorf("%w: %q, which answers a request; %s", ErrExport, abi.ExportHandle, hint)
}

// entry checks that what the platform calls by that name, if there, is a
// function without parameters and results.
func (w *walker) entry(name string) error {
	e, ok := w.exported[name]
	if !ok {
		return nil
	}
	if e.Kind != "func" {
		return fmt.Errorf("%w: %q must be a function; it is a %s", ErrExport, name, e.Kind)
	}
	if t := w.types[w.functions[w.exportOf[name]]]; len(t.params)+len(t.results) > 0 {
		return fmt.Errorf("%w: %q must have no parameters and no results; it is %s", ErrExport, name, t)
	}
	return nil
}

// checkImport notes what is wrong with one imported function.
func (w *walker) checkImport(im Import, t functype, f *Func) {
	switch {
	case w.r.err != nil:
	case f == nil:
		w.unknown = append(w.unknown, im.Module+"."+im.Name+hintFor(im, w.allowed))
	case !bytes.Equal(f.Params, t.params) || !bytes.Equal(f.Results, t.results):
		want := functype{f.Params, f.Results}
		w.unknown = append(w.unknown, fmt.Sprintf("%s.%s is declared as %s; it is %s: build with the SDK of this platform's version",
			im.Module, im.Name, t, want))
	}
}

func (w *walker) importError() error {
	told, more := w.unknown, ""
	if len(told) > maxTold {
		told, more = told[:maxTold], fmt.Sprintf("; and %d more", len(w.unknown)-maxTold)
	}
	return fmt.Errorf("%w: %s%s", ErrImport, strings.Join(told, "; "), more)
}

// hints say what to do about imports of modules that are known elsewhere.
var hints = []struct{ module, name, hint string }{
	{"wasi_snapshot_preview1", "sock_", ": there are no sockets; use the SDK's fetch"},
	{"wasi_snapshot_preview1", "path_", ": there are no files; embed what is needed in the module or keep it in KV"},
	{"wasi_snapshot_preview1", "fd_", ": there are no files; embed what is needed in the module or keep it in KV"},
	{"wasi_snapshot_preview1", "thread", ": there are no threads"},
	{"wasi_unstable", "", ": an older WASI; build with a current toolchain for wasip1"},
	{"wasi:", "", ": WASI 0.2 comes with components, in a later release; build for wasip1"},
	{"wasi", "thread", ": there are no threads"},
	{"gojs", "", ": built for the browser; build with GOOS=wasip1, not GOOS=js"},
	{"go", "", ": built for the browser; build with GOOS=wasip1, not GOOS=js"},
	{"fastly_", "", ": the Fastly interface comes in a later release"},
	{"__wbindgen", "", ": built with wasm-bindgen, for browsers; build for wasm32-wasip1 or without it"},
	{"wbg", "", ": built with wasm-bindgen, for browsers; build for wasm32-wasip1 or without it"},
	{"a", "", ": built with emscripten, for browsers; build with clang --target=wasm32-wasi"},
	{"env", "abort", ": in AssemblyScript, build with --use abort="},
	{"env", "memory", ": define the memory in the module and export it"},
	{"env", "", ": not found by the linker; link the library that has it, or remove its use"},
}

func hintFor(im Import, allowed []Func) string {
	for _, h := range hints {
		if strings.HasPrefix(im.Module, h.module) && strings.HasPrefix(im.Name, h.name) && (len(h.module) > 3 || h.module == im.Module) {
			return h.hint
		}
	}
	for _, f := range allowed {
		if f.Module == im.Module {
			return ": " + im.Module + " has no such function; build with the SDK of this platform's version, or upgrade the platform"
		}
	}
	if strings.HasPrefix(im.Module, "selvage_v") {
		return ": a version of the interface that this platform does not have; upgrade the platform, or build with an older SDK"
	}
	return ": link it into the module, or remove its use; only " + abi.Module + " and wasi_snapshot_preview1 can be imported"
}

// String is the type as the text format has it: (i32, i32) -> i64.
func (t functype) String() string {
	return fmt.Sprintf("(%s) -> (%s)", typeNames(t.params), typeNames(t.results))
}

func typeNames(types []byte) string {
	names := map[byte]string{0x7f: "i32", 0x7e: "i64", 0x7d: "f32", 0x7c: "f64", 0x7b: "v128", 0x70: "funcref", 0x6f: "externref"}
	all := make([]string, len(types))
	for i, t := range types {
		all[i] = names[t]
	}
	return strings.Join(all, ", ")
}
