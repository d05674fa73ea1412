package image

import (
	"encoding/binary"
	"fmt"
)

// reserved starts the names of the exports that Split adds.
const reserved = "selvage:"

// Split takes memory contents and the values of mutable globals out of a
// module. What is left, the code, is the same for all modules that differ in
// those only: data segments are empty or gone, the memory's minimum is zero,
// mutable globals start at zero and are exported (GlobalExport), the start
// section is an export (StartExport), and of the custom sections only the names
// are kept.
//
// From the first segment whose place only an imported global tells, all stay in
// the code; so does data for an imported memory. Errors name the segment.
func Split(b []byte) (code []byte, img *Image, err error) {
	m, err := parse(b)
	if err != nil {
		return nil, nil, fmt.Errorf("split: %w", err)
	}
	if m.reservedExport != "" {
		return nil, nil, fmt.Errorf("split: export %.80q: names that start with %q are the platform's", m.reservedExport, reserved)
	}
	img = &Image{}
	if m.memory != nil {
		if img.Size = m.memory.min * PageSize; img.Size > MaxSize {
			return nil, nil, fmt.Errorf("split: the memory starts with %d pages; at most %d are supported", m.memory.min, MaxSize/PageSize)
		}
	}
	segments, err := m.readData()
	if err != nil {
		return nil, nil, fmt.Errorf("split: %w", err)
	}
	taken, err := m.computable(segments, img.Size)
	if err != nil {
		return nil, nil, fmt.Errorf("split: %w", err)
	}
	img.Runs = paint(segments[:taken])
	img.Globals = m.globalValues()
	if err := img.Validate(); err != nil {
		return nil, nil, fmt.Errorf("split: %w", err)
	}
	return m.rewrite(segments, taken), img, nil
}

// segment is one data segment.
type segment struct {
	active bool
	offset constant // of an active one
	data   []byte
	raw    []byte // as it stands in the module
}

