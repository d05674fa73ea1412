package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// firstProgramFD is above every descriptor that a child is given, so that the
// child can still be started from one of these (/proc/self/fd/N).
const firstProgramFD = 512

// program is an executable file that stays what it is when another takes its
// place in the file system.
type program struct {
	fd   int
	name string // where it was found, for people
	as   state  // what it was then
}

// state is what changes when somebody writes into a file.
type state struct {
	Inode, Size, Modified, Changed int64
}

// ownProgram is the one this process runs.
func ownProgram() (*program, error) {
	name, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	return openProgram("/proc/self/exe", name)
}

func openProgram(path, name string) (*program, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("keeper: open the program %s: %w", name, err)
	}
	defer unix.Close(fd)
	return keepProgram(fd, name)
}

// keepProgram takes a copy of fd, which stays the caller's.
func keepProgram(fd int, name string) (*program, error) {
	as, err := stateOf(fd)
	if err != nil {
		return nil, fmt.Errorf("keeper: the program %s: %w", name, err)
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, firstProgramFD)
	if err != nil {
		return nil, fmt.Errorf("keeper: keep the program %s: %w", name, err)
	}
	return &program{fd: own, name: name, as: as}, nil
}

func stateOf(fd int) (state, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return state{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
		return state{}, errors.New("not an executable file")
	}
	return state{Inode: int64(st.Ino), Size: st.Size, Modified: st.Mtim.Nano(), Changed: st.Ctim.Nano()}, nil
}

// whole returns an error when the file was written into since it was kept.
// That its last name was taken away changes ctime only, and is no reason.
func (p *program) whole() error {
	now, err := stateOf(p.fd)
	now.Changed = p.as.Changed
	if err == nil && now != p.as {
		err = errors.New("it was written into; replace a program by renaming another over it")
	}
	if err != nil {
		return fmt.Errorf("keeper: the program %s: %w", p.name, err)
	}
	return nil
}

// path is where this process and its children find it.
func (p *program) path() string { return fmt.Sprintf("/proc/self/fd/%d", p.fd) }

func (p *program) close() { _ = unix.Close(p.fd) }

// offered checks a program that somebody asks the keeper to run. It must be a
// file with a name outside the node's state folder and writable by nobody but
// root and us: what a server could have made is never run.
func offered(f *os.File, stateDir string) (*program, error) {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("keeper: the program: %w", err)
	}
	var named, given unix.Stat_t
	if err := errors.Join(unix.Fstat(int(f.Fd()), &given), unix.Lstat(name, &named)); err != nil || named.Ino != given.Ino || named.Dev != given.Dev {
		return nil, fmt.Errorf("keeper: the program %s is not a file that can be found under that name", name)
	}
	if below(name, stateDir) {
		return nil, fmt.Errorf("keeper: the program %s lies in the node's state folder, where its server may write: put it elsewhere", name)
	}
	if given.Mode&0o022 != 0 || given.Uid != 0 && int(given.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("keeper: the program %s can be written by others: chown and chmod go-w it", name)
	}
	return keepProgram(int(f.Fd()), name)
}

func below(path, dir string) bool {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		real = dir
	}
	rel, err := filepath.Rel(real, path)
	return dir != "" && err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
