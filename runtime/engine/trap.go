package engine

import (
	"strings"

	"github.com/selvage-edge/selvage/runtime/engine/cshim"
)

// wasmtime's trap codes, by number (wasmtime/trap.h).
var wasmtimeTraps = [...]TrapCode{
	0: TrapStack, 1: TrapMemory, 2: TrapMemory, 3: TrapTable, 4: TrapIndirect, 5: TrapIndirect,
	6: TrapArithmetic, 7: TrapArithmetic, 8: TrapArithmetic, 9: TrapUnreachable, 10: TrapInterrupt,
}

func trapCode(code uint32) TrapCode {
	if int(code) < len(wasmtimeTraps) {
		return wasmtimeTraps[code]
	}
	switch code {
	case cshim.TrapPointer:
		return TrapPointer
	case cshim.TrapExit:
		return TrapExit
	case cshim.TrapHostCall:
		return TrapHostCall
	case cshim.TrapStart:
		return TrapStart
	case cshim.TrapHost:
		return TrapHost
	case cshim.TrapCapacity:
		return TrapCapacity
	default:
		return TrapOther
	}
}

func shimTrap(code TrapCode) uint32 {
	switch code {
	case TrapPointer:
		return cshim.TrapPointer
	case TrapExit:
		return cshim.TrapExit
	case TrapHostCall:
		return cshim.TrapHostCall
	default:
		return cshim.TrapHost
	}
}

func (i *Instance) trap() *Trap {
	code, exit, message, trace, refused := i.in.Trap()
	return &Trap{Code: trapCode(code), ExitStatus: exit, Message: rootCause(message), Backtrace: trace, GrowRefused: refused}
}

// rootCause takes the innermost cause out of the engine's many-line message: a
// heading with the backtrace, "Caused by:" and a list, and (where RUST_BACKTRACE
// is set) the engine's own stack.
func rootCause(message string) string {
	message, _, _ = strings.Cut(strings.TrimRight(message, "\x00"), "\n\nStack backtrace:")
	_, causes, ok := strings.Cut(message, "Caused by:")
	if !ok {
		first, _, _ := strings.Cut(message, "\n")
		return strings.TrimSpace(first)
	}
	lines := strings.Split(strings.TrimSpace(causes), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if n, rest, ok := strings.Cut(last, ": "); ok && strings.Trim(n, "0123456789") == "" {
		return rest
	}
	return last
}
