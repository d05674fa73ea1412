package guest

import (
	"context"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/fault"
)

// located is f, which ends the guest, with where the guest was: it traps in the call it
// waits in, or else at its next tick. One that computes over its limit has done so by
// itself (StartConfig.CPULimit). A guest that does something else first, or is in one
// instruction for long, ends without frames.
func (i *invocation) located(f *fault.Error, at engine.EventKind) *fault.Error {
	switch f.Kind {
	case fault.CPU, fault.Wall, fault.Calls:
	default:
		return f
	}
	if at == engine.Call {
		i.instance.Fail(engine.TrapHost, "stopped by the host")
	} else {
		i.instance.Interrupt()
	}
	if i.take(context.Background()) != nil { // as close does: it does not end
		return f
	}
	if ev := i.turn(); ev.Kind == engine.Failed {
		addFrames(f, ev.Trap)
	}
	return f
}

// addFrames adds the guest's backtrace to what a developer is told.
func addFrames(f *fault.Error, t *engine.Trap) {
	switch {
	case t.Backtrace == "":
		return
	case f.Detail == "":
		f.Detail = "it was stopped in"
	}
	f.Detail += "\n" + t.Backtrace
}
