package cshim

// #cgo noescape sv_start
// #cgo nocallback sv_start
// #cgo noescape sv_poll
// #cgo nocallback sv_poll
// #cgo noescape sv_inst_end
// #cgo nocallback sv_inst_end
// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"errors"
	"sync"
	"unsafe"
)

// What Poll returns, and Start.
const (
	Started = C.SV_STARTED
	Done    = C.SV_DONE
	Failed  = C.SV_FAILED
	Yield   = C.SV_YIELD
	Call    = C.SV_CALL
)

// Trap codes: wasmtime's own, then ours.
const (
	TrapPointer  = C.SV_TRAP_POINTER
	TrapExit     = C.SV_TRAP_EXIT
	TrapHostCall = C.SV_TRAP_HOSTCALL
	TrapStart    = C.SV_TRAP_START
	TrapHost     = C.SV_TRAP_HOST
	TrapCapacity = C.SV_TRAP_CAPACITY
	TrapOther    = C.SV_TRAP_OTHER
)

// Bits of Asked.
const (
	AskedRandom      = C.SV_ASKED_RANDOM
	AskedTime        = C.SV_ASKED_TIME
	AskedEnvironment = C.SV_ASKED_ENVIRONMENT
)

// Why Start may refuse.
var (
	ErrNoRoom   = errors.New("too many memory maps")
	ErrNoMemory = errors.New("out of memory")
	ErrTooLarge = errors.New("the image is larger than the memory limit")
)

// StartConfig says what an instance gets.
type StartConfig struct {
	Head                []byte
	HasBody, NoCalls    bool
	Poll                bool // poll it at once
	MemoryLimit         int64
	LogLimit, HeadLimit uint32
	CPULimit            uint64 // ns; 0: none
}

// Inst is an instance. Its methods are plain reads and writes of C's memory
// except Poll, Global and Free.
type Inst struct {
	p *C.sv_inst
	v *C.sv_view
}

// spares are the structs of instances that ended, kept on this side: an
// invocation that is over when its first poll returns crosses once.
var spares struct {
	sync.Mutex
	list []*C.sv_inst
}

const maxSpares = 256

func takeSpare() *C.sv_inst {
	spares.Lock()
	defer spares.Unlock()
	n := len(spares.list) - 1
	if n < 0 {
		return nil
	}
	p := spares.list[n]
	spares.list = spares.list[:n]
	return p
}

func giveSpare(p *C.sv_inst, keep bool) {
	if keep {
		spares.Lock()
		if keep = len(spares.list) < maxSpares; keep {
			spares.list = append(spares.list, p)
		}
		spares.Unlock()
	}
	if !keep {
		C.sv_inst_drop(p)
	}
}

// Start makes an instance, and with Poll polls it. An instance that is Done by
// then has ended: its memory is gone, what C gathered of its answer stays until Free.
func (p Prog) Start(c *StartConfig) (Inst, int, error) {
	head, n := bytesPtr(c.Head)
	out := C.sv_start(p.p, takeSpare(), head, n, c.flags(), C.int64_t(c.MemoryLimit), C.uint32_t(c.LogLimit), C.uint32_t(c.HeadLimit), C.uint64_t(c.CPULimit))
	if out.event < 0 {
		if out.in != nil {
			giveSpare(out.in, true)
		}
		return Inst{}, 0, startErrors[-out.event]
	}
	// The view is its first field: internal.h asserts it.
	return Inst{p: out.in, v: (*C.sv_view)(unsafe.Pointer(out.in))}, int(out.event), nil
}

var startErrors = [...]error{-C.SV_NO_ROOM: ErrNoRoom, -C.SV_NO_MEMORY: ErrNoMemory, -C.SV_TOO_LARGE: ErrTooLarge}

func (c *StartConfig) flags() (f C.uint32_t) {
	if c.HasBody {
		f |= C.SV_HAS_BODY
	}
	if c.NoCalls {
		f |= C.SV_NO_CALLS
	}
	if c.Poll {
		f |= C.SV_POLL
	}
	return f
}

// Poll runs the guest.
func (in Inst) Poll() int { return int(C.sv_poll(in.p)) }

// Free ends the guest, if it has not ended, and gives everything back.
func (in Inst) Free() {
	if !in.v.ended {
		C.sv_inst_end(in.p)
	}
	giveSpare(in.p, bool(in.v.keep))
}

// Ended reports whether the guest's memory is gone.
func (in Inst) Ended() bool { return bool(in.v.ended) }

// Call returns the pending call.
func (in Inst) Call(args []uint64) (op uint32, n int) {
	n = int(in.v.nargs)
	for i := range n {
		args[i] = uint64(in.v.args[i])
	}
	return uint32(in.v.op), n
}

// Answer answers the pending call.
func (in Inst) Answer(result int64) {
	in.v.result = C.int64_t(result)
	in.v.answered = true
}

// Fail answers the pending call with a trap.
func (in Inst) Fail(code uint32, message string) {
	in.v.fail_message = C.CString(message)
	in.v.fail_code = C.uint32_t(code)
	in.v.answered = true
}

// Stop makes the guest trap at its next tick.
func (in Inst) Stop() { in.v.stop = true }

// Memory is the guest's whole memory.
func (in Inst) Memory() []byte { return view(in.v.memory, uint64(in.v.memory_size)) }

// Response returns what was gathered.
func (in Inst) Response() (headSet bool, status int, head, body []byte) {
	v := in.v
	return bool(v.head_set), int(v.status), view(v.head, uint64(v.head_len)), view(v.body, uint64(v.body_len))
}

// RefusedHeads returns how many response heads were refused.
func (in Inst) RefusedHeads() (second, large int) {
	return int(in.v.second_heads), int(in.v.large_heads)
}

// ClearBody forgets the gathered body.
func (in Inst) ClearBody() { in.v.body_len = 0 }

// MarkSent closes the head.
func (in Inst) MarkSent() { in.v.sent = true }

// Log returns the gathered records and the number of dropped ones.
func (in Inst) Log() (records []byte, dropped int) {
	return view(in.v.log, uint64(in.v.log_len)), int(in.v.log_dropped)
}

// ClearLog forgets them.
func (in Inst) ClearLog() { in.v.log_len, in.v.log_dropped, in.v.log_open = 0, 0, 0 }

// Usage returns the counters.
func (in Inst) Usage() (cpuNanoseconds, memoryBytes, hostCalls, crossings uint64) {
	v := in.v
	return uint64(v.cpu_ns), uint64(v.memory_size), uint64(v.host_calls), uint64(v.crossings)
}

// Asked returns what the guest asked for, as bits.
func (in Inst) Asked() uint32 { return uint32(in.v.asked) }

// FDsChanged reports whether the guest closed or renumbered a descriptor, or gave up rights on one.
func (in Inst) FDsChanged() bool { return bool(in.v.fds_changed) }

// Trap returns how the guest failed.
func (in Inst) Trap() (code uint32, exit int, message, trace string, growRefused bool) {
	v := in.v
	return uint32(v.trap_code), int(v.exit_status), C.GoString(v.trap_message), C.GoString(v.trap_trace), bool(v.grow_refused)
}

// Global reads an exported global of a number type.
func (in Inst) Global(name string) (kind byte, bits uint64, ok bool) {
	s, n := stringPtr(name)
	var k C.uint8_t
	var b C.uint64_t
	ok = bool(C.sv_inst_global(in.p, s, n, &k, &b))
	return byte(k), uint64(b), ok
}

func view(p *C.uint8_t, n uint64) []byte {
	if p == nil {
		return nil
	}
	return unsafe.Slice((*byte)(p), n)
}
