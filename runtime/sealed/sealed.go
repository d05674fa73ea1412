// Package sealed keeps bytes in memory files that nobody can change any more,
// so that what was checked is what is used, whoever else holds the file.
package sealed

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// all are the seals after which a memory file is what it is for good: no
// write, no other size, and no way to take that back.
const all = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL

// What Check and Read may fail with.
var (
	ErrUnsealed = errors.New("sealed: the file can still change")
	ErrTooLarge = errors.New("sealed: the file is too large")
)

// New returns a sealed memory file that holds b. The caller closes it. The
// name is for people who read /proc; it need not be unique.
func New(name string, b []byte) (*os.File, error) {
	f, err := Create(name)
	if err != nil {
		return nil, err
	}
	if err := Fill(f, b); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Create returns an empty memory file that can be filled and then sealed, here
// or by another process.
func Create(name string) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("sealed: create a memory file: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Bounded returns a memory file of size zero bytes that can be written but never
// become larger or smaller: a place for what another process may print.
func Bounded(name string, size int64) (*os.File, error) {
	f, err := Create(name)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, fmt.Errorf("sealed: size %s: %w", name, err)
	}
	if err := addSeals(f, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Fill makes b the whole content of f and seals it.
func Fill(f *os.File, b []byte) error {
	if err := f.Truncate(int64(len(b))); err != nil {
		return fmt.Errorf("sealed: size %s: %w", f.Name(), err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("sealed: fill %s: %w", f.Name(), err)
	}
	return Seal(f)
}

// Seal makes f unchangeable. It fails while a writable mapping of f exists.
func Seal(f *os.File) error { return addSeals(f, all) }

func addSeals(f *os.File, seals int) error {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("sealed: seal %s: %w", f.Name(), err)
	}
	return nil
}

// Check returns the size of f if f can never change again and holds at most
// limit bytes; else an error that is ErrUnsealed or ErrTooLarge. Files that are
// not memory files, pipes and sockets count as unsealed.
func Check(f *os.File, limit int64) (int64, error) {
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil || seals&all != all {
		return 0, ErrUnsealed
	}
	fi, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("sealed: %w", err)
	}
	if fi.Size() > limit {
		return 0, fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, fi.Size(), limit)
	}
	return fi.Size(), nil
}

// Read checks f as Check does and returns a copy of its bytes.
func Read(f *os.File, limit int64) ([]byte, error) {
	size, err := Check(f, limit)
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("sealed: read %s: %w", f.Name(), err)
	}
	return b, nil
}

// Map checks f as Check does and returns its bytes without copying them. They
// must not be written and are gone after unmap, which is called once. f may be
// closed before that.
func Map(f *os.File, limit int64) (b []byte, unmap func(), err error) {
	size, err := Check(f, limit)
	if err != nil {
		return nil, nil, err
	}
	if size == 0 {
		return nil, func() {}, nil
	}
	// Private: before Linux 6.7 a file sealed against writes cannot be mapped shared at all.
	b, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("sealed: map %s: %w", f.Name(), err)
	}
	return b, func() { _ = unix.Munmap(b) }, nil
}

// Dup returns another file for the same bytes, with a life of its own.
func Dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("sealed: duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
