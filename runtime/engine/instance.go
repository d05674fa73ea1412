package engine

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine/cshim"
)

// StartConfig says what one instance gets. Head is copied.
type StartConfig struct {
	Head              []byte        // request head, sdk/abi layout
	HasBody           bool          // request_read suspends; else it answers the end
	MemoryLimit       int64         // bytes; the image must fit
	LogLimit          int           // bytes, each record counted with 16 more; default 64 KiB
	ResponseHeadLimit int           // bytes; default 32 KiB
	CPULimit          time.Duration // a tick that finds more used makes the guest trap where it is (TrapInterrupt); default none
	NoHostCalls       bool          // a call that would suspend traps (TrapHostCall), naming it
}

// Instance is one sandbox. Its methods are for one goroutine at a time, except
// Borrow.Release. After Close they do nothing.
type Instance struct {
	in      cshim.Inst
	program *Program
	last    EventKind
	closed  bool
	final   Usage        // at Close
	pins    atomic.Int32 // one for the owner until Close, one for each borrow
}

// Start makes an instance; it runs nothing until Poll. ErrCapacity when maps run short.
func (p *Program) Start(c StartConfig) (*Instance, error) {
	i := new(Instance)
	_, err := p.start(i, &c, false)
	if err != nil {
		return nil, err
	}
	return i, nil
}

// Run makes i, which must be zero, an instance of p and polls it for the first
// time, in one crossing into C: most invocations need no other. One that is Done
// by then has no memory any more, only its answer, log and usage; it is to be
// closed like every other, unless there is an error.
func (p *Program) Run(i *Instance, c *StartConfig) (Event, error) {
	result, err := p.start(i, c, true)
	if err != nil {
		return Event{}, err
	}
	return i.event(result), nil
}

func (p *Program) start(i *Instance, c *StartConfig, poll bool) (int, error) {
	if p.closed.Load() {
		return 0, errors.New("start: the program is closed")
	}
	in, result, err := p.p.Start(&cshim.StartConfig{
		Head: c.Head, HasBody: c.HasBody, NoCalls: c.NoHostCalls, Poll: poll, MemoryLimit: c.MemoryLimit,
		LogLimit: limit(c.LogLimit, 64<<10), HeadLimit: limit(c.ResponseHeadLimit, 32<<10), CPULimit: uint64(max(c.CPULimit, 0)),
	})
	switch {
	case err == nil:
		i.in, i.program = in, p
		i.pins.Store(1)
		return result, nil
	case errors.Is(err, cshim.ErrNoRoom):
		return 0, ErrCapacity
	default:
		return 0, fmt.Errorf("start: %w (image %d bytes, limit %d)", err, p.image.size, c.MemoryLimit)
	}
}

func limit(n, def int) uint32 {
	const most = 16 << 20
	if n <= 0 {
		n = def
	}
	return uint32(min(n, most))
}

// Poll runs the guest until it ends, suspends or yields.
func (i *Instance) Poll() Event {
	if i.closed {
		return Event{Kind: Failed, Trap: &Trap{Code: TrapHost, Message: "the instance is closed"}}
	}
	return i.event(i.in.Poll())
}

// event is what a poll came to.
func (i *Instance) event(result int) (e Event) {
	switch result {
	case cshim.Done:
		e.Kind = Done
	case cshim.Yield:
		e.Kind = Yield
	case cshim.Call:
		e.Kind = Call
		op, n := i.in.Call(e.Args[:])
		e.Op, e.N = Op(op), n
	default:
		e.Kind = Failed
		e.Trap = i.trap()
	}
	i.last = e.Kind
	return e
}

// Resume answers the pending call; Poll then runs on.
func (i *Instance) Resume(result int64) {
	if !i.closed {
		i.in.Answer(result)
	}
}

// Fail answers the pending call with a trap; the next Poll reports it, with the
// guest's backtrace. code is TrapPointer, TrapExit, TrapHostCall or TrapHost.
func (i *Instance) Fail(code TrapCode, message string) {
	if !i.closed {
		i.in.Fail(shimTrap(code), message)
	}
}

