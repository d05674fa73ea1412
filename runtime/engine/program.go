package engine

import (
	"errors"
	"fmt"
	"strings"

	"github.com/selvage-edge/selvage/runtime/engine/cshim"
	"github.com/selvage-edge/selvage/runtime/image"
)

// Image is a prepared image: a sealed memfd that instances map.
type Image struct {
	m       cshim.Image
	size    uint64
	bytes   int64
	globals []image.Global
	handle
}

// Image prepares an image for instances; they share it. ErrCapacity when maps run short.
func (*Engine) Image(img *image.Image) (*Image, error) {
	if err := img.Validate(); err != nil {
		return nil, err
	}
	if !cshim.Room(ImageMaps) {
		return nil, ErrCapacity
	}
	m, err := cshim.NewImage(img.Size)
	if err != nil {
		return nil, err
	}
	var bytes int64
	for _, r := range img.Runs {
		bytes += int64(len(r.Data))
		if err := m.Write(r.Offset, r.Data); err != nil {
			m.Free()
			return nil, err
		}
	}
	if err := m.Seal(); err != nil {
		m.Free()
		return nil, err
	}
	return &Image{m: m, size: img.Size, bytes: bytes, globals: append([]image.Global(nil), img.Globals...)}, nil
}

// Size is the image's size in bytes.
func (m *Image) Size() uint64 { return m.size }

// Bytes is the memory that the image takes: what is not zero.
func (m *Image) Bytes() int64 { return m.bytes }

// Audit compares every free slot of the image with it, byte by byte, and checks
// that what instances had grown is out of reach. It returns how many slots it
// looked at. For tests and soak runs.
func (m *Image) Audit() (int, error) {
	if m.closed.Load() {
		return 0, errors.New("audit: the image is closed")
	}
	return m.m.Audit()
}

// Close gives the image back; programs made from it stay whole.
func (m *Image) Close() { m.close(m.m.Free) }

// Linker is a table of imports.
type Linker struct {
	l cshim.Linker
	handle
}

// Link defines the imports that programs may use; once per process.
func (*Engine) Link(imports []Import) (*Linker, error) {
	l, err := cshim.NewLinker()
	if err != nil {
		return nil, err
	}
	for _, im := range imports {
		if err := define(l, im); err != nil {
			l.Free()
			return nil, fmt.Errorf("link %s.%s: %w", im.Module, im.Name, err)
		}
	}
	return &Linker{l: l}, nil
}

func define(l cshim.Linker, im Import) error {
	if len(im.Params) > MaxArgs || len(im.Results) > 1 {
		return fmt.Errorf("%d parameters and %d results: at most %d and 1", len(im.Params), len(im.Results), MaxArgs)
	}
	if err := im.checkBuiltin(); err != nil {
		return err
	}
	if im.Op == 0 && (im.Builtin == NoBuiltin || im.Builtin.Suspends()) {
		return errors.New("it may suspend but has no op")
	}
	params, err := wasmKinds(im.Params)
	if err != nil {
		return err
	}
	results, err := wasmKinds(im.Results)
	if err != nil {
		return err
	}
	return l.Define(im.Module, im.Name, params, results, uint32(im.Op), uint8(im.Builtin))
}

// checkBuiltin compares the import's type with what the C function reads.
func (im Import) checkBuiltin() error {
	if im.Builtin == NoBuiltin {
		return nil
	}
	want := cshim.Signature(uint8(im.Builtin))
	if want == "" {
		return fmt.Errorf("there is no builtin %d", im.Builtin)
	}
	got := signature(im.Params, im.Results)
	_, results, _ := strings.Cut(got, ":")
	if got != want && want != "*:"+results {
		return fmt.Errorf("the builtin's type is %s, the import's %s", want, got)
	}
	return nil
}

// Suspends reports whether calls of b may suspend, so that an Import needs an Op.
func (b Builtin) Suspends() bool { return cshim.Suspends(uint8(b)) }

func signature(params, results []ValKind) string {
	letters := map[ValKind]byte{I32: 'i', I64: 'I', F32: 'f', F64: 'F'}
	var s []byte
	for _, k := range params {
		s = append(s, letters[k])
	}
	s = append(s, ':')
	for _, k := range results {
		s = append(s, letters[k])
	}
	return string(s)
}

