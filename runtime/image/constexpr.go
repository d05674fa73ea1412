package image

import (
	"encoding/binary"
	"fmt"
)

// constant is the value of a constant expression, or that it cannot be computed
// before instantiation.
type constant struct {
	typ   byte // of a number; else 0
	bits  uint64
	known bool
}

// constExpr reads a constant expression up to and including its end and
// computes it. Globals are those declared so far.
func (r *reader) constExpr(globals []global) constant {
	var stack []constant
	for {
		op := r.byte()
		if r.err != nil {
			return constant{}
		}
		if op == 0x0b {
			break
		}
		stack = r.constOp(op, stack, globals)
	}
	if len(stack) != 1 {
		r.fail(fmt.Errorf("a constant expression leaves %d values", len(stack)))
		return constant{}
	}
	return stack[0]
}

func (r *reader) constOp(op byte, stack []constant, globals []global) []constant {
	switch op {
	case 0x41: // i32.const
		return append(stack, constant{typeI32, uint64(uint32(r.signed(32))), true})
	case 0x42: // i64.const
		return append(stack, constant{typeI64, uint64(r.signed(64)), true})
	case 0x43: // f32.const
		return append(stack, constant{typeF32, r.fixed(4), true})
	case 0x44: // f64.const
		return append(stack, constant{typeF64, r.fixed(8), true})
	case 0x23: // global.get
		i := r.u32()
		if uint64(i) >= uint64(len(globals)) {
			r.fail(fmt.Errorf("global %d does not exist here", i))
			return stack
		}
		if globals[i].mutable {
			r.fail(fmt.Errorf("global %d is mutable: no constant", i))
			return stack
		}
		return append(stack, globals[i].value)
	case 0xd0: // ref.null
		r.byte()
		return append(stack, constant{})
	case 0xd2: // ref.func
		r.u32()
		return append(stack, constant{})
	case 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e: // i32, i64 add, sub, mul
		return r.constArithmetic(op, stack)
	case 0xfd: // v128.const
		if sub := r.u32(); r.err == nil && sub != 12 {
			r.fail(fmt.Errorf("vector instruction %d in a constant expression", sub))
		}
		r.take(16)
		return append(stack, constant{})
	}
	r.fail(fmt.Errorf("instruction %#x in a constant expression", op))
	return stack
}

func (r *reader) fixed(n uint32) uint64 {
	var b [8]byte
	copy(b[:], r.take(n))
	return binary.LittleEndian.Uint64(b[:])
}

func (r *reader) constArithmetic(op byte, stack []constant) []constant {
	n := len(stack)
	if n < 2 {
		r.fail(fmt.Errorf("instruction %#x in a constant expression has too few operands", op))
		return stack
	}
	x, y := stack[n-2], stack[n-1]
	c := constant{typ: x.typ, known: x.known && y.known}
	switch op {
	case 0x6a, 0x7c:
		c.bits = x.bits + y.bits
	case 0x6b, 0x7d:
		c.bits = x.bits - y.bits
	default:
		c.bits = x.bits * y.bits
	}
	if op < 0x70 {
		c.bits = uint64(uint32(c.bits))
	}
	return append(stack[:n-2], c)
}
