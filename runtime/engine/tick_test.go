package engine

import (
	"testing"
	"time"
)

// While no guest runs nothing ticks; the next one that runs is ticked again, whenever it comes.
func TestNothingTicksWhileNoGuestRuns(t *testing.T) {
	p, _ := build(t, `(module (memory (export "memory") 1) (func (export "handle") (loop (br 0))))`, ProgramConfig{})
	for range 5 {
		// Asleep is who does not tick in a hundred times its period. The clock only says when to look again.
		for before, still := eng.Stats().Ticks, 0; still < 10; time.Sleep(10 * time.Millisecond) {
			now := eng.Stats().Ticks
			if now == before {
				still++
			} else {
				before, still = now, 0
			}
		}
		in := start(t, p, StartConfig{})
		for range 3 {
			if e := in.Poll(); e.Kind != Yield {
				t.Fatalf("a loop came to %v: %v", e.Kind, e.Trap)
			}
		}
		in.Close()
	}
	// One that comes as the ticker falls asleep is seen too.
	for wait := range 40 {
		time.Sleep(10*time.Millisecond + time.Duration(wait)*300*time.Microsecond)
		in := start(t, p, StartConfig{})
		if e := in.Poll(); e.Kind != Yield {
			t.Fatalf("a loop came to %v: %v", e.Kind, e.Trap)
		}
		in.Close()
	}
}
