package scan

// What follows an opcode.
const (
	unknownOp   = iota // not one of ours: a feature that is off, or nonsense
	plain              // nothing
	block              // a block type; and a block begins
	elseOp             // nothing
	endOp              // nothing; a block or the body ends
	index              // one index
	twoIndexes         // two
	memory             // alignment and offset
	memoryIndex        // a memory, which must be 0
	branchTable        // labels
	typedSelect        // value types
	const32            // a signed number of 32 bits
	const64            // of 64
	fixed4             // 4 bytes
	fixed8             // 8
	heapType           // a reference type
	prefixFC           // another opcode
	prefixFD           // another opcode, of vectors
)

// shapes says for each opcode what follows it.
var shapes = makeShapes()

func makeShapes() (s [256]uint8) {
	set := func(shape uint8, from, to int) {
		for op := from; op <= to; op++ {
			s[op] = shape
		}
	}
	set(plain, 0x00, 0x01)  // unreachable, nop
	set(block, 0x02, 0x04)  // block, loop, if
	set(elseOp, 0x05, 0x05) //
	set(endOp, 0x0b, 0x0b)  //
	set(index, 0x0c, 0x0d)  // br, br_if
	set(branchTable, 0x0e, 0x0e)
	set(plain, 0x0f, 0x0f)      // return
	set(index, 0x10, 0x10)      // call
	set(twoIndexes, 0x11, 0x11) // call_indirect
	set(plain, 0x1a, 0x1b)      // drop, select
	set(typedSelect, 0x1c, 0x1c)
	set(index, 0x20, 0x26)  // local.*, global.*, table.get, table.set
	set(memory, 0x28, 0x3e) // loads and stores
	set(memoryIndex, 0x3f, 0x40)
	set(const32, 0x41, 0x41)
	set(const64, 0x42, 0x42)
	set(fixed4, 0x43, 0x43)
	set(fixed8, 0x44, 0x44)
	set(plain, 0x45, 0xc4)    // comparisons, arithmetic, conversions, sign extension
	set(heapType, 0xd0, 0xd0) // ref.null
	set(plain, 0xd1, 0xd1)    // ref.is_null
	set(index, 0xd2, 0xd2)    // ref.func
	set(prefixFC, 0xfc, 0xfc)
	set(prefixFD, 0xfd, 0xfd)
	return s
}

// body walks one function: its locals, and its instructions to the very end.
func (w *walker) body(function int) {
	w.locals(function)
	depth := 1
	for w.r.err == nil && depth > 0 {
		op := w.r.byte()
		switch shape := shapes[op]; shape {
		case plain, elseOp:
		case block:
			w.blockType()
			if depth++; depth > MaxNesting {
				w.r.fail(ErrLimit, "function %d nests blocks more than %d deep: split it up", function, MaxNesting)
			}
			w.report.DeepestBlock = max(w.report.DeepestBlock, depth-1)
		case endOp:
			depth--
		case branchTable:
			w.branchTable(function)
		default:
			w.immediates(op, shape)
		}
	}
	if w.r.err == nil && w.r.left() != 0 {
		w.r.broken("a function goes on after its end")
	}
}

func (w *walker) locals(function int) {
	total := 0
	for i, n := 0, w.r.count(MaxLocals, "groups of locals in one function"); w.r.more(i, n); i++ {
		total += int(w.r.u32())
		w.valtype(w.r.byte())
		if total > MaxLocals {
			w.r.fail(ErrLimit, "function %d has more than %d locals: split it up", function, MaxLocals)
		}
	}
	w.report.MostLocals = max(w.report.MostLocals, total)
}

// blockType is empty, one value type, or the index of a type.
func (w *walker) blockType() {
	t := w.r.signed(33)
	if t >= 0 {
		w.typeAt(uint32(t))
	} else if t != -64 {
		w.valtype(byte(t & 0x7f))
	}
}

func (w *walker) branchTable(function int) {
	n := w.r.count(MaxBranchTable, "targets in one br_table")
	w.report.LongestBranch = max(w.report.LongestBranch, n)
	for i := 0; w.r.more(i, n+1); i++ { // and the default
		w.r.u32()
	}
}

func (w *walker) immediates(op byte, shape uint8) {
	switch shape {
	case index:
		w.r.u32()
		if op == 0x26 {
			w.touches["table.set"] = true
		}
	case twoIndexes:
		w.r.u32()
		w.r.u32()
	case memory:
		w.memoryArgument()
	case memoryIndex:
		w.memoryZero()
	case typedSelect:
		w.valtypes()
	case const32:
		w.r.signed(32)
	case const64:
		w.r.signed(64)
	case fixed4:
		w.r.skip(4)
	case fixed8:
		w.r.skip(8)
	case heapType:
		w.valtype(w.r.byte())
	case prefixFC:
		w.bulk()
	case prefixFD:
		w.vector()
	default:
		w.unknownOp(op)
	}
}

