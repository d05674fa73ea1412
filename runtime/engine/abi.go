package engine

import "fmt"

// ValKind is a WebAssembly value type, by its byte in the binary format.
type ValKind byte

// The value types a host call may use.
const (
	I32 ValKind = 0x7f
	I64 ValKind = 0x7e
	F32 ValKind = 0x7d
	F64 ValKind = 0x7c
)

// String returns the type's name in the text format.
func (k ValKind) String() string {
	switch k {
	case I32:
		return "i32"
	case I64:
		return "i64"
	case F32:
		return "f32"
	case F64:
		return "f64"
	default:
		return fmt.Sprintf("type %#x", byte(k))
	}
}

// Op names a host call that suspends: Poll reports it in an Event. The numbers
// belong to the ABI rooms; zero means "never suspends".
type Op uint32

// Import is one function that guests may import. Without a Builtin, every call
// suspends with Op. With one, C answers; a builtin that may suspend
// (Builtin.Suspends) then does so with Op.
type Import struct {
	Module  string
	Name    string
	Params  []ValKind // at most MaxArgs
	Results []ValKind // at most one
	Op      Op
	Builtin Builtin
}

// MaxArgs is the largest number of parameters of a host call.
const MaxArgs = 9

// Builtin names a host call answered in C, without a crossing into Go.
type Builtin uint8

// The native ABI (sdk/abi). All pointers are checked; one outside the memory is
// a trap of code TrapPointer.
const (
	NoBuiltin Builtin = iota
	// NativeRequestHead answers request_head from StartConfig.Head.
	NativeRequestHead
	// NativeRequestRead answers 0 (the end) when there is no body, else suspends with (buf, cap).
	NativeRequestRead
	// NativeResponseHead keeps the final head, once; a 1xx head suspends with (status, headers, headers_len).
	NativeResponseHead
	// NativeResponseWrite gathers up to GatherBytes, else suspends with (ptr, len): send Response().Body,
	// then the guest's bytes, ClearBody, and Resume(len).
	NativeResponseWrite
	// NativeLog keeps a record, up to StartConfig.LogLimit.
	NativeLog
	// NativeClockNow answers clock_now.
	NativeClockNow
	// NativeRandom fills from the kernel; at most MaxRandomBytes a call.
	NativeRandom
	// NativeEnvironment answers environment from ProgramConfig.Environment.
	NativeEnvironment
)

// WASI preview 1. A bad pointer is answered with EFAULT.
const (
	// WASIArgsGet and the three after it answer from ProgramConfig.Args and Environ.
	WASIArgsGet Builtin = iota + 32
	WASIArgsSizesGet
	WASIEnvironGet
	WASIEnvironSizesGet
	WASIClockResGet
	WASIClockTimeGet
	WASIRandomGet
	// WASIFdWrite sends descriptors 1 and 2 to the log; others are EBADF.
	WASIFdWrite
	// WASIFdRead is at its end on descriptor 0; others are EBADF.
	WASIFdRead
	WASIFdFdstatGet
	WASIFdFdstatSetFlags
	WASIFdFilestatGet
	WASIFdClose
	// WASIFdSeek is ESPIPE on the streams, which are descriptors 0 to 2 unless the guest changed that; others are EBADF: fd_seek and
	// what else needs a position, whatever the parameters are (one i32 result).
	WASIFdSeek
	// WASIPollOneoff answers at once when something is ready, else suspends with one argument, the
	// nanoseconds to wait; Resume(0) afterwards and C writes the events.
	WASIPollOneoff
	WASISchedYield
	// WASIProcExit ends the guest: a Trap of code TrapExit.
	WASIProcExit
	// WASIBadFD answers EBADF whatever the parameters are (one i32 result).
	WASIBadFD
	// WASINotSupported answers ENOTSUP whatever the parameters are (one i32 result).
	WASINotSupported
	// WASINotFile, WASINotDirectory and WASINotSocket answer EINVAL, ENOTDIR and ENOTSOCK on
	// the streams, the first parameter, and EBADF on others (one i32 result).
	WASINotFile
	WASINotDirectory
	WASINotSocket
	// WASIFdFdstatSetRights gives up rights; what would add some is ENOTCAPABLE.
	WASIFdFdstatSetRights
	// WASIFdRenumber moves a stream among the numbers 0 to 2.
	WASIFdRenumber
	// WASIFdFilestatSetTimes is ENOTCAPABLE on the streams: none has the right.
	WASIFdFilestatSetTimes
	// WASIPathSymlink is ENOTDIR on the streams.
	WASIPathSymlink
)

// Limits of what C keeps for one invocation.
const (
	GatherBytes    = 16 << 10 // response bytes gathered before response_write suspends
	MaxRandomBytes = 1 << 20  // of one random call
)
