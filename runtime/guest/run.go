package guest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/abi/wasip1"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/sched"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// Imports are the imports a guest may have: link them once per process.
func Imports() []engine.Import { return append(native.Imports(), wasip1.Imports()...) }

// errWall ends an invocation's context when its wall time is used.
var errWall = errors.New("wall time")

// Run runs one invocation of prog, which was made from v. The exchange was
// answered in full if it returns nil; else the error is a *fault.Error, and
// whether anything was answered the exchange knows.
func (r *Runner) Run(ctx context.Context, prog *engine.Program, v *function.Version, ports Ports, x Exchange) (Usage, error) {
	limits := v.Limits.WithDefaults()
	now := time.Now()
	i := &invocation{runner: r, limits: limits, bound: bound{parent: ctx, deadline: now.Add(limits.Wall), exchange: x},
		log: logWriter{sink: ports.Log, version: v, requestID: x.RequestID(), last: now}}
	i.session = native.Session{Config: native.Config{
		Instance: &i.instance, Version: v, Limits: &i.limits, Exchange: x, KV: ports.KV, Fetch: ports.Fetch,
	}}
	i.begin(v.ID, limits.Weight)
	defer i.end()
	defer i.bound.close()
	ev, err := i.start(prog, x)
	if i.turns.job.Waited() {
		i.queued = time.Since(now)
	}
	if err != nil {
		return Usage{Queued: i.queued}, err
	}
	return i.run(&i.bound, ev)
}

// heads are buffers for request heads, which the engine copies.
var heads = sync.Pool{New: func() any { return new([]byte) }}

// start begins the guest in its turn, and polls it for the first time.
func (i *invocation) start(prog *engine.Program, x Exchange) (engine.Event, error) {
	switch i.first(&i.bound, x.StartBy()) {
	case nil:
	case sched.ErrLate:
		return engine.Event{}, &fault.Error{Kind: fault.Shed, Limit: i.limits.QueueWait.String(), Knob: fault.Shed.Knob()}
	default:
		return engine.Event{}, i.ended(&i.bound)
	}
	defer i.give()
	room := heads.Get().(*[]byte)
	defer heads.Put(room)
	*room = x.AppendHead((*room)[:0])
	ev, err := prog.Run(&i.instance, &engine.StartConfig{
		Head: *room, HasBody: x.HasBody(),
		MemoryLimit: i.limits.MemoryBytes, CPULimit: i.limits.CPU, LogLimit: i.limits.LogBytes, ResponseHeadLimit: i.limits.ResponseHead,
	})
	if err != nil {
		return ev, startFault(err, i.limits)
	}
	return ev, nil
}

func startFault(err error, limits function.Limits) *fault.Error {
	switch {
	case errors.Is(err, engine.ErrCapacity):
		return fault.New(fault.Capacity, "", err)
	case errors.Is(err, engine.ErrTooLarge):
		return &fault.Error{Kind: fault.Start, Limit: fmt.Sprintf("%d bytes", limits.MemoryBytes), Knob: fault.Memory.Knob(), Cause: err}
	}
	return fault.New(fault.Start, "", err)
}

// invocation is one run of one instance, and all that is its own: one
// allocation.
type invocation struct {
	runner   *Runner
	turns    turns
	queued   time.Duration
	bound    bound
	instance engine.Instance
	session  native.Session
	limits   function.Limits
	log      logWriter
}

// run takes the guest from its first event to its end and closes it. What it has borrowed is back by
// then: calls are answered on this goroutine, and the session joins its own.
func (i *invocation) run(ctx context.Context, ev engine.Event) (Usage, error) {
	defer i.close()
	failure := i.poll(ctx, ev)
	if failure == nil {
		failure = i.finish(ctx)
	}
	i.session.Close()
	i.log.take(&i.instance)
	usage := i.usage()
	if failure == nil {
		i.log.close(usage.Refused, nil)
		return usage, nil
	}
	i.log.close(usage.Refused, failure)
	return usage, failure
}

func (i *invocation) usage() Usage {
	u := i.instance.Usage()
	return Usage{
		Queued: i.queued, CPU: u.CPU, MemoryBytes: u.MemoryBytes, HostCalls: u.HostCalls, Crossings: u.Crossings,
		KVOperations: i.session.KVOperations(), Subrequests: i.session.Subrequests(),
		LogDropped: i.log.dropped, Refused: i.session.Refused(i.log.dropped), Started: true,
	}
}

// poll runs the guest until every entry has returned; ev is what its first poll came to.
func (i *invocation) poll(ctx context.Context, ev engine.Event) *fault.Error {
	for {
		switch ev.Kind {
		case engine.Done:
			return nil
		case engine.Failed:
			return i.trapped(ev.Trap)
		}
		if err := i.charge(ctx); err != nil {
			return i.located(err, ev.Kind)
		}
		if i.log.due() {
			i.log.take(&i.instance)
		}
		if ev.Kind == engine.Call {
			i.turns.credit.earn()
			if err := i.answer(ctx, &ev); err != nil {
				return i.located(err, engine.Call)
			}
		}
		if i.take(ctx) != nil {
			return i.located(i.ended(ctx), engine.Yield)
		}
		ev = i.turn()
	}
}

