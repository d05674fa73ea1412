package symbol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Section numbers of the binary format.
const (
	customSection = 0
	importSection = 2
	codeSection   = 10
)

// module is what is needed of one: where bodies are, and the debug sections.
type module struct {
	imported uint32 // functions
	bodies   []body
	codeSize uint32            // bytes of the code section
	debug    map[string][]byte // custom sections .debug_*, by what follows
}

// body is one function defined in the module.
type body struct {
	defined uint32 // its index among those defined in the module
	at      uint32 // from the begin of the code section, as DWARF counts
	code    []byte // locals and instructions
}

func (m *module) body(function uint32) (body, bool) {
	i := uint64(function) - uint64(m.imported)
	if function < m.imported || i >= uint64(len(m.bodies)) {
		return body{}, false
	}
	return m.bodies[i], true
}

func parse(b []byte) (*module, error) {
	if len(b) > maxModule || !bytes.HasPrefix(b, []byte("\x00asm\x01\x00\x00\x00")) {
		return nil, fmt.Errorf("not a core module of at most %d bytes", maxModule)
	}
	m := &module{debug: map[string][]byte{}}
	c := cursor{b: b[8:]}
	for len(c.b) > 0 && !c.bad {
		id := c.byte()
		m.section(id, c.take(c.u32()))
	}
	if c.bad {
		return nil, errors.New("the module's sections are malformed")
	}
	return m, nil
}

// section reads one section; what is malformed inside is left out.
func (m *module) section(id byte, b []byte) {
	c := cursor{b: b}
	switch id {
	case customSection:
		if name, ok := strings.CutPrefix(string(c.take(min(c.u32(), maxString))), ".debug_"); ok && !c.bad {
			m.debug[name] = c.b
		}
	case importSection:
		for n := c.u32(); n > 0 && !c.bad; n-- {
			if c.importedFunction() {
				m.imported++
			}
		}
	case codeSection:
		m.codeSize = uint32(len(b))
		for n := c.u32(); n > 0 && !c.bad; n-- {
			size := c.u32()
			at := len(b) - len(c.b)
			if code := c.take(size); !c.bad {
				m.bodies = append(m.bodies, body{defined: uint32(len(m.bodies)), at: uint32(at), code: code})
			}
		}
	}
}

// cursor reads the binary format. Once bad, it is empty, and all it reads is zero.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n uint32) []byte {
	if uint64(n) > uint64(len(c.b)) {
		c.b, c.bad = nil, true
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u32() uint32 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 || n > 5 || v>>32 != 0 {
		c.b, c.bad = nil, true
		return 0
	}
	c.b = c.b[n:]
	return uint32(v)
}

// importedFunction reads one import and reports whether it is a function.
func (c *cursor) importedFunction() bool {
	c.take(c.u32())
	c.take(c.u32())
	switch kind := c.byte(); kind {
	case 0:
		c.u32()
		return !c.bad
	case 1, 2: // table, memory
		if kind == 1 {
			c.byte()
		}
		bounded := c.byte()&1 != 0
		c.u32()
		if bounded {
			c.u32()
		}
	case 3: // global
		c.take(2)
	default:
		c.b, c.bad = nil, true
	}
	return false
}
