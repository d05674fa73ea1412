package image

import (
	"bytes"
	"fmt"
)

// CheckSnapshot reports why start-up of this code may leave a state that an
// image (memory and globals of number types) does not hold: an instruction that
// changes a table or drops a segment, a mutable global of another type, anything
// imported but functions. It looks at what the code could do, not at what it did.
func CheckSnapshot(code []byte) error {
	m, err := parse(code)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := m.exact(); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// CheckRenewable reports code that says it is renewable (RenewableExport) and is not: what
// Split made never does.
func CheckRenewable(code []byte) error {
	if !bytes.Contains(code, []byte(RenewableExport)) {
		return nil
	}
	if err := CheckSnapshot(code); err != nil {
		return fmt.Errorf("the code says %q: %w", RenewableExport, err)
	}
	return nil
}

func (m *module) exact() error {
	if m.importedMemory || m.importedTable || m.importedGlobal > 0 {
		return fmt.Errorf("the module imports a memory, a table or a global")
	}
	for i, g := range m.globals {
		if g.mutable && (g.typ < typeF64 || g.typ > typeI32) {
			return fmt.Errorf("global %d is mutable and no number", i)
		}
	}
	for _, s := range m.sections {
		if s.id == secCode {
			return exactCode(s.body)
		}
	}
	return nil
}

func exactCode(body []byte) error {
	r := reader{b: body}
	for i, n := 0, r.count(2); i < n && r.err == nil; i++ {
		f := reader{b: r.take(r.u32())}
		if what := f.function(); what != "" {
			return fmt.Errorf("function %d (of those defined) has %s, which an image does not hold", i, what)
		}
		if f.err != nil {
			return fmt.Errorf("function %d (of those defined): %w", i, f.err)
		}
	}
	return r.err
}

// function walks one function body and names the first instruction that makes
// a snapshot inexact, or "".
func (r *reader) function() string {
	for n := r.count(2); n > 0 && r.err == nil; n-- {
		r.u32()
		r.valType()
	}
	for len(r.b) > 0 {
		if what := r.instruction(); what != "" {
			return what
		}
	}
	return ""
}

// instruction skips one instruction.
func (r *reader) instruction() string {
	switch op := r.byte(); {
	case op == 0x26:
		return "table.set"
	case op == 0x02, op == 0x03, op == 0x04, op == 0xd0: // block type, heap type
		r.signed(33)
	case op == 0x0e: // br_table
		for n := r.count(1); n > 0 && r.err == nil; n-- {
			r.u32()
		}
		r.u32()
	case op == 0x1c: // select with types
		for n := r.count(1); n > 0 && r.err == nil; n-- {
			r.valType()
		}
	case op == 0x11, op == 0x13: // call_indirect
		r.u32()
		r.u32()
	case op == 0x0c, op == 0x0d, op == 0x10, op == 0x12, op >= 0x20 && op <= 0x25, op == 0x3f, op == 0x40, op == 0xd2:
		r.u32()
	case op >= 0x28 && op <= 0x3e:
		r.memoryArgument()
	case op == 0x41:
		r.signed(32)
	case op == 0x42:
		r.signed(64)
	case op == 0x43:
		r.take(4)
	case op == 0x44:
		r.take(8)
	case op == 0xfc:
		return r.bulkInstruction()
	case op == 0xfd:
		r.vectorInstruction()
	case op <= 0x01, op == 0x05, op == 0x0b, op == 0x0f, op == 0x1a, op == 0x1b, op >= 0x45 && op <= 0xc4, op == 0xd1:
	default:
		r.fail(fmt.Errorf("instruction %#x is not supported", op))
	}
	return ""
}

func (r *reader) memoryArgument() {
	r.u32()
	r.u32()
}

// bulkInstruction skips one of those after 0xfc.
func (r *reader) bulkInstruction() string {
	immediates := [...]int{8: 2, 9: 1, 10: 2, 11: 1, 12: 2, 13: 1, 14: 2, 15: 1, 16: 1, 17: 1}
	inexact := map[uint32]string{9: "data.drop", 12: "table.init", 13: "elem.drop", 14: "table.copy", 15: "table.grow", 17: "table.fill"}
	op := r.u32()
	if r.err == nil && int(op) >= len(immediates) {
		r.fail(fmt.Errorf("instruction 0xfc %d is not supported", op))
	}
	if r.err != nil { // op is no number then
		return ""
	}
	for range immediates[op] {
		r.u32()
	}
	return inexact[op]
}

// vectorInstruction skips one of those after 0xfd.
func (r *reader) vectorInstruction() {
	switch op := r.u32(); {
	case op <= 11, op == 92, op == 93:
		r.memoryArgument()
	case op == 12, op == 13:
		r.take(16)
	case op >= 21 && op <= 34:
		r.byte()
	case op >= 84 && op <= 91:
		r.memoryArgument()
		r.byte()
	case op <= 0x113:
	default:
		r.fail(fmt.Errorf("instruction 0xfd %d is not supported", op))
	}
}
