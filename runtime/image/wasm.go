package image

import (
	"bytes"
	"errors"
	"fmt"
)

// Section numbers of the binary format.
const (
	secCustom = 0
	secType   = 1
	secImport = 2
	secFunc   = 3
	secTable  = 4
	secMemory = 5
	secGlobal = 6
	secExport = 7
	secStart  = 8
	secElem   = 9
	secCode   = 10
	secData   = 11
	secCount  = 12
)

// Value types.
const (
	typeI32 = 0x7f
	typeI64 = 0x7e
	typeF32 = 0x7d
	typeF64 = 0x7c
)

// Kinds of imports and exports.
const (
	kindFunc   = 0
	kindTable  = 1
	kindMemory = 2
	kindGlobal = 3
	kindTag    = 4
)

var magic = []byte("\x00asm\x01\x00\x00\x00")

var errShort = errors.New("ends early")

// section is one section of a module: its number and its body.
type section struct {
	id   byte
	body []byte
}

// sections takes a module apart. Every section but custom ones appears once.
func sections(module []byte) ([]section, error) {
	if !bytes.HasPrefix(module, magic) {
		return nil, errors.New("not a WebAssembly core module")
	}
	r := reader{b: module[len(magic):]}
	var list []section
	var seen [256]bool
	for len(r.b) > 0 {
		id := r.byte()
		body := r.take(r.u32())
		if r.err != nil {
			return nil, fmt.Errorf("section %d: %w", id, r.err)
		}
		if id != secCustom && seen[id] {
			return nil, fmt.Errorf("section %d appears twice", id)
		}
		seen[id] = true
		list = append(list, section{id, body})
	}
	return list, nil
}

// reader reads the binary format. After a fault err is set and every value is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail(errShort)
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) take(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)) {
		r.fail(errShort)
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// unsigned reads an LEB128 number of at most the given bits.
func (r *reader) unsigned(bits uint) uint64 {
	var v uint64
	for shift := uint(0); shift < bits; shift += 7 {
		c := r.byte()
		if left := bits - shift; left < 7 && c>>left != 0 {
			r.fail(errors.New("a number is too large"))
			return 0
		}
		v |= uint64(c&0x7f) << shift
		if c&0x80 == 0 {
			return v
		}
	}
	r.fail(errors.New("a number is too long"))
	return 0
}

// signed reads a signed LEB128 number of at most the given bits.
func (r *reader) signed(bits uint) int64 {
	var v int64
	for shift := uint(0); shift < bits; shift += 7 {
		c := r.byte()
		v |= int64(c&0x7f) << shift
		if c&0x80 != 0 {
			continue
		}
		if shift+7 < 64 && c&0x40 != 0 {
			v |= -1 << (shift + 7)
		}
		if bits == 32 && v != int64(int32(v)) {
			r.fail(errors.New("a number is too large"))
			return 0
		}
		return v
	}
	r.fail(errors.New("a number is too long"))
	return 0
}

func (r *reader) u32() uint32  { return uint32(r.unsigned(32)) }
func (r *reader) name() string { return string(r.take(r.u32())) }

// count reads the length of a list whose items have at least size bytes each,
// so that nothing is allocated for items that cannot be there.
func (r *reader) count(size int) int {
	n := r.u32()
	if uint64(n)*uint64(size) > uint64(len(r.b)) {
		r.fail(errShort)
		return 0
	}
	return int(n)
}

// limits are a memory's or table's, in pages or elements.
type limits struct {
	flags    byte
	min, max uint64
	hasMax   bool
}

func (r *reader) limits() limits {
	l := limits{flags: r.byte()}
	if l.flags > 1 {
		r.fail(fmt.Errorf("limits of kind %#x (shared, 64-bit or custom pages) are not supported", l.flags))
		return l
	}
	l.min = uint64(r.u32())
	if l.hasMax = l.flags&1 != 0; l.hasMax {
		l.max = uint64(r.u32())
	}
	return l
}

func (l limits) append(b []byte) []byte {
	b = appendUnsigned(append(b, l.flags), l.min)
	if l.hasMax {
		b = appendUnsigned(b, l.max)
	}
	return b
}

func (r *reader) valType() byte {
	t := r.byte()
	switch t {
	case typeI32, typeI64, typeF32, typeF64, 0x7b, 0x70, 0x6f:
	default:
		if r.err == nil {
			r.fail(fmt.Errorf("value type %#x is not supported", t))
		}
	}
	return t
}

func appendUnsigned(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendName(b []byte, s string) []byte { return append(appendUnsigned(b, uint64(len(s))), s...) }

func appendSection(b []byte, id byte, body []byte) []byte {
	b = appendUnsigned(append(b, id), uint64(len(body)))
	return append(b, body...)
}
