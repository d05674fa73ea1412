package jail

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

var errArchitecture = errors.New("filters are written for x86-64 only")

// seccompSupport fails if the kernel does not take filters with every action we use.
func seccompSupport() error {
	if runtime.GOARCH != "amd64" {
		return errArchitecture
	}
	for _, action := range []uint32{unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO, unix.SECCOMP_RET_KILL_PROCESS} {
		_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
		if errno != 0 {
			return fmt.Errorf("seccomp: %w", errno)
		}
	}
	return nil
}
