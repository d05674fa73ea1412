package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

func TestScanThatFails(t *testing.T) { child(t, "blind") }

// blindChild takes the page map away while the engine runs. The slot whose
// reset failed is not lent again; later ones are mapped anew.
func blindChild(t testing.TB) error {
	p, img := build(t, hostileWAT, ProgramConfig{})
	if !eng.Stats().Scanning {
		return nil // nothing to take away
	}
	if err := overwritePagemap(); err != nil {
		return err
	}
	in := start(t, p, StartConfig{Head: []byte("o")})
	if e := run(in); e.Kind != Done {
		return e.Trap
	}
	in.Close()
	if s := eng.Stats(); s.Scanning || s.SlotsFree != 0 {
		return fmt.Errorf("after a failed scan: %+v", s)
	}
	return hostileRuns(p, img)
}

// overwritePagemap puts another file where the engine has the page map.
func overwritePagemap() error {
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return err
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		return err
	}
	defer null.Close()
	for _, path := range fds {
		if name, _ := os.Readlink(path); filepath.Base(name) != "pagemap" {
			continue
		}
		fd, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			return err
		}
		return syscall.Dup3(int(null.Fd()), fd, syscall.O_CLOEXEC)
	}
	return errors.New("the engine has no page map open")
}

// spareThreads makes the runtime have n idle threads: it cannot make one while mmap fails.
func spareThreads(n int) {
	var all, done sync.WaitGroup
	all.Add(n)
	for range n {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			all.Done()
			all.Wait()
		})
	}
	done.Wait()
}

func TestMapThatFails(t *testing.T) { child(t, "nomap") }

// nomapChild lets every mmap fail for a while: a slot that cannot be reset is
// retired, an instance that cannot get one says so, and then all is well again.
func nomapChild(t testing.TB) error {
	p, img := build(t, hostileWAT, ProgramConfig{})
	dirty := start(t, p, StartConfig{Head: []byte("g")})
	if e := run(dirty); e.Kind != Done {
		return e.Trap
	}
	debug.SetGCPercent(-1) // the Go runtime needs maps too
	spareThreads(8)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_AS, &was); err != nil {
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: 1 << 30, Max: was.Max}); err != nil {
		return err
	}
	dirty.Close()
	after := eng.Stats()
	next, err := p.Start(StartConfig{Head: []byte("d"), MemoryLimit: memoryLimit})
	var e Event
	if err == nil {
		e = run(next)
		next.Close()
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &was); err != nil {
		return err
	}
	debug.SetGCPercent(100)
	if after.SlotsRetired != 1 || after.SlotsFree != 0 {
		return fmt.Errorf("a slot that could not be reset: %+v", after)
	}
	if err != nil || e.Kind != Failed || e.Trap.Code != TrapCapacity {
		return fmt.Errorf("an instance without a slot: event %d, trap %v, %v", e.Kind, e.Trap, err)
	}
	return hostileRuns(p, img)
}

func TestAddressesThatRunOut(t *testing.T) { child(t, "addresses") }

// addressesChild leaves no addresses for another slot: those that another
// image's free slots have are given back for it.
func addressesChild(t testing.TB) error {
	idle, _ := build(t, hostileWAT, ProgramConfig{})
	p, _ := build(t, waitWAT, ProgramConfig{})
	in := start(t, idle, StartConfig{Head: []byte("d")})
	if e := run(in); e.Kind != Done {
		return e.Trap
	}
	in.Close()
	if free := eng.Stats().SlotsFree; free != 1 {
		return fmt.Errorf("%d slots are free", free)
	}
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_AS, &was); err != nil {
		return err
	}
	now := uint64(status(t, "VmSize")) << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: now + 1<<30, Max: was.Max}); err != nil {
		return err
	}
	next := start(t, p, StartConfig{})
	defer next.Close()
	if e := run(next); e.Kind != Call {
		return fmt.Errorf("event %d, trap %v", e.Kind, e.Trap)
	}
	return syscall.Setrlimit(syscall.RLIMIT_AS, &was)
}
