package jail

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	right "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// ServerConfig says what a serving process still needs of the machine's files.
type ServerConfig struct {
	// State is the folder in which it may read, write, make and remove files and
	// folders. It must exist.
	State string
	// Read lists files and folders, with all below them, that it may read. What
	// does not exist is left out. A file that is replaced by another of its name,
	// rather than rewritten, is not readable any more: name its folder for that.
	Read []string
}

// Server locks the calling process in, all of its threads and for good: it runs
// no other program, sees no other process and opens no file but those of c and
// what /proc tells of itself. Sockets for TCP and UDP, and files that are open,
// stay.
//
// Call it once: after the engine is open, which opens /proc/self/pagemap, and
// before the first byte of somebody else is read. What this machine does not
// give is in the list; an error means that a lock could be had and did not close.
func Server(c ServerConfig) ([]Missing, error) {
	missing := ServerLacks()
	runtime.LockOSThread() // no_new_privs is this thread's until the filter gives it to all
	defer runtime.UnlockOSThread()
	for _, s := range []struct {
		what string
		do   func() error
	}{
		{"give up new privileges", noNewPrivileges},
		{"leave no core dump", noCore},
		{"give up files", c.giveUpFiles},
		{"give up capabilities", dropCapabilities},
		{"hide from processes of the same user", notDumpable},
		{"filter system calls", filterServer},
	} {
		if err := s.do(); err != nil {
			return missing, fmt.Errorf("jail: server: %s: %w", s.what, err)
		}
	}
	return missing, nil
}

// ServerLacks lists what this machine does not give to Server.
func ServerLacks() []Missing {
	return lacking(seccompCapability(), landlockCapability(), procCapability())
}

func noCore() error { return lower(unix.RLIMIT_CORE, 0, 0) }

// notDumpable also gives what /proc says of this process to root.
func notDumpable() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

func filterServer() error {
	if seccompSupport() != nil {
		return nil
	}
	return install(assemble(serverRules(), allow))
}

// own keeps /proc/self open: the kernel forgets a limit by path when it forgets
// the path, and what nobody holds in /proc it forgets when memory is short.
var own *os.File

// stateRights are for plain files and folders.
const stateRights = right.AccessFSReadFile | right.AccessFSReadDir | right.AccessFSWriteFile | right.AccessFSTruncate |
	right.AccessFSMakeReg | right.AccessFSMakeDir | right.AccessFSRemoveFile | right.AccessFSRemoveDir

func (c ServerConfig) giveUpFiles() (err error) {
	if _, err := landlockABI(); err != nil || procSupport() != nil {
		return nil
	}
	if own == nil {
		if own, err = os.Open("/proc/self/"); err != nil {
			return err
		}
	}
	rules := []landlock.Rule{
		landlock.PathAccess(stateRights, c.State),
		landlock.PathAccess(right.AccessFSReadFile|right.AccessFSReadDir, "/proc/self/"),
	}
	for _, path := range c.Read {
		rule, err := readRule(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		rules = append(rules, rule)
	}
	limits := everything
	limits.HandledAccessNet = 0 // whom to speak to is the business of edge/fetch and the firewall
	return limits.Restrict(rules...)
}

func readRule(path string) (landlock.Rule, error) {
	i, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if i.IsDir() {
		return landlock.PathAccess(right.AccessFSReadFile|right.AccessFSReadDir, path), nil
	}
	return landlock.PathAccess(right.AccessFSReadFile, path), nil
}

// keptCapabilities are root's that a server may need: its state folder may be
// another user's, its gossip port below 1024. Both stay within the other walls.
const keptCapabilities = 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_NET_BIND_SERVICE

// dropCapabilities leaves root, on all threads, with little of its power.
func dropCapabilities() error {
	if procSupport() != nil {
		return nil // the threads cannot be found
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Permitted &= keptCapabilities
	data[0].Effective, data[0].Inheritable = data[0].Permitted, 0
	data[1] = unix.CapUserData{}
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	runtime.KeepAlive(&data)
	if errno != 0 {
		return errno
	}
	return nil
}
