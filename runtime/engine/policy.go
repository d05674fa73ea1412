package engine

import (
	"errors"
	"fmt"

	"github.com/selvage-edge/selvage/runtime/engine/cshim"
)

// policy is the part of the configuration that the advisories against wasmtime
// 39 depend on. SECURITY.md says for each why it does not bite; what it counts
// on is a field here.
type policy struct {
	SignalsBasedTraps  bool
	GuardBytes         uint64
	Reservation        uint64
	Threads            bool
	Memory64           bool
	GC                 bool
	FunctionReferences bool
	MultiMemory        bool
	Exceptions         bool
	TailCall           bool
	RelaxedSIMD        bool
	ComponentModel     bool
}

// production is the only policy that the product runs under.
var production = policy{SignalsBasedTraps: true, GuardBytes: 32 << 20, Reservation: 4 << 30}

// check reports every rule of the advisory table that p, or the machine, breaks.
func (p policy) check(goos, goarch string) error {
	rules := []struct {
		ok   bool
		want string
	}{
		{goos == "linux", "linux, not " + goos},
		{goarch == "amd64", "x86-64, where wasmtime's code generator is tier 1; not " + goarch},
		{p.SignalsBasedTraps, "signals-based traps on"},
		{p.GuardBytes >= 32<<20, fmt.Sprintf("a guard of at least 32 MiB behind each memory, not %d bytes", p.GuardBytes)},
		{p.Reservation >= 4<<30, fmt.Sprintf("4 GiB reserved for each memory, not %d bytes", p.Reservation)},
		{!p.Threads, "threads off"},
		{!p.Memory64, "memory64 off"},
		{!p.GC, "GC off"},
		{!p.FunctionReferences, "function references off"},
		{!p.MultiMemory, "multiple memories off"},
		{!p.Exceptions, "exceptions off"},
		{!p.TailCall, "tail calls off"},
		{!p.RelaxedSIMD, "relaxed SIMD off"},
		{!p.ComponentModel, "the component model off"},
	}
	var faults []error
	for _, r := range rules {
		if !r.ok {
			faults = append(faults, fmt.Errorf("engine: the advisory table wants %s", r.want))
		}
	}
	return errors.Join(faults...)
}

func (p policy) config(c Config, m maps) cshim.Config {
	return cshim.Config{
		WasmStack: wasmStack, FiberStack: fiberStack, TickNanoseconds: uint64(c.Tick),
		ResidentBudget: c.ResidentBytes, TableElements: c.TableElements, MaxMaps: m.most, BaseMaps: m.now,
		RemapOnly: c.RemapOnly, ParallelCompilation: c.ParallelCompile, QuickCompilation: c.QuickCompile,
		SignalsBasedTraps: p.SignalsBasedTraps, Threads: p.Threads, Memory64: p.Memory64, GC: p.GC,
		FunctionReferences: p.FunctionReferences, MultiMemory: p.MultiMemory, Exceptions: p.Exceptions, TailCall: p.TailCall,
		RelaxedSIMD: p.RelaxedSIMD, ComponentModel: p.ComponentModel, GuardBytes: p.GuardBytes, Reservation: p.Reservation,
	}
}

// The module header, and the smallest modules that need what is off.
const header = "\x00asm\x01\x00\x00\x00"

var forbidden = []struct{ feature, module string }{
	{"threads", header + "\x05\x04\x01\x03\x01\x01"},                                                    // (memory 1 1 shared)
	{"memory64", header + "\x05\x03\x01\x04\x01"},                                                       // (memory i64 1)
	{"multiple memories", header + "\x05\x05\x02\x00\x01\x00\x01"},                                      // (memory 1) (memory 1)
	{"GC", header + "\x01\x03\x01\x5f\x00"},                                                             // (type (struct))
	{"exceptions", header + "\x01\x04\x01\x60\x00\x00\x0d\x03\x01\x00\x00"},                             // (tag)
	{"function references", header + "\x01\x09\x02\x60\x00\x00\x60\x01\x64\x00\x00"},                    // (func (param (ref 0)))
	{"tail calls", header + "\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x0a\x06\x01\x04\x00\x12\x00\x0b"}, // return_call 0
	{"custom page sizes", header + "\x05\x04\x01\x08\x01\x00"},                                          // (memory 1 (pagesize 1))
	{"components", "\x00asm\x0d\x00\x01\x00"},
}

// prove asks the engine itself: what is off must be refused, and a plain module accepted.
func (policy) prove(validate func([]byte) error) error {
	if err := validate([]byte(header + "\x05\x03\x01\x00\x01")); err != nil {
		return fmt.Errorf("engine: self-test: a plain module is refused: %w", err)
	}
	for _, f := range forbidden {
		if validate([]byte(f.module)) == nil {
			return fmt.Errorf("engine: self-test: wasmtime accepts a module with %s, which the advisory table forbids", f.feature)
		}
	}
	return nil
}
