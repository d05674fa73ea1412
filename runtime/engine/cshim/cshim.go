// Package cshim is the engine's C room: fibers, memory slots, stacks and the
// host calls that need no port. C keeps no Go pointer, and never calls Go.
package cshim

// #cgo LDFLAGS: -Wl,--wrap=calloc -Wl,--wrap=realloc -Wl,--wrap=free
// #cgo CFLAGS: -O2 -std=gnu11 -Wall -fstack-clash-protection
// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"errors"
	"unsafe"

	_ "github.com/bytecodealliance/wasmtime-go/v39" // the library that the C files call
)

// Config is what the engine decides; see shim.h.
type Config struct {
	WasmStack, FiberStack   uint64
	TickNanoseconds         uint64
	ResidentBudget          int64
	TableElements           int64
	MaxMaps, BaseMaps       int64
	RemapOnly               bool
	ParallelCompilation     bool
	QuickCompilation        bool // without optimization
	SignalsBasedTraps       bool
	Threads                 bool
	Memory64                bool
	GC                      bool
	FunctionReferences      bool
	MultiMemory             bool
	Exceptions              bool
	TailCall                bool
	RelaxedSIMD             bool
	ComponentModel          bool
	GuardBytes, Reservation uint64
}

// Open makes the process's engine. Call it once.
func Open(c Config) error {
	k := C.sv_config{
		wasm_stack: C.uint64_t(c.WasmStack), fiber_stack: C.uint64_t(c.FiberStack), tick_ns: C.uint64_t(c.TickNanoseconds),
		resident_budget: C.int64_t(c.ResidentBudget), table_elements: C.int64_t(c.TableElements),
		max_maps: C.int64_t(c.MaxMaps), base_maps: C.int64_t(c.BaseMaps),
		remap_only: C.bool(c.RemapOnly), parallel_compilation: C.bool(c.ParallelCompilation), quick_compilation: C.bool(c.QuickCompilation),
		signals_based_traps: C.bool(c.SignalsBasedTraps), threads: C.bool(c.Threads), memory64: C.bool(c.Memory64), gc: C.bool(c.GC),
		function_references: C.bool(c.FunctionReferences), multi_memory: C.bool(c.MultiMemory), exceptions: C.bool(c.Exceptions),
		tail_call: C.bool(c.TailCall), relaxed_simd: C.bool(c.RelaxedSIMD), component_model: C.bool(c.ComponentModel),
		guard_bytes: C.uint64_t(c.GuardBytes), reservation_bytes: C.uint64_t(c.Reservation),
	}
	return take(C.sv_open(&k))
}

// Close stops the ticker and frees the engine.
func Close() { C.sv_close() }

// Scanning reports whether slots are reset by PAGEMAP_SCAN; else by mapping anew.
func Scanning() bool { return bool(C.sv_scanning()) }

// SetScanning chooses; on has no effect where PAGEMAP_SCAN was not proven at Open.
func SetScanning(on bool) { C.sv_set_scanning(C.bool(on)) }

// CPUFeatures are the processor's feature registers.
func CPUFeatures() (bits [6]uint32) {
	C.sv_cpu_features((*C.uint32_t)(unsafe.Pointer(&bits)))
	return bits
}

// Stats are the room's counters.
type Stats struct {
	Instances, Kept, FreeSlots, RetiredSlots, ResidentBytes, Maps, MaxMaps                      int64
	Starts, Renewed, Resets, KnownResets, PagesCopied, PagesTrimmed, PagesFolded, Remaps, Ticks uint64
}

// ReadStats returns the counters.
func ReadStats() Stats {
	var s C.sv_stats
	C.sv_read_stats(&s)
	return Stats{
		int64(s.instances), int64(s.kept), int64(s.free_slots), int64(s.retired_slots), int64(s.resident_bytes), int64(s.maps), int64(s.max_maps),
		uint64(s.starts), uint64(s.renewed), uint64(s.resets), uint64(s.known_resets), uint64(s.pages_copied), uint64(s.pages_trimmed), uint64(s.pages_folded), uint64(s.remaps), uint64(s.ticks),
	}
}

// Room reports whether so many more memory maps may be made, after giving back
// cold slots if need be.
func Room(more int) bool { return bool(C.sv_room(C.int64_t(more))) }

// take turns a malloc'd message into an error and frees it.
func take(message *C.char) error {
	if message == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(message))
	return errors.New(C.GoString(message))
}

func bytesPtr(b []byte) (*C.uint8_t, C.size_t) {
	return (*C.uint8_t)(unsafe.SliceData(b)), C.size_t(len(b))
}

func stringPtr(s string) (*C.char, C.size_t) {
	return (*C.char)(unsafe.Pointer(unsafe.StringData(s))), C.size_t(len(s))
}
