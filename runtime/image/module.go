package image

import (
	"fmt"
	"strings"
)

// global is one of a module's, imports counted.
type global struct {
	typ     byte
	mutable bool
	value   constant
	init    []byte // the constant expression; nil of an imported one
}

// module is what Split needs to know of a module.
type module struct {
	sections       []section
	globals        []global
	importedGlobal int // how many of them are imported
	importedMemory bool
	importedTable  bool
	memory         *limits // the defined one
	exportsMemory  bool
	exports        []byte // the list's items, as they are
	reservedExport string // one whose name is the platform's: the module was split before, or pretends so
	exportCount    int
	hasStart       bool
	start          uint32
	hasCount       bool // a data count section: code may name segments by index
}

func parse(b []byte) (*module, error) {
	list, err := sections(b)
	if err != nil {
		return nil, err
	}
	m := &module{sections: list}
	readers := map[byte]func(*reader){
		secImport: m.readImports, secMemory: m.readMemory, secGlobal: m.readGlobals, secExport: m.readExports, secStart: m.readStart,
	}
	for _, s := range list {
		m.hasCount = m.hasCount || s.id == secCount
		read, ok := readers[s.id]
		if !ok {
			continue
		}
		r := reader{b: s.body}
		read(&r)
		if r.err == nil && len(r.b) != 0 {
			r.fail(fmt.Errorf("%d bytes too many", len(r.b)))
		}
		if r.err != nil {
			return nil, fmt.Errorf("section %d: %w", s.id, r.err)
		}
	}
	return m, nil
}

func (m *module) readImports(r *reader) {
	for n := r.count(4); n > 0 && r.err == nil; n-- {
		r.name()
		r.name()
		switch kind := r.byte(); kind {
		case kindFunc:
			r.u32()
		case kindTable:
			r.valType()
			r.limits()
			m.importedTable = true
		case kindMemory:
			r.limits()
			m.importedMemory = true
		case kindGlobal:
			m.globals = append(m.globals, global{typ: r.valType(), mutable: r.mutability()})
		default:
			if r.err == nil {
				r.fail(fmt.Errorf("an import of kind %d is not supported", kind))
			}
		}
	}
	m.importedGlobal = len(m.globals)
}

func (r *reader) mutability() bool {
	c := r.byte()
	if c > 1 {
		r.fail(fmt.Errorf("mutability %d is not supported", c))
	}
	return c == 1
}

func (m *module) readMemory(r *reader) {
	n := r.count(2)
	if n+b2i(m.importedMemory) > 1 {
		r.fail(fmt.Errorf("%d memories: one is supported", n+b2i(m.importedMemory)))
		return
	}
	if n == 1 {
		l := r.limits()
		m.memory = &l
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (m *module) readGlobals(r *reader) {
	for n := r.count(3); n > 0 && r.err == nil; n-- {
		g := global{typ: r.valType(), mutable: r.mutability()}
		whole := r.b
		g.value = r.constExpr(m.globals)
		g.init = whole[:len(whole)-len(r.b)]
		if r.err == nil && g.value.known && g.value.typ != g.typ {
			r.fail(fmt.Errorf("global %d: its initial value is of another type", len(m.globals)))
		}
		m.globals = append(m.globals, g)
	}
}

func (m *module) readExports(r *reader) {
	m.exportCount = r.count(3)
	m.exports = r.b
	for n := m.exportCount; n > 0 && r.err == nil; n-- {
		if name := r.name(); strings.HasPrefix(name, reserved) {
			m.reservedExport = name
		}
		m.exportsMemory = r.byte() == kindMemory || m.exportsMemory
		r.u32()
	}
}

func (m *module) readStart(r *reader) {
	m.hasStart = true
	m.start = r.u32()
}
