package jail

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// onAbort is never called from Go.
func onAbort()

// onAbortAddress is where onAbort begins; the value of a Go func is something else.
func onAbortAddress() uintptr

// sigaction is the kernel's struct, not libc's.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const saRestorer = 0x0400_0000 // the kernel insists on one; ours never returns

// endOnAbort makes abort() end the process at once.
//
// The engine's threads abort when an allocation fails. Go's handler would then
// want memory, and a thread state of its own, on a thread it does not know: the
// process hung, with its limit reached, until its time was up. The default
// action is no help: the first process of a namespace is immune to it.
func endOnAbort() error {
	a := sigaction{handler: onAbortAddress(), flags: saRestorer, restorer: onAbortAddress()}
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGABRT), uintptr(unsafe.Pointer(&a)), 0, 8, 0, 0)
	if errno != 0 {
		return fmt.Errorf("helper: handle SIGABRT: %w", errno)
	}
	return nil
}
