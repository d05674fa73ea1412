package engine

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A guest that computes long does so on a thread that weighs less than Go's, until
// it has used what it may; it is ended there, and the thread ends with the last use.
func TestThreads(t *testing.T) {
	p, img := build(t, `(module (memory (export "memory") 1 2000)
	  (func (export "handle")
	    (drop (memory.grow (i32.const 100)))
	    (memory.fill (i32.const 0) (i32.const 7) (i32.const 6000000))
	    (loop $l (br $l))))`, ProgramConfig{})
	before := lighter(t)
	threads := NewThreads(2)
	in := start(t, p, StartConfig{MemoryLimit: 128 << 20})
	for _, most := range []time.Duration{5 * time.Millisecond, 30 * time.Millisecond} {
		if e := threads.Poll(in, most); e.Kind != Yield {
			t.Fatalf("event %d, trap %v", e.Kind, e.Trap)
		}
		if used := in.Usage().CPU; used < most || used > most+20*time.Millisecond {
			t.Errorf("it came back after %v of processor time, want %v", used, most)
		}
	}
	if n := lighter(t) - before; n != 2 {
		t.Errorf("%d threads weigh less, want 2", n)
	}
	threads.CloseInstance(in)
	if u := in.Usage(); u.CPU < 30*time.Millisecond || u.MemoryBytes != 101<<16 || !in.Ended() {
		t.Errorf("after it was closed: %+v, ended %t", u, in.Ended())
	}
	if e := threads.Poll(in, time.Second); e.Kind != Failed {
		t.Errorf("a closed instance was polled: event %d", e.Kind)
	}
	if _, err := img.Audit(); err != nil {
		t.Error(err)
	}
	threads.Close()
	if n := lighter(t) - before; n != 0 {
		t.Errorf("%d threads are left", n)
	}
	NewThreads(1).Close() // never used
}

// A guest's memory that is lent is not taken away by a thread either.
func TestThreadsLeaveWhatIsLent(t *testing.T) {
	p, img := build(t, `(module (memory (export "memory") 1) (func (export "handle") (loop $l (br $l))))`, ProgramConfig{})
	threads := NewThreads(1)
	defer threads.Close()
	in := start(t, p, StartConfig{})
	threads.Poll(in, time.Millisecond)
	lent, ok := in.Borrow(0, 4)
	if !ok {
		t.Fatal("not lent")
	}
	threads.CloseInstance(in)
	copy(lent.Bytes(), "late") // it would fault, or be found by the audit, were the memory another's
	lent.Release()
	if _, err := img.Audit(); err != nil {
		t.Error(err)
	}
}

// lighter counts the process's threads that weigh less than the test's own.
func lighter(t *testing.T) (n int) {
	t.Helper()
	own := nice(t, "/proc/thread-self/stat")
	if own >= 19 {
		t.Skip("run with a nice value of 19: none is lighter")
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		stat := fmt.Sprintf("/proc/self/task/%s/stat", task.Name())
		if _, err := os.Stat(stat); err == nil && nice(t, stat) == min(own+5, 19) {
			n++
		}
	}
	return n
}

// nice reads field 19 of proc_pid_stat(5); the second may hold spaces. A thread that ended has none.
func nice(t *testing.T, path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	n, err := strconv.Atoi(strings.Fields(rest)[16])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A first poll of one instruction that takes long is charged for it, by the thread's own clock.
func TestALongFirstPollIsCharged(t *testing.T) {
	p, _ := build(t, `(module (memory (export "memory") 1 4000)
	  (func (export "handle")
	    (drop (memory.grow (i32.const 3999)))
	    (memory.fill (i32.const 0) (i32.const 7) (i32.const 262144000))))`, ProgramConfig{})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	in := start(t, p, StartConfig{MemoryLimit: 256 << 20})
	defer in.Close()
	before := threadTime(t)
	e := in.Poll()
	used := threadTime(t) - before
	for e.Kind == Yield { // the epoch may end with its last instruction, not before
		e = in.Poll()
	}
	if e.Kind != Done {
		t.Fatalf("event %d, trap %v", e.Kind, e.Trap)
	}
	if charged := in.Usage().CPU; used > 3*time.Millisecond && (charged < used-2*time.Millisecond || charged > used+3*time.Millisecond) {
		t.Errorf("it took %v, and was charged %v", used, charged)
	}
}

func threadTime(t *testing.T) time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// A guest that hides each long poll behind short ones, which are not charged by the thread's clock, gains next to nothing.
func TestLongPollsAmongShortOnesAreCharged(t *testing.T) {
	const rounds, calls = 12, 40
	p, _ := build(t, `(module (import "test" "wait" (func $wait (param i32) (result i32))) (memory (export "memory") 800)
	  (func (export "handle") (local $round i32) (local $call i32)
	    (loop $rounds
	      (memory.fill (i32.const 0) (local.get $round) (i32.const 52428800))
	      (local.set $call (i32.const 0))
	      (loop $calls
	        (drop (call $wait (i32.const 0)))
	        (br_if $calls (i32.lt_u (local.tee $call (i32.add (local.get $call) (i32.const 1))) (i32.const `+strconv.Itoa(calls)+`))))
	      (br_if $rounds (i32.lt_u (local.tee $round (i32.add (local.get $round) (i32.const 1))) (i32.const `+strconv.Itoa(rounds)+`))))))`, ProgramConfig{})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	in := start(t, p, StartConfig{})
	defer in.Close()
	var used time.Duration
	for {
		before := threadTime(t)
		e := in.Poll()
		used += threadTime(t) - before
		if e.Kind == Call {
			in.Resume(0)
		} else if e.Kind == Done {
			break
		} else if e.Kind != Yield {
			t.Fatalf("event %d, trap %v", e.Kind, e.Trap)
		}
	}
	if charged := in.Usage().CPU; charged < used-used/10-2*time.Millisecond {
		t.Errorf("it took %v, and was charged %v", used, charged)
	}
}
