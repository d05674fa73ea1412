// Package engine runs WebAssembly: the only room that knows wasmtime.
package engine

import (
	"errors"
	"time"

	"github.com/selvage-edge/selvage/runtime/image"
)

// ErrCapacity says the node has no room for another instance; answer 503.
var ErrCapacity = errors.New("engine: no room for another instance on this node (memory maps); raise vm.max_map_count")

// Config says how an Engine runs. The zero value is the default of every field.
type Config struct {
	Tick          time.Duration // how often running guests hand the processor back; default 1 ms
	ResidentBytes int64         // memory that free slots may keep, node-wide; default 512 MiB
	TableElements int           // of one instance's tables; default 131,072
	RemapOnly     bool          // reset slots by mapping them anew, as where PAGEMAP_SCAN is missing
}

// Engine compiles and runs code. There is one per process.
type Engine struct{}

// Open starts the engine. It refuses a second one in the process, and a
// configuration or machine that SECURITY.md's advisory table does not allow.
func Open(Config) (*Engine, error) { panic("soon") }

// Close stops the engine. Every instance must have been closed before.
func (*Engine) Close() error { panic("soon") }

// Compile returns the artifact of code. Cold and slow; only helpers call it.
func (*Engine) Compile(code []byte) (artifact []byte, err error) { panic("soon") }

// Fingerprint names everything besides the code that an artifact depends on.
func (*Engine) Fingerprint() string { panic("soon") }

// Load makes code runnable. The artifact is native code: the caller has
// authenticated exactly these bytes.
func (*Engine) Load(artifact []byte) (*Code, error) { panic("soon") }

// LoadFile is Load from a sealed memfd, which is mapped rather than copied.
func (*Engine) LoadFile(fd int) (*Code, error) { panic("soon") }

// Image prepares an image for instances; they share it.
func (*Engine) Image(*image.Image) (*Image, error) { panic("soon") }

// Link defines the imports that programs may use; once per process.
func (*Engine) Link([]Import) (*Linker, error) { panic("soon") }

// Program binds code, image and imports.
func (*Engine) Program(ProgramConfig) (*Program, error) { panic("soon") }

// Stats returns the engine's counters.
func (*Engine) Stats() Stats { panic("soon") }

// Stats are counters and gauges of one engine.
type Stats struct {
	Instances     int64 // alive
	SlotsFree     int64
	SlotsRetired  int64 // not reused because a reset failed
	ResidentBytes int64 // kept by free slots
	Maps          int64 // memory maps, estimated from above
	MaxMaps       int64 // Start is refused above it
	Starts        uint64
	Resets        uint64 // slots reset by copying pages back
	PagesCopied   uint64
	Remaps        uint64 // slots reset by mapping the image over
	Scanning      bool   // PAGEMAP_SCAN works here
}

// Code is compiled code, shared by every program made from it.
type Code struct{}

// Extern is one import or export of code.
type Extern struct {
	Module  string // of an import
	Name    string
	Kind    ExternKind
	Params  []ValKind // of a function
	Results []ValKind
}

// ExternKind is what an import or export is.
type ExternKind uint8

// The kinds.
const (
	FuncExtern ExternKind = iota
	GlobalExtern
	TableExtern
	MemoryExtern
)

// Imports lists what the code imports.
func (*Code) Imports() []Extern { panic("soon") }

// Exports lists what the code exports.
func (*Code) Exports() []Extern { panic("soon") }

// HasFunc reports whether the code exports a function of that name.
func (*Code) HasFunc(name string) bool { panic("soon") }

// Close gives the code back; programs made from it stay whole.
func (*Code) Close() { panic("soon") }

// Image is a prepared image: a sealed memfd.
type Image struct{}

// Size is the image's size in bytes.
func (*Image) Size() uint64 { panic("soon") }

// Close gives the image back; programs made from it stay whole.
func (*Image) Close() { panic("soon") }

// Linker is a table of imports.
type Linker struct{}

// Close gives the linker back; programs made from it stay whole.
func (*Linker) Close() { panic("soon") }

// ProgramConfig says what a program is made of.
type ProgramConfig struct {
	Code        *Code
	Image       *Image
	Linker      *Linker
	Entries     []string // exports of type () -> (), called in order on a new instance; each must exist
	Environment []byte   // sdk/abi environment blob
	Args        []string // WASI arguments
	Environ     []string // WASI environment, "NAME=value"
}

// Program is code bound to its image and imports, ready to start.
type Program struct{}

// StartConfig says what one instance gets. It is copied.
type StartConfig struct {
	Head              []byte // request head, sdk/abi layout
	HasBody           bool   // request_read suspends; else it answers the end
	MemoryLimit       int64  // bytes; the image must fit
	LogLimit          int    // bytes, each record counted with 16 more; default 64 KiB
	ResponseHeadLimit int    // bytes; default 32 KiB
	NoHostCalls       bool   // a call that would suspend traps (TrapHostCall), naming it
}

// Start makes an instance; it runs nothing until Poll. ErrCapacity when maps run short.
func (*Program) Start(StartConfig) (*Instance, error) { panic("soon") }

// Close gives the program back once its last instance is freed.
func (*Program) Close() { panic("soon") }

// Instance is one sandbox. Its methods are for one goroutine at a time, except
// Borrow.Release.
type Instance struct{}

// Poll runs the guest until it ends, suspends or yields.
func (*Instance) Poll() Event { panic("soon") }

// Resume answers the pending call; Poll then runs on.
func (*Instance) Resume(result int64) { panic("soon") }

// Fail answers the pending call with a trap; the next Poll reports it, with the guest's backtrace.
func (*Instance) Fail(code TrapCode, message string) { panic("soon") }

// Borrow lends n bytes of the guest's memory at ptr; false if they are not all inside it.
func (*Instance) Borrow(ptr, n uint32) (Borrow, bool) { panic("soon") }

// Response returns what C gathered of the answer.
func (*Instance) Response() ResponseView { panic("soon") }

// ClearBody forgets the gathered body: it was sent.
func (*Instance) ClearBody() { panic("soon") }

// MarkSent says the head went out: response_head answers StatusState from now on.
func (*Instance) MarkSent() { panic("soon") }

// TakeLog returns the records gathered since the last call, and how many were dropped over the limit.
func (*Instance) TakeLog() (records []LogRecord, dropped int) { panic("soon") }

// Usage returns what the instance has used so far.
func (*Instance) Usage() Usage { panic("soon") }

// Snapshot returns memory and globals after Done. It refuses what it cannot capture exactly.
func (*Instance) Snapshot() (*image.Image, error) { panic("soon") }

// Close ends the guest wherever it is. Its memory is freed only when every Borrow is back.
func (*Instance) Close() { panic("soon") }

// Borrow is a piece of a guest's memory, lent for I/O.
type Borrow struct{ p []byte }

// Bytes is the guest's own memory.
func (b Borrow) Bytes() []byte { return b.p }

// Release gives the memory back; call it exactly once.
func (b Borrow) Release() { panic("soon") }
