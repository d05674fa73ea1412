package jail

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// confine is the one place where a child gives up what it could do. It builds
// the walls on one thread and then replaces the process by a fresh copy of
// itself, because most of them bind only the calling thread and what comes
// after an exec. So it returns only when it failed.
//
// The parent has already given the child its namespaces and its user id; here
// come the rest, each of which only ever takes away.
func confine(l limits, verb string) error {
	runtime.LockOSThread()
	steps := []struct {
		what string
		do   func() error
	}{
		{"check the parent", checkParent},
		{"close inherited files", closeInherited},
		{"yield to the data path", yield},
		{"be the first to die when memory is short", volunteer},
		{"give up new privileges", noNewPrivileges},
		{"limit resources", l.set},
		{"give up files", l.giveUpFiles},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("helper: %s: %w", s.what, err)
		}
	}
	// How many processors there are to use is read from files, which the copy cannot.
	env := []string{processors + "=" + strconv.Itoa(runtime.GOMAXPROCS(0))}
	err := syscall.Exec("/proc/self/exe", []string{"selvage", "helper", verb, confined}, env)
	return fmt.Errorf("helper: exec: %w", err)
}

// closeInherited leaves 0 to 3. At the exec, not now: some are this process's own.
func closeInherited() error {
	return unix.CloseRange(outputFD+1, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC)
}

// yield lowers the priority: compiling may be late, requests may not. Where it
// is lower already, only root could raise it again.
func yield() error {
	err := unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
	if errors.Is(err, unix.EACCES) {
		return nil
	}
	return err
}

func volunteer() error {
	err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	if os.IsPermission(err) || os.IsNotExist(err) {
		return nil // a help to the kernel, not a wall
	}
	return err
}

func (l limits) giveUpFiles() error {
	if l.unwalled {
		return nil
	}
	return walledOff()
}

func noNewPrivileges() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }

func (l limits) set() error {
	cpu := uint64(l.cpu / time.Second)
	for _, r := range []struct {
		name       string
		resource   int
		soft, hard uint64
	}{
		{"CORE", unix.RLIMIT_CORE, 0, 0},
		{"CPU", unix.RLIMIT_CPU, cpu, cpu + 1}, // a signal, which says why (dieAtOnce); then the kernel's kill
		{"DATA", unix.RLIMIT_DATA, l.data, l.data},
		{"AS", unix.RLIMIT_AS, l.space, l.space},
		{"FSIZE", unix.RLIMIT_FSIZE, l.file, l.file},
		{"NOFILE", unix.RLIMIT_NOFILE, openFiles, openFiles},
		{"MEMLOCK", unix.RLIMIT_MEMLOCK, 0, 0},
		{"MSGQUEUE", unix.RLIMIT_MSGQUEUE, 0, 0},
	} {
		if err := lower(r.resource, r.soft, r.hard); err != nil {
			return fmt.Errorf("RLIMIT_%s: %w", r.name, err)
		}
	}
	return nil
}

// lower sets a limit, but never above what is already allowed. It is syscall's
// call, not unix's: Go puts its own NOFILE back at an exec otherwise.
func lower(resource int, soft, hard uint64) error {
	var now syscall.Rlimit
	if err := syscall.Getrlimit(resource, &now); err != nil {
		return err
	}
	return syscall.Setrlimit(resource, &syscall.Rlimit{Cur: min(soft, now.Max), Max: min(hard, now.Max)})
}
