package engine

import (
	"fmt"
	"time"
)

// EventKind says why Poll came back.
type EventKind uint8

// What Poll may report.
const (
	Done   EventKind = iota + 1 // every entry returned
	Failed                      // a trap; the instance can only be closed
	Yield                       // the tick: charge, check deadlines, then Poll again or Close
	Call                        // a host call waits for Resume (or Fail)
)

// Event is what Poll reports.
type Event struct {
	Kind EventKind
	Op   Op              // of a Call
	Args [MaxArgs]uint64 // i32 zero-extended, floats by their bits
	N    int             // how many Args there are
	Trap *Trap           // of Failed
}

// TrapCode classifies a failure.
type TrapCode uint8

// The codes.
const (
	TrapOther       TrapCode = iota + 1 // anything not named below
	TrapStack                           // recursed past the Wasm stack
	TrapMemory                          // access outside the memory
	TrapTable                           // access outside a table
	TrapIndirect                        // indirect call of nothing, or of another type
	TrapArithmetic                      // division by zero, overflow, bad conversion
	TrapUnreachable                     // executed unreachable: aborts and panics of most languages
	TrapInterrupt                       // over StartConfig.CPULimit, or stopped by Instance.Interrupt
	TrapPointer                         // handed the host a pointer outside its memory
	TrapExit                            // called proc_exit
	TrapHostCall                        // made a host call it may not make now (NoHostCalls)
	TrapStart                           // could not be instantiated
	TrapHost                            // failed by Instance.Fail
	TrapCapacity                        // not the guest's fault: the node could not map its memory or stack
)

var trapNames = [...]string{
	TrapOther: "trap", TrapStack: "stack overflow", TrapMemory: "memory out of bounds", TrapTable: "table out of bounds",
	TrapIndirect: "bad indirect call", TrapArithmetic: "arithmetic", TrapUnreachable: "unreachable", TrapInterrupt: "interrupted",
	TrapPointer: "pointer outside memory", TrapExit: "exit", TrapHostCall: "host call not allowed", TrapStart: "could not be instantiated",
	TrapHost: "failed by the host", TrapCapacity: "no room on the node",
}

// String returns a short name.
func (c TrapCode) String() string {
	if c == 0 || int(c) >= len(trapNames) {
		return fmt.Sprintf("trap(%d)", uint8(c))
	}
	return trapNames[c]
}

// Trap is how a guest failed.
type Trap struct {
	Code        TrapCode
	ExitStatus  int    // of TrapExit
	Message     string // one line
	Backtrace   string // one frame a line, the innermost first: "0: name (function 7+0x1f)", the offset in the function's body; may be empty
	GrowRefused bool   // a memory.grow was refused before, for the memory limit
}

func (t *Trap) Error() string {
	if t.Message == "" {
		return t.Code.String()
	}
	return t.Message
}

// Usage is what an instance has used so far.
type Usage struct {
	CPU         time.Duration
	MemoryBytes int64  // linear memory; it never shrinks, so this is the peak
	HostCalls   uint64 // all host calls
	Crossings   uint64 // those that suspended
}

// ResponseView is what C gathered of the answer. Its slices are C's memory,
// valid until the next Poll, ClearBody or Close.
type ResponseView struct {
	HeadSet bool // response_head was called with a final status
	Status  int
	Headers []byte // pairs, as the guest wrote them: not yet validated
	Body    []byte // gathered by response_write since the last ClearBody
}

// Stream says where a log record came from.
type Stream uint8

// The streams.
const (
	LogCall Stream = iota // the log call
	Stdout
	Stderr
)

// LogRecord is one call of log, or bytes written to a standard stream; for those
// a record may hold several lines or end in the middle of one.
type LogRecord struct {
	Time   time.Time
	Stream Stream
	Level  int // slog's numbers; 0 for streams
	Text   []byte
}
