package symbol

import (
	"bytes"
	"encoding/binary"
	"sort"

	"github.com/selvage-edge/selvage/runtime/image"
)

// The runtime's table of functions and lines, "pclntab" (runtime/symtab.go and
// debug/gosym of Go 1.20 and later; all numbers little-endian).
const (
	goHeader  = 72       // bytes
	maxGo     = 32 << 20 // bytes of the table, and of all data after it
	maxTables = 16       // places that look like one and are not
)

// goMagic is the header's begin for wasm: version, two zeroes, code in units of 1 byte, words of 8.
var goMagic = []byte("\xf1\xff\xff\xff\x00\x00\x01\x08")

// goText is the address of the first function. The address of an instruction is its
// function's index there, and a number of the block in the lower 16 bits
// (cmd/link/internal/wasm/asm.go: funcValueOffset).
const goText = 0x1000 << 16

// goTable is the table, and its parts.
type goTable struct {
	count                             uint64 // functions
	shift                             uint   // of a function's offset, to be one of addresses
	names, units, files, pcs, entries []byte
}

// openGo finds the table in a module's data; nil if there is none.
func openGo(b []byte) *goTable {
	if !bytes.Contains(b, goMagic[:6]) { // nearly always: no need to take it apart
		return nil
	}
	_, img, err := image.Split(b)
	if err != nil {
		return nil
	}
	left := maxTables
	for _, r := range img.Runs {
		for at := 0; left > 0; left-- {
			i := bytes.Index(r.Data[at:], goMagic)
			if i < 0 {
				break
			}
			if t := readGo(img, r.Offset+uint64(at+i)); t != nil {
				return t
			}
			at += i + 1
		}
	}
	return nil
}

// readGo reads a table at a place of memory; nil if it is none.
func readGo(img *image.Image, at uint64) *goTable {
	h := memory(img, at, goHeader)
	if len(h) < goHeader {
		return nil
	}
	field := func(i int) uint64 { return binary.LittleEndian.Uint64(h[8*i:]) }
	t := &goTable{count: field(1)}
	if t.count == 0 || t.count > 1<<16 {
		return nil
	}
	b := memory(img, at, maxGo)
	for i, part := range []*[]byte{&t.names, &t.units, &t.files, &t.pcs, &t.entries} {
		begin := field(4 + i)
		if begin < goHeader || begin > uint64(len(b)) {
			return nil
		}
		*part = b[begin:]
	}
	if uint64(len(t.entries)) < 8*t.count {
		return nil
	}
	if number(t.entries, 8*(t.count-1))-number(t.entries, 0) < 1<<16 {
		t.shift = 16 // Go 1.26 has indexes there, which are one apart
	}
	return t
}

// memory is what img holds from at on: at most so many bytes, less where the data ends.
func memory(img *image.Image, at, most uint64) []byte {
	var b []byte
	for _, r := range img.Runs {
		end := r.Offset + uint64(len(r.Data))
		if end <= at || r.Offset >= at+most {
			continue
		}
		data, from := r.Data, r.Offset
		if from < at {
			data, from = data[at-from:], at
		}
		data = data[:min(uint64(len(data)), at+most-from)]
		b = append(b, make([]byte, from-at-uint64(len(b)))...)
		b = append(b, data...)
	}
	return b
}

// find looks for what the code stores before each call: the address it returns to. The
// line of a call is exact; that of another instruction is the nearest known one before it.
func (t *goTable) find(b body, offset uint32) (Position, bool) {
	entry := uint64(goText) + uint64(b.defined)<<16
	pc := entry
	if back, ok := returnAddress(b.code[:offset], entry); ok {
		pc = back
		if op := b.code[offset]; op == 0x10 || op == 0x11 { // call, call_indirect
			pc = max(entry, back-1)
		}
	}
	return t.position(pc)
}

// returnAddress is the last address that code stores of its own function:
// i64.const address; i64.store.
func returnAddress(code []byte, entry uint64) (uint64, bool) {
	store := []byte{0x37, 3, 0}
	for end := len(code); ; {
		end = bytes.LastIndex(code[:end], store)
		if end < 0 {
			return 0, false
		}
		for begin := end - 2; begin >= max(0, end-7); begin-- {
			if v, ok := signed(code[begin+1 : end]); ok && code[begin] == 0x42 && v>>16 == entry>>16 {
				return v, true
			}
		}
	}
}

// signed reads a signed LEB128 number that fills b and is not negative.
func signed(b []byte) (v uint64, ok bool) {
	for i, c := range b {
		v |= uint64(c&0x7f) << (7 * i)
		if last := i == len(b)-1; last != (c < 0x80) {
			return 0, false
		}
	}
	return v, len(b) > 0 && b[len(b)-1]&0x40 == 0
}

// position looks an address up.
func (t *goTable) position(pc uint64) (Position, bool) {
	i := sort.Search(int(t.count), func(i int) bool { return t.entry(i) > pc }) - 1
	if i < 0 {
		return Position{}, false
	}
	offset := number(t.entries, 8*uint64(i)+4)
	f := func(i uint64) uint32 { return number(t.entries, uint64(offset)+4*i) }
	line, ok := t.value(f(6), t.entry(i), pc)
	if !ok || line <= 0 {
		return Position{}, false
	}
	p := Position{Function: text(t.names, f(1)), Line: int(line)}
	if file, ok := t.value(f(5), t.entry(i), pc); ok && file >= 0 {
		p.File = text(t.files, number(t.units, 4*(uint64(f(8))+uint64(file))))
	}
	return p, p.File != ""
}

// entry is the address of a function; the first one of the table is the first of the module.
func (t *goTable) entry(i int) uint64 {
	return goText + uint64(number(t.entries, 8*uint64(i))-number(t.entries, 0))<<t.shift
}

// value decodes a list of steps, of the value and of the address up to which it holds.
func (t *goTable) value(at uint32, entry, pc uint64) (int32, bool) {
	if at == 0 || uint64(at) >= uint64(len(t.pcs)) {
		return 0, false
	}
	c, v := cursor{b: t.pcs[at:]}, int32(-1)
	for first := true; ; first = false {
		step := c.u32()
		if c.bad || step == 0 && !first {
			return 0, false
		}
		v += int32(step>>1) ^ -int32(step&1)
		entry += uint64(c.u32())
		if !c.bad && pc < entry {
			return v, true
		}
	}
}

func number(b []byte, at uint64) uint32 {
	if at > uint64(len(b)) || len(b)-int(at) < 4 {
		return 0
	}
	return binary.LittleEndian.Uint32(b[at:])
}

// text is the string at a place of a table; "" if there is none.
func text(b []byte, at uint32) string {
	if uint64(at) >= uint64(len(b)) {
		return ""
	}
	b = b[at:]
	if end := bytes.IndexByte(b[:min(len(b), maxString)], 0); end >= 0 {
		return string(b[:end])
	}
	return ""
}
