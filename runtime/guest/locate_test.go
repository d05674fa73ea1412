package guest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
)

// A guest that is stopped says where: innermost first.
func TestAStoppedGuestSaysWhere(t *testing.T) {
	const ever = time.Hour
	spin := `(func $spin (loop $l (br $l)))` + handle(`(call $spin)`)
	for _, c := range []struct {
		name, body string
		bounds     function.Limits
		want       fault.Kind
		frames     []string
	}{
		{"computes", spin, function.Limits{CPU: 10 * time.Millisecond, Wall: ever}, fault.CPU, []string{"0: spin (", "1: (function "}},
		{"has used it up before the first tick", spin, function.Limits{CPU: time.Nanosecond, Wall: ever}, fault.CPU, []string{"0: "}},
		{"computes in start-up", `(start $spin)` + spin, function.Limits{CPU: 10 * time.Millisecond, Wall: ever}, fault.CPU, []string{"0: spin ("}},
		{"computes for too long", spin, function.Limits{CPU: ever, Wall: 20 * time.Millisecond}, fault.Wall, []string{"0: spin (", "1: (function "}},
		{"waits for too long", `(func $nap (drop (call $sleep (i64.const -2))) (drop (call $sleep (i64.const 3600000000000))))` + handle(`(call $nap)`),
			function.Limits{CPU: ever, Wall: 20 * time.Millisecond}, fault.Wall, []string{"0: nap (", "1: (function "}},
		{"asks too much", `(func $flood (loop $l (drop (call $kv_open (i32.const 0) (i32.const 0))) (br $l)))` + handle(`(call $flood)`),
			function.Limits{CPU: ever, Wall: ever, HostCalls: 100}, fault.Calls, []string{"0: flood (", "1: (function "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, f := run(t, c.body, limits(c.bounds))
			if f == nil || f.Kind != c.want || f.Knob != c.want.Knob() {
				t.Fatalf("got %v, want %v", f, c.want)
			}
			for _, frame := range c.frames {
				if !strings.Contains(f.Detail, "it was stopped in\n") || !strings.Contains(f.Detail, "\n"+frame) {
					t.Errorf("want %q in %q", frame, f.Detail)
				}
			}
		})
	}
}
