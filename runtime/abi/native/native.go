// Package native is the selvage_v1 imports: it decodes what a guest passes, asks
// the ports, and encodes the answer. Layouts and statuses are those of sdk/abi.
//
// Calls that need nothing from the node are answered in C (engine's builtins)
// and never come here.
package native

import (
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// The calls that suspend.
const (
	OpRequestRead engine.Op = iota + 1
	OpResponseHead
	OpResponseWrite
	OpResponseFlush
	OpSleep // its argument is the nanoseconds to wait; whoever polls waits
	OpKVOpen
	OpKVGet
	OpKVPut
	OpKVDelete
	OpKVList
	OpFetchStart
	OpFetchWrite
	OpFetchHead
	OpFetchRead
	OpFetchClose
	OpFetchTrailers
	OpFetchWait
	OpRequestTrailers
	OpResponseTrailers
	OpWait
	OpKVAsk
	OpKVTake
	OpKVKeys
	OpKVRead
	OpKVWrite
	OpKVIncrement
	opEnd
)

// Owns reports whether op is one of this package's.
func Owns(op engine.Op) bool { return op >= OpRequestRead && op < opEnd }

// Imports is the import table of selvage_v1.
func Imports() []engine.Import {
	const i32, i64 = engine.I32, engine.I64
	f := func(name string, result engine.ValKind, op engine.Op, b engine.Builtin, params ...engine.ValKind) engine.Import {
		return engine.Import{
			Module: abi.Module, Name: name, Params: params, Results: []engine.ValKind{result}, Op: op, Builtin: b,
		}
	}
	const inGo = engine.NoBuiltin
	return []engine.Import{
		f(abi.CallRequestHead, i32, 0, engine.NativeRequestHead, i32, i32),
		f(abi.CallRequestRead, i32, OpRequestRead, engine.NativeRequestRead, i32, i32),
		f(abi.CallResponseHead, i32, OpResponseHead, engine.NativeResponseHead, i32, i32, i32),
		f(abi.CallResponseWrite, i32, OpResponseWrite, engine.NativeResponseWrite, i32, i32),
		f(abi.CallResponseFlush, i32, OpResponseFlush, inGo),
		f(abi.CallRequestTrailers, i32, OpRequestTrailers, inGo, i32, i32),
		f(abi.CallResponseTrailers, i32, OpResponseTrailers, inGo, i32, i32),
		f(abi.CallLog, i32, 0, engine.NativeLog, i32, i32, i32),
		f(abi.CallClockNow, i64, 0, engine.NativeClockNow, i32),
		f(abi.CallSleep, i32, OpSleep, inGo, i64),
		f(abi.CallRandom, i32, 0, engine.NativeRandom, i32, i32),
		f(abi.CallEnvironment, i32, 0, engine.NativeEnvironment, i32, i32),

		f(abi.CallKVOpen, i32, OpKVOpen, inGo, i32, i32),
		f(abi.CallKVGet, i32, OpKVGet, inGo, i32, i32, i32, i32, i32, i32),
		f(abi.CallKVAsk, i32, OpKVAsk, inGo, i32, i32, i32),
		f(abi.CallKVTake, i32, OpKVTake, inGo, i32, i32, i32, i32),
		f(abi.CallKVPut, i64, OpKVPut, inGo, i32, i32, i32, i32, i32, i64, i64),
		f(abi.CallKVDelete, i64, OpKVDelete, inGo, i32, i32, i32, i64),
		f(abi.CallKVList, i32, OpKVList, inGo, i32, i32, i32, i32, i32, i32, i32, i32),
		f(abi.CallKVKeys, i32, OpKVKeys, inGo, i32, i32, i32, i32, i32, i32, i32, i32),
		f(abi.CallKVRead, i32, OpKVRead, inGo, i32, i32, i32, i64, i32, i32),
		f(abi.CallKVWrite, i64, OpKVWrite, inGo, i32, i32, i32, i32, i32, i32, i32, i64, i64),
		f(abi.CallKVIncrement, i64, OpKVIncrement, inGo, i32, i32, i32, i64, i32),

		f(abi.CallWait, i32, OpWait, inGo, i32, i32, i64),

		f(abi.CallFetchStart, i32, OpFetchStart, inGo, i32, i32),
		f(abi.CallFetchWrite, i32, OpFetchWrite, inGo, i32, i32, i32),
		f(abi.CallFetchHead, i32, OpFetchHead, inGo, i32, i32, i32),
		f(abi.CallFetchRead, i32, OpFetchRead, inGo, i32, i32, i32),
		f(abi.CallFetchClose, i32, OpFetchClose, inGo, i32),
		f(abi.CallFetchTrailers, i32, OpFetchTrailers, inGo, i32, i32, i32),
		f(abi.CallFetchWait, i32, OpFetchWait, inGo, i32, i32, i64),
	}
}
