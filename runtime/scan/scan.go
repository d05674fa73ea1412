// Package scan walks a module before any engine sees it and tells what it
// holds, and whether the platform takes it: limits, features, imports, exports.
package scan

import (
	"bytes"
	"errors"
	"fmt"
)

// Why a module is not taken. The text of an error says what to do.
var (
	ErrNotWasm   = errors.New("this is not a WebAssembly module")
	ErrComponent = errors.New("this is a WebAssembly component, not a core module")
	ErrMalformed = errors.New("the module is malformed")
	ErrFeature   = errors.New("the module uses a WebAssembly feature that is switched off here")
	ErrLimit     = errors.New("the module is over a limit")
	ErrImport    = errors.New("the module imports what the platform does not have")
	ErrExport    = errors.New("the module does not export what the platform calls")
)

// The limits. They bound what compiling can cost and leave room above what real
// toolchains make: a program of standard Go with net/http, its client and
// go-httpbin has 15 MB, 9,440 functions, the largest of 46 kB, with 20 locals,
// 549 blocks deep and a br_table of 1,031; its linker stops at 100,000 data
// segments, which is also the engine's own limit.
const (
	MaxBytes       = 64 << 20
	MaxTypes       = 10_000
	MaxParams      = 1_000 // of one type, also results
	MaxImports     = 512
	MaxExports     = 512
	MaxFunctions   = 50_000
	MaxGlobals     = 10_000
	MaxTables      = 1
	MaxMemories    = 1
	MaxElements    = 65_536 // in a table, and in element segments together
	MaxSegments    = 100_000
	MaxBody        = 1 << 20 // bytes of one function
	MaxLocals      = 10_000  // of one function
	MaxNesting     = 5_000   // blocks within blocks
	MaxBranchTable = 16_384  // targets of one br_table
	MaxConstant    = 64      // instructions of a constant expression: an instance's start computes it, and no budget counts that
	MaxName        = 1 << 10 // bytes of one import's or export's name
	MaxCustom      = 1_000   // custom sections
)

// Func is a function that may be imported. Types are their bytes in the binary format.
type Func struct {
	Module, Name    string
	Params, Results []byte
}

// Report is what a module holds.
type Report struct {
	Bytes     int      `json:"bytes"`
	Types     int      `json:"types"`
	Imports   []Import `json:"imports"`
	Exports   []Export `json:"exports"`
	Functions int      `json:"functions"` // defined in the module
	CodeBytes int      `json:"code_bytes"`
	Globals   int      `json:"globals"`
	Segments  int      `json:"segments"` // of data
	Elements  int      `json:"elements"`
	MinPages  uint64   `json:"min_pages"` // of memory, 64 KiB each
	MaxPages  uint64   `json:"max_pages"` // 0: none stated
	Start     bool     `json:"start"`     // has a start function
	Producers []string `json:"producers"` // tools that say they made it: "language Go 1.26"

	// The largest of each kind, for people who wonder what is slow to compile.
	LargestBody   int `json:"largest_body"`
	MostLocals    int `json:"most_locals"`
	DeepestBlock  int `json:"deepest_block"`
	LongestBranch int `json:"longest_branch"`

	// Touches names the instructions that change tables and segments, sorted:
	// what an image of memory and globals does not hold.
	Touches []string `json:"touches"`
}

// Import is one import.
type Import struct {
	Module string `json:"module"`
	Name   string `json:"name"`
}

// Export is one export.
type Export struct {
	Name string `json:"name"`
	Kind string `json:"kind"` // func, table, memory, global
}

// ExportsFunc reports whether the module exports a function of that name.
func (r *Report) ExportsFunc(name string) bool {
	for _, e := range r.Exports {
		if e.Name == name && e.Kind == "func" {
			return true
		}
	}
	return false
}

var (
	magic     = []byte("\x00asm")
	version   = []byte{1, 0, 0, 0}
	component = []byte{1, 0} // the layer, after a version of two bytes
)

// Module walks a whole module. Imports are checked against allowed; exports
// against sdk/abi. An error is one of this package's, wrapped; the Report
// holds what was found up to there. It takes time in proportion to the module
// and never runs anything.
func Module(module []byte, allowed []Func) (Report, error) {
	w := walker{r: reader{b: module}, report: Report{Bytes: len(module)}, allowed: allowed}
	if err := preamble(module); err != nil {
		return w.report, err
	}
	w.r.at = len(magic) + len(version)
	w.sections()
	w.finish()
	if w.r.err != nil {
		return w.report, w.r.err
	}
	return w.report, w.contract()
}

func preamble(b []byte) error {
	if !bytes.HasPrefix(b, magic) || len(b) < 8 {
		return fmt.Errorf("%w: it begins with %s; %s", ErrNotWasm, begin(b), buildHint)
	}
	if len(b) > MaxBytes {
		return fmt.Errorf("%w: it has %d bytes; at most %d are taken", ErrLimit, len(b), MaxBytes)
	}
	v := b[4:8]
	switch {
	case bytes.Equal(v, version):
		return nil
	case bytes.Equal(v[2:], component):
		return fmt.Errorf("%w: components come in a later release; until then build a core module: %s", ErrComponent, buildHint)
	default:
		return fmt.Errorf("%w: its version is %x; WebAssembly has version 1", ErrNotWasm, v)
	}
}

const buildHint = "for Go, GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared; " +
	"for Rust, --target wasm32-wasip1 or wasm32-unknown-unknown with crate-type cdylib; " +
	"for C, clang --target=wasm32-wasi -mexec-model=reactor"

func begin(b []byte) string {
	switch {
	case len(b) == 0:
		return "nothing: the file is empty"
	case bytes.HasPrefix(b, []byte("(module")) || bytes.HasPrefix(b, []byte("(component")):
		return "WebAssembly text: turn it into a binary with wat2wasm"
	case bytes.HasPrefix(b, []byte("\x7fELF")), bytes.HasPrefix(b, []byte("MZ")):
		return "a native program's header"
	default:
		return fmt.Sprintf("%.8q", b[:min(len(b), 8)])
	}
}