func (m *module) readData() ([]segment, error) {
	for _, s := range m.sections {
		if s.id != secData {
			continue
		}
		r := reader{b: s.body}
		list := make([]segment, 0, min(r.count(2), 1<<16))
		r = reader{b: s.body}
		for n := r.count(2); n > 0 && r.err == nil; n-- {
			list = append(list, m.readSegment(&r))
			if r.err != nil {
				return nil, fmt.Errorf("data segment %d: %w", len(list)-1, r.err)
			}
		}
		if r.err == nil && len(r.b) != 0 {
			r.fail(fmt.Errorf("%d bytes too many", len(r.b)))
		}
		return list, wrap("data section", r.err)
	}
	return nil, nil
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (m *module) readSegment(r *reader) segment {
	whole := r.b
	var s segment
	switch kind := r.u32(); kind {
	case 0, 2:
		if kind == 2 {
			if index := r.u32(); r.err == nil && index != 0 {
				r.fail(fmt.Errorf("memory %d: one memory is supported", index))
			}
		}
		s.active = true
		s.offset = r.constExpr(m.globals)
		if r.err == nil && s.offset.known && s.offset.typ != typeI32 {
			r.fail(fmt.Errorf("its offset is not an i32"))
		}
	case 1:
	default:
		if r.err == nil {
			r.fail(fmt.Errorf("kind %d is not supported", kind))
		}
	}
	s.data = r.take(r.u32())
	s.raw = whole[:len(whole)-len(r.b)]
	return s
}

// computable returns how many leading segments move to the image.
func (m *module) computable(segments []segment, size uint64) (int, error) {
	if m.memory == nil {
		return 0, nil
	}
	for i, s := range segments {
		if !s.active {
			continue
		}
		if !s.offset.known {
			return i, nil
		}
		if at, n := s.offset.bits, uint64(len(s.data)); at+n > size {
			return 0, fmt.Errorf("data segment %d: %d bytes at %d end outside the memory of %d bytes", i, n, at, size)
		}
	}
	return len(segments), nil
}

// globalValues are the values of mutable globals that zero would be wrong for.
func (m *module) globalValues() []Global {
	var list []Global
	for i, g := range m.globals {
		if g.movable() && g.value.bits != 0 {
			list = append(list, Global{Index: uint32(i), Type: g.typ, Bits: g.value.bits})
		}
	}
	return list
}

// movable says that the global's initial value belongs to the image.
func (g global) movable() bool { return g.mutable && g.value.known && g.init != nil }

// rewrite writes the code.
func (m *module) rewrite(segments []segment, taken int) []byte {
	out := append([]byte(nil), magic...)
	exported := false
	renewable := m.renewable(segments, taken)
	exports := func() {
		if body := m.exportSection(renewable); !exported && body != nil {
			out = appendSection(out, secExport, body)
		}
		exported = true
	}
	for _, s := range m.sections {
		if order(s.id) >= order(secExport) {
			exports()
		}
		switch s.id {
		case secCustom:
			r := reader{b: s.body}
			if r.name() == "name" {
				out = appendSection(out, secCustom, s.body)
			}
		case secMemory:
			out = appendSection(out, secMemory, m.memorySection())
		case secGlobal:
			out = appendSection(out, secGlobal, m.globalSection())
		case secExport, secStart:
		case secData:
			if body := m.dataSection(segments, taken); body != nil {
				out = appendSection(out, secData, body)
			}
		default:
			out = appendSection(out, s.id, s.body)
		}
	}
	exports()
	return out
}

// renewable reports whether memory and mutable globals are all that changes, and the image holds how they start.
func (m *module) renewable(segments []segment, taken int) bool {
	if m.memory == nil || taken < len(segments) || m.exact() != nil {
		return false
	}
	mutable := 0
	for _, g := range m.globals {
		if g.mutable && !g.movable() {
			return false
		}
		mutable += b2i(g.mutable)
	}
	return mutable <= RenewableGlobals
}

// order is a section's place in a module; custom ones may stand anywhere.
func order(id byte) int {
	switch id {
	case secCustom:
		return -1
	case 13: // tags, between memories and globals
		return 2*secMemory + 1
	case secCount:
		return 2*secElem + 1
	default:
		return 2 * int(id)
	}
}

func (m *module) memorySection() []byte {
	if m.memory == nil {
		return []byte{0}
	}
	l := *m.memory
	l.min = 0
	return l.append([]byte{1})
}

func (m *module) globalSection() []byte {
	defined := m.globals[m.importedGlobal:]
	out := appendUnsigned(nil, uint64(len(defined)))
	for _, g := range defined {
		out = append(out, g.typ, byte(b2i(g.mutable)))
		if !g.movable() {
			out = append(out, g.init...)
			continue
		}
		switch g.typ {
		case typeI32:
			out = append(out, 0x41, 0)
		case typeI64:
			out = append(out, 0x42, 0)
		case typeF32:
			out = binary.LittleEndian.AppendUint32(append(out, 0x43), 0)
		case typeF64:
			out = binary.LittleEndian.AppendUint64(append(out, 0x44), 0)
		}
		out = append(out, 0x0b)
	}
	return out
}

// exportSection is the module's own exports and those that the host needs.
func (m *module) exportSection(renewable bool) []byte {
	n, body := m.exportCount, append([]byte(nil), m.exports...)
	add := func(name string, kind byte, index uint32) {
		n++
		body = appendUnsigned(append(appendName(body, name), kind), uint64(index))
	}
	if m.memory != nil && !m.exportsMemory {
		add(MemoryExport, kindMemory, 0)
	}
	if m.hasStart {
		add(StartExport, kindFunc, m.start)
	}
	if renewable {
		add(RenewableExport, kindMemory, 0)
	}
	for i, g := range m.globals {
		if g.mutable && g.init != nil {
			add(GlobalExport(uint32(i)), kindGlobal, uint32(i))
		}
	}
	if n == 0 {
		return nil
	}
	return append(appendUnsigned(nil, uint64(n)), body...)
}

// dataSection keeps the segments' indexes where code may use them (there is a
// data count section then): what was taken is an empty passive segment, which
// behaves as an active one does after it was copied. Without one, no
// instruction can name a segment, and those taken are left out.
func (m *module) dataSection(segments []segment, taken int) []byte {
	kept := len(segments)
	var body []byte
	for i, s := range segments {
		switch {
		case i >= taken || !s.active && m.hasCount:
			body = append(body, s.raw...)
		case m.hasCount:
			body = append(body, 1, 0)
		default:
			kept--
		}
	}
	if kept == 0 && !m.hasCount {
		return nil
	}
	return append(appendUnsigned(nil, uint64(kept)), body...)
}
