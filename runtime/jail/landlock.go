package jail

import (
	"fmt"
	"os"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	right "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// everything is all that Landlock can limit, of which the kernel takes what it
// knows: files, TCP, and on newer ones devices, signals, UNIX and UDP sockets.
var everything = landlock.V11.BestEffort()

// landlockABI asks the kernel for its version of Landlock.
func landlockABI() (int, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, errno
	}
	return int(abi), nil
}

// walledOff leaves the calling thread, and what it becomes at an exec, with no
// file but those that make this very program: nothing that could be opened
// later was not in the process already. There must be no other thread that
// matters: it is not limited.
func walledOff() error {
	if _, err := landlockABI(); err != nil {
		return nil // the parent has told
	}
	libraries, err := ownFiles()
	if err != nil {
		return err
	}
	fd, flags, err := everything.NewRulesetFD(
		landlock.PathAccess(right.AccessFSExecute|right.AccessFSReadFile, "/proc/self/exe"),
		landlock.PathAccess(right.AccessFSExecute|right.AccessFSReadFile, libraries...).IgnoreIfMissing(),
		landlock.PathAccess(right.AccessFSReadFile, "/etc/ld.so.cache", "/etc/ld.so.preload", "/proc/self/maps").IgnoreIfMissing())
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(fd), uintptr(flags), 0); errno != 0 {
		return fmt.Errorf("landlock: %w", errno)
	}
	return nil
}

// ownFiles lists the libraries of this process and what loads them, not its
// program: that may lie where this user cannot look.
func ownFiles() ([]string, error) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	var files []string
	for line := range strings.Lines(string(maps)) {
		// address permissions offset device inode path
		f := strings.Fields(line)
		if len(f) == 6 && strings.Contains(f[1], "x") && strings.HasPrefix(f[5], "/") && f[5] != program {
			files = append(files, f[5])
		}
	}
	return files, nil
}
