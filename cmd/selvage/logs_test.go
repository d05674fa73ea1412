package main

import (
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/fault"
)

// A fault's frames are lines of their own, in the function's log, whole; the request's line is
// one, and ends with a whole sentence.
func TestFaultsForPeople(t *testing.T) {
	f := &fault.Error{Kind: fault.CPU, Limit: "50ms", Knob: "limits.cpu", Detail: fault.StoppedIn + "\n    0: main.spin (function 7+0x1f) main.go:13\n    1: main.handle (function 9+0x20) main.go:9"}
	show := func(l telemetry.Line) string {
		var b strings.Builder
		l.Node, l.Function, l.Time = "lon-1", "hello", time.Unix(0, 0)
		if err := printLine(&b, &l); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	access := show(telemetry.Line{Kind: telemetry.KindAccess, Method: "GET", Host: "a.example", Path: "/", Status: 504, Fault: "cpu", FaultError: f.Error(), RequestID: "r1"})
	if strings.Count(access, "\n") != 1 || strings.Contains(access, fault.StoppedIn) || !strings.Contains(access, "raise it with limits.cpu) r1\n") {
		t.Errorf("the request's line: %q", access)
	}
	log := show(telemetry.Line{Kind: telemetry.KindFunction, Text: f.Error()})
	for _, frame := range []string{"\n        0: main.spin (function 7+0x1f) main.go:13\n", "\n        1: main.handle (function 9+0x20) main.go:9\n"} {
		if !strings.Contains(log, frame) {
			t.Errorf("%q is not in the function's log: %q", frame, log)
		}
	}
	trap := &fault.Error{Kind: fault.Trap, Detail: "unreachable\n    0: f (function 1+0x2)"}
	if got := show(telemetry.Line{Kind: telemetry.KindAccess, FaultError: trap.Error(), Fault: "trap"}); !strings.Contains(got, "unreachable") {
		t.Errorf("a trap: %q", got)
	}
}