// wasmKinds turns the binary format's numbers into wasm.h's.
func wasmKinds(kinds []ValKind) ([]byte, error) {
	out := make([]byte, len(kinds))
	for i, k := range kinds {
		if k < F64 || k > I32 {
			return nil, fmt.Errorf("%v cannot be passed to the host", k)
		}
		out[i] = byte(I32 - k)
	}
	return out, nil
}

// Close gives the linker back; programs made from it stay whole.
func (l *Linker) Close() { l.close(l.l.Free) }

// ProgramConfig says what a program is made of.
type ProgramConfig struct {
	Code        *Code
	Image       *Image
	Linker      *Linker
	Entries     []string // exports of type () -> (), called in order on a new instance; each must exist
	Environment []byte   // sdk/abi environment blob
	Args        []string // WASI arguments
	Environ     []string // WASI environment, "NAME=value"
}

// Program is code bound to its image and imports, ready to start.
type Program struct {
	p     cshim.Prog
	code  *Code
	image *Image
	handle
}

// Program binds code, image and imports. The caller may close all three afterwards.
func (*Engine) Program(c ProgramConfig) (*Program, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("program: %w", err)
	}
	p, err := cshim.NewProg(c.Code.c, c.Image.m, c.Linker.l, c.Code.memory)
	if err != nil {
		return nil, fmt.Errorf("program: %w", err)
	}
	if err := c.fill(p); err != nil {
		p.Free()
		return nil, fmt.Errorf("program: %w", err)
	}
	return &Program{p: p, code: c.Code, image: c.Image}, nil
}

func (c ProgramConfig) check() error {
	if c.Code == nil || c.Image == nil || c.Linker == nil {
		return errors.New("code, image and linker are all needed")
	}
	if c.Code.closed.Load() || c.Image.closed.Load() || c.Linker.closed.Load() {
		return errors.New("its code, image or linker is closed")
	}
	for _, name := range c.Entries {
		e, ok := c.Code.byName[name]
		if !ok || !e.IsEntry() {
			return fmt.Errorf("the code does not export a function %q without parameters and results", name)
		}
	}
	for _, g := range c.Image.globals {
		if e, ok := c.Code.byName[image.GlobalExport(g.Index)]; !ok || e.Kind != GlobalExtern {
			return fmt.Errorf("the image sets global %d, which the code does not export: they do not belong together", g.Index)
		}
	}
	m := c.Code.memory
	if m == nil && c.Image.size != 0 {
		return errors.New("the image has a memory and the code exports none: they do not belong together")
	}
	if m != nil && (c.Image.size < m.Min<<16 || m.Max < 1<<16 && c.Image.size > m.Max<<16) {
		return fmt.Errorf("the image is %d bytes and the code's memory %d to %d pages: they do not belong together", c.Image.size, m.Min, m.Max)
	}
	return nil
}

func (c ProgramConfig) fill(p cshim.Prog) error {
	for _, name := range c.Entries {
		if err := p.Entry(name); err != nil {
			return err
		}
	}
	for _, g := range c.Image.globals {
		if err := p.Global(image.GlobalExport(g.Index), g.Type, g.Bits); err != nil {
			return err
		}
	}
	if c.Code.renewable() {
		if err := p.Renew(c.Code.mutables()); err != nil {
			return err
		}
	}
	if c.Environment != nil {
		if err := p.Blob(cshim.Environment, c.Environment, 0); err != nil {
			return err
		}
	}
	if err := fillStrings(p, cshim.Args, c.Args); err != nil {
		return err
	}
	return fillStrings(p, cshim.Environ, c.Environ)
}

func fillStrings(p cshim.Prog, which int, list []string) error {
	var b []byte
	for _, s := range list {
		if strings.IndexByte(s, 0) >= 0 {
			return fmt.Errorf("%q has a zero byte", s)
		}
		b = append(append(b, s...), 0)
	}
	return p.Blob(which, b, len(list))
}

// Close gives the program back once its last instance is freed.
func (p *Program) Close() { p.close(p.p.Free) }