// memoryArgument is alignment and offset; bit 6 of the first announces a memory.
func (w *walker) memoryArgument() {
	if w.r.u32()&0x40 != 0 {
		w.feature("several memories", "build for one memory")
	}
	w.r.u32()
}

func (w *walker) memoryZero() {
	if w.r.byte() != 0 {
		w.feature("several memories", "build for one memory")
	}
}

// bulk is what follows 0xfc: saturating conversions, and work on whole ranges
// of memory and tables.
func (w *walker) bulk() {
	switch op := w.r.u32(); op {
	case 0, 1, 2, 3, 4, 5, 6, 7: // trunc_sat
	case 8:
		w.touch("memory.init")
		w.r.u32()
		w.memoryZero()
	case 9:
		w.touch("data.drop")
		w.r.u32()
	case 10:
		w.memoryZero()
		w.memoryZero()
	case 11:
		w.memoryZero()
	case 12:
		w.touch("table.init")
		w.r.u32()
		w.r.u32()
	case 13:
		w.touch("elem.drop")
		w.r.u32()
	case 14:
		w.touch("table.copy")
		w.r.u32()
		w.r.u32()
	case 15:
		w.touch("table.grow")
		w.r.u32()
	case 16: // table.size
		w.r.u32()
	case 17:
		w.touch("table.fill")
		w.r.u32()
	case 18:
		w.feature("memory control (memory.discard)", "build without it")
	case 19, 20, 21, 22:
		w.feature("wide arithmetic", "build without it")
	default:
		w.r.broken("an unknown instruction")
	}
}

func (w *walker) touch(instruction string) { w.touches[instruction] = true }

// vector is what follows 0xfd.
func (w *walker) vector() {
	switch op := w.r.u32(); {
	case op <= 11, op == 92, op == 93: // loads and stores
		w.memoryArgument()
	case op == 12, op == 13: // v128.const, shuffle
		w.r.skip(16)
	case op >= 21 && op <= 34: // lanes
		w.r.skip(1)
	case op >= 84 && op <= 91: // loads and stores of lanes
		w.memoryArgument()
		w.r.skip(1)
	case op <= 255:
	case op <= 0x113:
		w.feature("relaxed vector instructions", "build without -mrelaxed-simd")
	case op <= 0x14f:
		w.feature("half-precision floats", "build without -mfp16")
	default:
		w.r.broken("an unknown instruction")
	}
}

func (w *walker) unknownOp(op byte) {
	switch op {
	case 0x06, 0x07, 0x08, 0x09, 0x0a, 0x18, 0x19, 0x1f:
		w.feature("exceptions", "build without -fwasm-exceptions")
	case 0x12, 0x13:
		w.feature("tail calls", "build without -mtail-call")
	case 0xfb, 0xd3:
		w.feature("garbage collection", "build without the GC proposal")
	case 0xfe:
		w.feature("threads", "build without -pthread and atomics")
	case 0x14, 0x15, 0xd4, 0xd5, 0xd6:
		w.feature("typed function references", "build without the function-references proposal")
	case 0xe0, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6:
		w.feature("stack switching", "build without it")
	default:
		w.r.at--
		w.r.broken("an unknown instruction")
	}
}

// constant walks a constant expression, to its end.
func (w *walker) constant() {
	for n := 0; w.r.err == nil; n++ {
		if n > MaxConstant {
			w.r.fail(ErrLimit, "a constant expression has more than %d instructions: compute the value in the start-up", MaxConstant)
			return
		}
		switch op := w.r.byte(); op {
		case 0x0b:
			return
		case 0x41, 0x42, 0x43, 0x44, 0x23, 0xd0, 0xd2, 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e:
			w.immediatesOf(op)
		case 0xfd:
			if w.r.u32() != 12 {
				w.r.broken("not a constant")
			}
			w.r.skip(16)
		case 0xfb:
			w.unknownOp(op)
		default:
			w.r.at--
			w.r.broken("not a constant")
		}
	}
}

// immediatesOf reads what follows an opcode that a constant may have.
func (w *walker) immediatesOf(op byte) {
	if shape := shapes[op]; shape != plain {
		w.immediates(op, shape)
	}
}
