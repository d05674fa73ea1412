package symbol

import (
	"bytes"
	"debug/dwarf"
	"encoding/binary"
	"errors"
)

// Bounds of what is read of hostile tables, beside their size.
const (
	maxUnits    = 20_000
	maxRanges   = 1_000_000 // of all units
	maxDebugStr = 64 << 10  // bytes of one string: each unit may name the same one
)

// dwarfTable is DWARF as tools for WebAssembly write it: addresses are offsets into
// the code section (webassembly.github.io/tool-conventions/Dwarf.html).
type dwarfTable struct {
	data  *dwarf.Data
	units []unit
}

// unit is a compilation unit that has lines, and what it covers.
type unit struct {
	entry  *dwarf.Entry
	ranges [][2]uint64
}

// openDWARF returns nil where there is none that can be read.
func openDWARF(m *module) *dwarfTable {
	d := m.debug
	if d["info"] == nil || longest(d["str"]) > maxDebugStr || longest(d["line_str"]) > maxDebugStr {
		return nil
	}
	t := &dwarfTable{}
	if guarded(func() error { return t.open(d, uint64(m.codeSize)) }) != nil {
		return nil
	}
	return t
}

// longest is the length of the longest string of a table.
func longest(table []byte) (n int) {
	for len(table) > 0 {
		end := bytes.IndexByte(table, 0)
		if end < 0 {
			return max(n, len(table))
		}
		n, table = max(n, end), table[end+1:]
	}
	return n
}

// guarded makes an error of a panic: debug/dwarf is not made for hostile input.
func guarded(f func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the debug information is malformed")
		}
	}()
	return f()
}

func (t *dwarfTable) open(d map[string][]byte, codeSize uint64) (err error) {
	if t.data, err = dwarf.New(d["abbrev"], nil, nil, d["info"], d["line"], nil, d["ranges"], d["str"]); err != nil {
		return err
	}
	for _, name := range []string{"addr", "line_str", "str_offsets", "rnglists"} {
		if err := t.data.AddSection(".debug_"+name, d[name]); err != nil {
			return err
		}
	}
	total, r := 0, t.data.Reader()
	for _, at := range unitOffsets(d["info"]) {
		r.Seek(at)
		e, err := r.Next()
		if err != nil || e == nil || e.Tag != dwarf.TagCompileUnit {
			continue
		}
		ranges, err := t.data.Ranges(e)
		if err != nil {
			continue
		}
		if total += len(ranges); total > maxRanges {
			break
		}
		t.units = append(t.units, unit{e, live(ranges, codeSize)})
	}
	return nil
}

// unitOffsets is where the first entry of each unit is. The entries below are passed over by
// the unit's length: dwarf.Reader would walk them all, or follow their own word to anywhere.
func unitOffsets(info []byte) (list []dwarf.Offset) {
	for at := uint64(0); len(list) < maxUnits && at+12 <= uint64(len(info)); {
		size, version := binary.LittleEndian.Uint32(info[at:]), binary.LittleEndian.Uint16(info[at+4:])
		header := uint64(11)
		if version >= 5 {
			header = 12
		}
		if size >= 0xfffffff0 { // the 64-bit format, for which a module is too small
			break
		}
		list = append(list, dwarf.Offset(at+header))
		at += 4 + uint64(size)
	}
	return list
}

// live are the ranges of code that is there: a linker leaves those of what it took out,
// at zero or beyond the end.
func live(ranges [][2]uint64, codeSize uint64) (out [][2]uint64) {
	for _, r := range ranges {
		if r[0] > 0 && r[0] < r[1] && r[1] <= codeSize {
			out = append(out, r)
		}
	}
	return out
}

func (t *dwarfTable) find(b body, offset uint32) (p Position, ok bool) {
	pc := uint64(b.at) + uint64(offset)
	for _, u := range t.units {
		for _, r := range u.ranges {
			if pc < r[0] || pc >= r[1] {
				continue
			}
			if guarded(func() error { p, ok = t.line(u.entry, pc); return nil }) == nil && ok {
				return p, true
			}
			break
		}
	}
	return Position{}, false
}

// line walks a unit's line table. It leaves out sequences of code that is not there,
// which LineReader.SeekPC does not.
func (t *dwarfTable) line(unit *dwarf.Entry, pc uint64) (Position, bool) {
	r, err := t.data.LineReader(unit)
	if err != nil || r == nil {
		return Position{}, false
	}
	var before, e dwarf.LineEntry
	for begin := true; r.Next(&e) == nil; begin = e.EndSequence {
		if begin {
			before = dwarf.LineEntry{} // no address: nothing lies between it and e
		}
		if before.Address > 0 && before.Address <= pc && pc < e.Address && before.Line > 0 && before.File != nil {
			return Position{File: before.File.Name, Line: before.Line}, true
		}
		before = e
		if begin && e.Address == 0 && !skip(r, &e) {
			break
		}
	}
	return Position{}, false
}

// skip reads to the end of a sequence.
func skip(r *dwarf.LineReader, e *dwarf.LineEntry) bool {
	for !e.EndSequence {
		if r.Next(e) != nil {
			return false
		}
	}
	return true
}
