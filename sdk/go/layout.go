package edge

import (
	"encoding/binary"
	"errors"
)

// The byte layouts of sdk/abi: little-endian integers, strings with a u32
// length before them, pairs with a u32 count before them.

var errLayout = errors.New("edge: the host's answer ends too early; it and the SDK disagree about selvage_v1")

// A decoder takes values off the front of s. After a short read every value is
// zero and err is set. Strings it returns share s.
type decoder struct {
	s   string
	err error
}

func (d *decoder) take(n uint64) string {
	if d.err != nil || n > uint64(len(d.s)) {
		d.err, d.s = errLayout, ""
		return ""
	}
	head := d.s[:n]
	d.s = d.s[n:]
	return head
}

func (d *decoder) u32() uint32 {
	b := d.take(4)
	if b == "" {
		return 0
	}
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func (d *decoder) u64() uint64 {
	low := d.u32()
	return uint64(low) | uint64(d.u32())<<32
}

func (d *decoder) string() string { return d.take(uint64(d.u32())) }

// bytes is string as bytes of the caller's own; nil for none.
func (d *decoder) bytes() []byte {
	if s := d.string(); s != "" {
		return []byte(s)
	}
	return nil
}

// count reads the length of a list whose items take at least size bytes each,
// so that a false one is not believed with an allocation.
func (d *decoder) count(size int) int {
	n := d.u32()
	if uint64(n)*uint64(size) > uint64(len(d.s)) {
		d.err, d.s = errLayout, ""
		return 0
	}
	return int(n)
}

// pairs calls each for every pair of a list.
func (d *decoder) pairs(each func(name, value string)) {
	for range d.count(8) {
		name, value := d.string(), d.string()
		if d.err != nil {
			return
		}
		each(name, value)
	}
}

func appendU32(b []byte, n uint32) []byte { return binary.LittleEndian.AppendUint32(b, n) }

func appendString(b []byte, s string) []byte {
	return append(appendU32(b, uint32(len(s))), s...)
}

// A pairList is a list of pairs being written. The zero value is empty.
type pairList struct {
	buf   []byte // the count, filled in by bytes, and the pairs
	count uint32
}

// reset empties the list, keeping the room it has.
func (p *pairList) reset() {
	p.buf, p.count = p.buf[:0], 0
}

func (p *pairList) add(name, value string) {
	if p.count == 0 {
		p.buf = append(p.buf[:0], 0, 0, 0, 0)
	}
	p.buf = appendString(appendString(p.buf, name), value)
	p.count++
}

// bytes returns the list; it is p's own memory, until the next reset.
func (p *pairList) bytes() []byte {
	if p.count == 0 {
		p.buf = append(p.buf[:0], 0, 0, 0, 0)
	}
	binary.LittleEndian.PutUint32(p.buf, p.count)
	return p.buf
}