// Interrupt makes a guest that computes trap at its next tick (TrapInterrupt), with its
// backtrace: Poll once more for it.
func (i *Instance) Interrupt() {
	if !i.closed {
		i.in.Stop()
	}
}

// Response returns what C gathered of the answer.
func (i *Instance) Response() ResponseView {
	if i.closed {
		return ResponseView{}
	}
	set, status, head, body := i.in.Response()
	return ResponseView{HeadSet: set, Status: status, Headers: head, Body: body}
}

// RefusedHeads is how many response heads were refused: because there was one
// already, and because they were over the limit.
func (i *Instance) RefusedHeads() (second, large int) {
	if i.closed {
		return 0, 0
	}
	return i.in.RefusedHeads()
}

// ClearBody forgets the gathered body: it was sent.
func (i *Instance) ClearBody() {
	if !i.closed {
		i.in.ClearBody()
	}
}

// MarkSent says the head went out: response_head answers StatusState from now on.
func (i *Instance) MarkSent() {
	if !i.closed {
		i.in.MarkSent()
	}
}

// Usage returns what the instance has used so far, also after Close; nothing if it was not started.
func (i *Instance) Usage() Usage {
	if i.closed || i.program == nil {
		return i.final
	}
	cpu, memory, calls, crossings := i.in.Usage()
	return Usage{CPU: time.Duration(cpu), MemoryBytes: int64(memory), HostCalls: calls, Crossings: crossings}
}

// Asked is what a guest asked the host for that is another in each run.
type Asked struct {
	Random, Time, Environment bool
}

// Asked returns what the guest has asked for so far; nothing after Close.
func (i *Instance) Asked() Asked {
	if i.closed || i.program == nil {
		return Asked{}
	}
	bits := i.in.Asked()
	return Asked{
		Random: bits&cshim.AskedRandom != 0, Time: bits&cshim.AskedTime != 0, Environment: bits&cshim.AskedEnvironment != 0,
	}
}

// Ended reports whether the guest's memory is gone: after Close, or after a Run that was Done at once.
func (i *Instance) Ended() bool { return i.closed || i.in.Ended() }

// Close ends the guest wherever it is. Its memory is freed only when every
// Borrow is back: by the last Release, if that comes later.
func (i *Instance) Close() {
	if i.closed {
		return
	}
	i.final = i.Usage()
	i.closed = true
	i.unpin()
}

func (i *Instance) unpin() {
	if i.pins.Add(-1) == 0 {
		i.in.Free()
	}
}

// Borrow is a piece of a guest's memory, lent for I/O. The zero value holds nothing.
type Borrow struct{ *loan }

type loan struct {
	of   *Instance
	p    []byte
	back atomic.Bool
}

// Borrow lends n bytes of the guest's memory at ptr; false if they are not all
// inside it. While any borrow is out the instance's memory is not freed.
func (i *Instance) Borrow(ptr, n uint32) (Borrow, bool) {
	if i.closed {
		return Borrow{}, false
	}
	p, ok := i.in.Lend(uint64(ptr), uint64(n))
	if !ok {
		return Borrow{}, false
	}
	i.pins.Add(1)
	return Borrow{&loan{of: i, p: p}}, true
}

// Peek is n bytes of the guest's memory at ptr; false if they are not all inside it. It is for the
// goroutine that polls and closes the instance, until it does so.
func (i *Instance) Peek(ptr, n uint32) ([]byte, bool) {
	if i.closed {
		return nil, false
	}
	return i.in.Lend(uint64(ptr), uint64(n))
}

// Bytes is the guest's own memory. It must not be touched after Release, or
// while the guest is polled; nor after it was, since it may have been given back meanwhile.
func (b Borrow) Bytes() []byte {
	if b.loan == nil || b.back.Load() {
		return nil
	}
	return b.p
}

// Release gives the memory back, from any goroutine. Releasing again does nothing.
func (b Borrow) Release() {
	if b.loan != nil && !b.back.Swap(true) {
		b.of.unpin()
	}
}
