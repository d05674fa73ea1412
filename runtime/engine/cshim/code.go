package cshim

// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"
)

// Validate reports why the engine does not accept a module.
func Validate(wasm []byte) error {
	p, n := bytesPtr(wasm)
	return take(C.sv_validate(p, n))
}

// Compile returns the artifact of a module.
func Compile(wasm []byte) ([]byte, error) {
	p, n := bytesPtr(wasm)
	var out *C.uint8_t
	var size C.size_t
	if err := take(C.sv_compile(p, n, &out, &size)); err != nil {
		return nil, err
	}
	defer C.free(unsafe.Pointer(out))
	return append([]byte(nil), unsafe.Slice((*byte)(out), int(size))...), nil
}

// Code is a compiled module.
type Code struct{ p *C.sv_code }

// Load makes an artifact runnable.
func Load(artifact []byte) (Code, error) {
	var c Code
	p, n := bytesPtr(artifact)
	err := take(C.sv_load(p, n, &c.p))
	return c, err
}

// LoadFile maps an artifact.
func LoadFile(path string) (Code, error) {
	var c Code
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	err := take(C.sv_load_file(name, &c.p))
	return c, err
}

// Free gives the module back.
func (c Code) Free() { C.sv_code_free(c.p) }

// Kinds of an Extern.
const (
	Func = iota
	Global
	Table
	Memory
)

// Extern is one import or export.
type Extern struct {
	Kind            byte
	Module, Name    string
	Params, Results []byte // 0 i32, 1 i64, 2 f32, 3 f64, else a reference or vector
	Min, Max        uint64 // of a memory, in 64 KiB pages; Max is MaxUint64 if there is none
}

// Describe lists imports and exports.
func (c Code) Describe() (imports, exports []Extern, err error) {
	var out *C.uint8_t
	var size C.size_t
	if err := take(C.sv_code_describe(c.p, &out, &size)); err != nil {
		return nil, nil, err
	}
	defer C.free(unsafe.Pointer(out))
	r := records(unsafe.Slice((*byte)(out), int(size)))
	return r.externs(), r.externs(), nil
}

// records reads what code.c's put_* wrote.
type records []byte

func (r *records) next(n uint32) []byte {
	b := (*r)[:n]
	*r = (*r)[n:]
	return b
}

func (r *records) u32() uint32   { return binary.NativeEndian.Uint32(r.next(4)) }
func (r *records) u64() uint64   { return binary.NativeEndian.Uint64(r.next(8)) }
func (r *records) text() string  { return string(r.next(r.u32())) }
func (r *records) types() []byte { return append([]byte(nil), r.next(r.u32())...) }

func (r *records) externs() []Extern {
	list := make([]Extern, r.u32())
	for i := range list {
		e := &list[i]
		e.Kind = r.next(1)[0]
		e.Module, e.Name = r.text(), r.text()
		switch e.Kind {
		case Func:
			e.Params, e.Results = r.types(), r.types()
		case Memory:
			e.Min, e.Max = r.u64(), r.u64()
		}
	}
	return list
}

// Image is a sealed memfd.
type Image struct{ p *C.sv_image }

// NewImage makes an image of zeroes.
func NewImage(size uint64) (Image, error) {
	var m Image
	err := take(C.sv_image_new(C.uint64_t(size), &m.p))
	return m, err
}

// Write puts bytes into an image that is not sealed.
func (m Image) Write(offset uint64, data []byte) error {
	p, n := bytesPtr(data)
	return take(C.sv_image_write(m.p, C.uint64_t(offset), p, n))
}

// Seal ends the writing.
func (m Image) Seal() error { return take(C.sv_image_seal(m.p)) }

// Free gives the image back.
func (m Image) Free() { C.sv_image_free(m.p) }

// Audit compares every free slot with the image, what was grown too, and
// returns how many it compared.
func (m Image) Audit() (int, error) {
	var message *C.char
	n := C.sv_image_audit(m.p, &message)
	return int(n), take(message)
}

// Linker is a table of imports.
type Linker struct{ p *C.sv_linker }

// NewLinker makes an empty table.
func NewLinker() (Linker, error) {
	var l Linker
	err := take(C.sv_linker_new(&l.p))
	return l, err
}

// Define adds an import; types as in Extern.
func (l Linker) Define(module, name string, params, results []byte, op uint32, builtin uint8) error {
	m, mn := stringPtr(module)
	s, sn := stringPtr(name)
	p, pn := bytesPtr(params)
	r, rn := bytesPtr(results)
	return take(C.sv_linker_define(l.p, m, mn, s, sn, p, pn, r, rn, C.uint32_t(op), C.uint32_t(builtin)))
}

// Free gives the table back.
func (l Linker) Free() { C.sv_linker_free(l.p) }

// Signature is the type a builtin must be imported with: "iiI:i"; "*" stands for
// any parameters. It is empty when there is no such builtin.
func Signature(builtin uint8) string { return C.GoString(C.sv_builtin_signature(C.uint32_t(builtin))) }

// Suspends reports whether a builtin may suspend.
func Suspends(builtin uint8) bool { return bool(C.sv_builtin_suspends(C.uint32_t(builtin))) }

// Prog is a program.
type Prog struct{ p *C.sv_prog }

// NewProg binds code, image and imports; memory is the code's exported one, or nil.
func NewProg(c Code, m Image, l Linker, memory *Extern) (Prog, error) {
	low, high := uint64(math.MaxUint64), uint64(math.MaxUint64) // no memory: none is ever made
	if memory != nil {
		low, high = memory.Min<<16, min(memory.Max, 1<<16)<<16
	}
	var p Prog
	err := take(C.sv_prog_new(c.p, m.p, l.p, C.uint64_t(low), C.uint64_t(high), &p.p))
	return p, err
}

// Entry adds an export to call on a new instance.
func (p Prog) Entry(name string) error {
	s, n := stringPtr(name)
	return take(C.sv_prog_entry(p.p, s, n))
}

// Global adds an exported global to set on a new instance.
func (p Prog) Global(name string, kind byte, bits uint64) error {
	s, n := stringPtr(name)
	return take(C.sv_prog_global(p.p, s, n, C.uint8_t(kind), C.uint64_t(bits)))
}

// Renew says that instances may be renewed: these are all mutable globals that the code exports. Global comes before.
func (p Prog) Renew(mutables []string) error {
	for _, name := range mutables {
		s, n := stringPtr(name)
		if err := take(C.sv_prog_mutable(p.p, s, n)); err != nil {
			return err
		}
	}
	C.sv_prog_renewable(p.p)
	return nil
}

// Blobs of a program.
const (
	Environment = C.SV_ENVIRONMENT
	Args        = C.SV_ARGS
	Environ     = C.SV_ENVIRON
)

// Blob sets one; count is the number of NUL-terminated strings in it.
func (p Prog) Blob(which int, data []byte, count int) error {
	if len(data) > math.MaxInt32 {
		return fmt.Errorf("program: %d bytes of arguments or environment", len(data))
	}
	d, n := bytesPtr(data)
	return take(C.sv_prog_blob(p.p, C.int(which), d, n, C.uint32_t(count)))
}

// Free gives the program back when its last instance is gone.
func (p Prog) Free() { C.sv_prog_free(p.p) }
