package jail

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// exitSignal is added to the number of a signal that ended the helper by way of
// onSignal; die_amd64.s has it too.
const exitSignal = 100

// onSignal is never called from Go, only from die_amd64.s.
//
//lint:ignore U1000 the assembly names it
func onSignal()

// onSignalAddress is where onSignal begins; the value of a Go func is something else.
func onSignalAddress() uintptr

// sigaction is the kernel's struct, not libc's.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const saRestorer = 0x0400_0000 // the kernel insists on one; ours never returns

// dieAtOnce makes two signals end the process on the spot, with a status that
// tells which it was.
//
// SIGABRT: the engine's threads abort when an allocation fails. Go's handler
// would then want memory, and a thread state of its own, on a thread it does not
// know: the process hung at its limit until its time was up. SIGXCPU: Go ignores
// it, and by the numbers a kill for processor time cannot be told from others, as
// the kernel limits and reports by different clocks. The default actions are
// no help: the first process of a namespace is immune to them.
func dieAtOnce() error {
	for _, sig := range []unix.Signal{unix.SIGABRT, unix.SIGXCPU} {
		a := sigaction{handler: onSignalAddress(), flags: saRestorer, restorer: onSignalAddress()}
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&a)), 0, 8, 0, 0)
		if errno != 0 {
			return fmt.Errorf("handle %s: %w", sig, errno)
		}
	}
	return nil
}

// checkParent fails if the parent died before the kernel was told to kill us
// with it. In a process namespace the parent's id is always 0, so what tells is
// a pipe that the parent holds open.
func checkParent() error {
	p := []unix.PollFd{{Fd: lifeline, Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(p, 0)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	if p[0].Revents != 0 {
		return errors.New("it is gone")
	}
	return nil
}
