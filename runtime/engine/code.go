package engine

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/selvage-edge/selvage/runtime/engine/cshim"
	"github.com/selvage-edge/selvage/runtime/image"
)

// ExternKind is what an import or export is.
type ExternKind uint8

// The kinds.
const (
	FuncExtern ExternKind = iota
	GlobalExtern
	TableExtern
	MemoryExtern
)

// Extern is one import or export of code.
type Extern struct {
	Module  string // of an import
	Name    string
	Kind    ExternKind
	Params  []ValKind // of a function; a reference or vector type is shown as 0
	Results []ValKind
}

// IsEntry reports whether e can be an entry of a program: a function () -> ().
func (e Extern) IsEntry() bool {
	return e.Kind == FuncExtern && len(e.Params) == 0 && len(e.Results) == 0
}

// Code is compiled code, shared by every program made from it.
type Code struct {
	c       cshim.Code
	imports []Extern
	exports []Extern
	byName  map[string]Extern // exports
	memory  *cshim.Extern     // the exported one, if any
	bytes   int64
	handle
}

// handle is something of C's that is closed once and not used afterwards.
type handle struct{ closed atomic.Bool }

func (h *handle) close(free func()) {
	if !h.closed.Swap(true) {
		free()
	}
}

// Load makes code runnable. The artifact is native code: the caller has
// authenticated exactly these bytes. ErrCapacity when maps run short.
func (*Engine) Load(artifact []byte) (*Code, error) {
	if !cshim.Room(CodeMaps) {
		return nil, ErrCapacity
	}
	c, err := cshim.Load(artifact)
	if err != nil {
		return nil, fmt.Errorf("load artifact: %w", err)
	}
	code, err := describe(c)
	if err == nil {
		code.bytes = int64(len(artifact))
	}
	return code, err
}

// LoadFile is Load from a sealed memfd, which is mapped rather than copied.
func (*Engine) LoadFile(fd int) (*Code, error) {
	c, err := cshim.LoadFile(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("load artifact: %w", err)
	}
	return describe(c)
}

func describe(c cshim.Code) (*Code, error) {
	imports, exports, err := c.Describe()
	if err != nil {
		c.Free()
		return nil, fmt.Errorf("load artifact: %w", err)
	}
	code := &Code{c: c, imports: externs(imports), exports: externs(exports), byName: map[string]Extern{}}
	for i, e := range exports {
		code.byName[e.Name] = code.exports[i]
		if e.Kind == cshim.Memory {
			code.memory = &exports[i]
		}
	}
	return code, nil
}

func externs(list []cshim.Extern) []Extern {
	out := make([]Extern, len(list))
	for i, e := range list {
		out[i] = Extern{Module: e.Module, Name: e.Name, Kind: ExternKind(e.Kind), Params: valKinds(e.Params), Results: valKinds(e.Results)}
	}
	return out
}

// valKinds turns wasm.h's numbers into the binary format's.
func valKinds(kinds []byte) []ValKind {
	out := make([]ValKind, len(kinds))
	for i, k := range kinds {
		if k <= 3 {
			out[i] = I32 - ValKind(k)
		}
	}
	return out
}

// renewable reports whether memory and mutable globals are all that a guest of the
// code can leave behind: image.Split, which has read every instruction, has said so.
func (c *Code) renewable() bool {
	e, ok := c.byName[image.RenewableExport]
	return ok && e.Kind == MemoryExtern && c.memory != nil && len(c.mutables()) <= image.RenewableGlobals
}

// mutables are the names of all mutable globals, as Split exports them.
func (c *Code) mutables() (names []string) {
	for _, e := range c.exports {
		if e.Kind == GlobalExtern && strings.HasPrefix(e.Name, image.GlobalPrefix) {
			names = append(names, e.Name)
		}
	}
	return names
}

// Imports lists what the code imports.
func (c *Code) Imports() []Extern { return c.imports }

// Exports lists what the code exports.
func (c *Code) Exports() []Extern { return c.exports }

// HasFunc reports whether the code exports a function of that name.
func (c *Code) HasFunc(name string) bool {
	e, ok := c.byName[name]
	return ok && e.Kind == FuncExtern
}

// Bytes is the memory that the code takes; 0 if it was mapped from a file.
func (c *Code) Bytes() int64 { return c.bytes }

// Close gives the code back; programs made from it stay whole.
func (c *Code) Close() { c.close(c.c.Free) }
