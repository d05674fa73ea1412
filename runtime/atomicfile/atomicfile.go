// Package atomicfile writes files that are there whole or not at all, and removes
// what a crash left of others.
//
// A file is written under a temporary name beside its own, locked (flock) for as
// long as it has that one, and renamed. Who sweeps removes only what it can lock,
// and holds the lock while it removes; who writes looks, once it has the lock,
// whether its file still has a name. So a file is never swept that is being
// written, also not by another process, and none that nobody writes stays.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Prefix begins the name of each file that is being written.
const Prefix = ".new-"

// File is a file that does not have its own name yet. Discard it in any case.
type File struct {
	*os.File
	committed bool
}

// maxSwept is how often in a row a new file may be swept before it is locked.
const maxSwept = 100

// Create makes an empty file (mode 0600) to be written in dir, which is where it stays.
func Create(dir string) (*File, error) {
	for range maxSwept {
		f, err := os.CreateTemp(dir, Prefix)
		if err != nil {
			return nil, err
		}
		named, err := lock(f)
		switch {
		case err != nil:
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), os.Remove(f.Name()), f.Close())
		case named:
			return &File{File: f}, nil
		}
		f.Close()
	}
	return nil, fmt.Errorf("write in %s: the new file was removed %d times: see what else cleans that folder", dir, maxSwept)
}

// lock locks f and reports whether it has a name still.
func lock(f *os.File) (named bool, err error) {
	if err := flock(f, unix.LOCK_EX); err != nil {
		return false, err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &st)
	return st.Nlink > 0, err
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Commit gives the file its name, in its own folder, in place of whatever file has it. What was
// written is there for good once Commit returns. One that failed may be tried again.
func (f *File) Commit(name string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	dir := filepath.Dir(f.Name())
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	f.committed = true
	return SyncDir(dir)
}

// SyncDir makes renames in dir last.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Discard closes the file, and removes it if it was not committed.
func (f *File) Discard() error {
	var err error
	if !f.committed {
		err = os.Remove(f.Name())
	}
	return errors.Join(err, f.Close())
}

// Sweep removes from dir what was being written by who is not there any more.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), Prefix) {
			err = errors.Join(err, sweep(filepath.Join(dir, e.Name()), e))
		}
	}
	return err
}

func sweep(path string, e fs.DirEntry) error {
	if !e.Type().IsRegular() {
		return os.RemoveAll(path) // Create made no such thing
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return os.Remove(path) // another user's, or a link by now: nothing that is written here
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil // it is being written
		}
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if same, err := names(path, f); err != nil || !same {
		return err
	}
	return os.Remove(path)
}

// names reports whether path still leads to f: only who has f locked changes that.
func names(path string, f *os.File) (bool, error) {
	now, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	mine, err := f.Stat()
	return err == nil && os.SameFile(now, mine), err
}