// charge ends a guest that is over its budget or no longer wanted.
func (i *invocation) charge(ctx context.Context) *fault.Error {
	if ctx.Err() != nil {
		return i.ended(ctx)
	}
	switch used := i.instance.Usage(); {
	case used.CPU > i.limits.CPU:
		return &fault.Error{Kind: fault.CPU, Limit: i.limits.CPU.String(), Knob: fault.CPU.Knob()}
	case used.Crossings > uint64(i.limits.HostCalls):
		return &fault.Error{Kind: fault.Calls, Limit: strconv.Itoa(i.limits.HostCalls) + " calls", Knob: fault.Calls.Knob()}
	}
	return nil
}

// ended says why the invocation's context is over. A client that is too slow for
// a read ahead of the guest is the reason, whatever the guest does meanwhile:
// net/http ends the context of HTTP/1 with any read that fails.
func (i *invocation) ended(ctx context.Context) *fault.Error {
	var slow *fault.Error
	if errors.As(i.session.ReadFault(), &slow) && slow.Kind == fault.BodySlow {
		return slow
	}
	if cause := context.Cause(ctx); cause != errWall {
		return fault.New(fault.Canceled, "", cause)
	}
	return &fault.Error{Kind: fault.Wall, Limit: i.limits.Wall.String(), Knob: fault.Wall.Knob()}
}

// answer answers the pending call, or makes the guest fail at it.
func (i *invocation) answer(ctx context.Context, ev *engine.Event) *fault.Error {
	ctx.Done() // sets the timer: the exchange waits without asking the context
	result, err := i.do(ctx, ev)
	var pointer *native.PointerError
	switch {
	case err == nil:
		i.instance.Resume(result)
	case errors.As(err, &pointer):
		i.instance.Fail(engine.TrapPointer, err.Error()) // the next poll reports it, with the guest's backtrace
	default:
		return i.failed(ctx, err)
	}
	return nil
}

func (i *invocation) do(ctx context.Context, ev *engine.Event) (int64, error) {
	switch {
	case ev.Op == wasip1.OpPollOneoff:
		return 0, wait(ctx, nanoseconds(ev.Args[0]))
	case ev.Op == native.OpSleep && int64(ev.Args[0]) < 0:
		return abi.StatusInvalid, nil
	case ev.Op == native.OpSleep:
		return abi.StatusOK, wait(ctx, nanoseconds(ev.Args[0]))
	}
	return i.session.Do(ctx, ev)
}

func nanoseconds(n uint64) time.Duration { return time.Duration(min(n, math.MaxInt64)) }

// wait waits for d, or until ctx ends and returns its error.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failed is the failure of a call that could not be answered. When the context
// is over that is the reason, whatever the error it showed as; but for a client
// that was too slow: net/http ends the context of HTTP/1 with any read that fails.
func (i *invocation) failed(ctx context.Context, err error) *fault.Error {
	if f := fault.Of(err); ctx.Err() != nil && f.Kind != fault.BodySlow {
		return i.ended(ctx)
	}
	return fault.Of(err)
}

// waitingFinish is from how many bytes on an answer that is written at once may
// have to wait for the client; what is shorter stays in the buffers of every
// protocol. An answer that was written in pieces has set the timer already.
const waitingFinish = 2 << 10

func (i *invocation) finish(ctx context.Context) *fault.Error {
	if v := i.instance.Response(); len(v.Headers)+len(v.Body) > waitingFinish {
		ctx.Done() // sets the timer
	}
	if err := i.session.Finish(); err != nil {
		return i.failed(ctx, err)
	}
	return nil
}

// trapped is the failure a trap stands for.
func (i *invocation) trapped(t *engine.Trap) *fault.Error {
	if t.Code == engine.TrapExit && t.ExitStatus == 0 && i.session.Answered() {
		return nil // a command that ends by exit(0) once it has answered
	}
	f := &fault.Error{Kind: kindOf(t), Detail: t.Error()}
	switch f.Kind {
	case fault.CPU:
		f.Limit, f.Knob, f.Detail = i.limits.CPU.String(), f.Kind.Knob(), ""
	case fault.Memory:
		f.Limit, f.Knob = fmt.Sprintf("%d bytes", i.limits.MemoryBytes), f.Kind.Knob()
	case fault.Stack, fault.Table:
		f.Limit = f.Kind.Fixed()
	case fault.Exit:
		f.Detail = fmt.Sprintf("proc_exit(%d)", t.ExitStatus)
	}
	addFrames(f, t)
	return f
}

// kindOf sorts traps. A guest whose memory.grow was refused aborts in some way
// of its own: unreachable, an exit, or a pointer it did not check. A refused
// table.grow is not known of: wasmtime's C API sets the limit and tells of
// nothing, so what the guest makes of the -1 is a Trap like others, or a Table.
func kindOf(t *engine.Trap) fault.Kind {
	switch t.Code {
	case engine.TrapStack:
		return fault.Stack
	case engine.TrapPointer:
		return fault.Pointer
	case engine.TrapStart:
		return fault.Start
	case engine.TrapCapacity:
		return fault.Capacity
	case engine.TrapHost, engine.TrapHostCall:
		return fault.Internal
	case engine.TrapInterrupt:
		return fault.CPU
	case engine.TrapExit:
		if t.GrowRefused && t.ExitStatus != 0 {
			return fault.Memory
		}
		return fault.Exit
	case engine.TrapMemory, engine.TrapUnreachable, engine.TrapOther:
		if t.GrowRefused {
			return fault.Memory
		}
		return fault.Trap
	case engine.TrapTable:
		return fault.Table
	case engine.TrapIndirect, engine.TrapArithmetic:
		return fault.Trap
	}
	return fault.Internal
}
