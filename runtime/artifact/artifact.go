// Package artifact keeps compiled code on disk and gives back only what this
// node wrote itself.
//
// An artifact is native code: whoever can change one owns the process. So each
// file carries an HMAC made with a key that only this node has and that lies
// elsewhere, and what Get returns are the very bytes that were checked, in
// memory of our own: nothing that happens to the file afterwards matters.
package artifact

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/atomicfile"
	"github.com/selvage-edge/selvage/runtime/function"
)

// What Get and Put may fail with, wrapped.
var (
	// ErrNotFound: it was never put, or it was removed.
	ErrNotFound = errors.New("artifact: not here")
	// ErrCorrupt: the file was not what this node wrote; it is removed. Compile again.
	ErrCorrupt = errors.New("artifact: not what this node wrote")
	// ErrTooLarge: it is larger than all artifacts together may be.
	ErrTooLarge = errors.New("artifact: larger than the budget")
)

// Config says where artifacts are kept, and how many.
type Config struct {
	Dir      string        // made with mode 0700; its parents must exist or be makeable
	Key      Key           // this node's own
	MaxBytes int64         // of all files; the longest unused goes first; default 8 GiB
	Grace    time.Duration // Trim keeps what was used this recently; default 1 h
}

// Store is a folder of artifacts. It is safe for use by many, and two processes
// of one node may have the same folder for a while.
type Store struct {
	config Config
	dir    *os.File
	writes sync.Mutex // one Put or Trim at a time, for the budget
	total  int64      // bytes of all files, or more; what others put meanwhile is not in it
	unseen int        // Puts since the folder was last looked through; -1: it never was
}

// maxUnseen is how many Puts may go by before the folder is looked through again
// though all should fit: another process of the node may put too.
const maxUnseen = 100

// suffix ends the name of an artifact's file.
const suffix = ".artifact"

// Open opens the folder, making it if need be, and removes what a crash left
// half written.
func Open(c Config) (*Store, error) {
	if c.MaxBytes == 0 {
		c.MaxBytes = 8 << 30
	}
	if c.Grace == 0 {
		c.Grace = time.Hour
	}
	if c.Key == (Key{}) {
		return nil, errors.New("artifact: no key: derive one from the node's secret")
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("artifact: %w", err)
	}
	dir, err := openDir(c.Dir)
	if err != nil {
		return nil, err
	}
	s := &Store{config: c, dir: dir, unseen: -1}
	if err := atomicfile.Sweep(c.Dir); err != nil {
		dir.Close()
		return nil, fmt.Errorf("artifact: remove what was left half written: %w", err)
	}
	return s, nil
}

// openDir opens a folder that is ours and nobody else's to look into.
func openDir(path string) (*os.File, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("artifact: %w", err)
	}
	fi, err := dir.Stat()
	if err == nil && ownerOf(fi) != os.Geteuid() {
		err = fmt.Errorf("%s belongs to user %d, not to %d: remove it or run as that user", path, ownerOf(fi), os.Geteuid())
	}
	if err == nil && fi.Mode().Perm()&0o077 != 0 {
		err = dir.Chmod(0o700)
	}
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("artifact: %w", err)
	}
	return dir, nil
}

func ownerOf(fi fs.FileInfo) int { return int(fi.Sys().(*syscall.Stat_t).Uid) }

// Close closes the folder.
func (s *Store) Close() error { return s.dir.Close() }

// Get returns the artifact of that code for an engine of that fingerprint, just
// checked. ErrNotFound and ErrCorrupt mean: compile, then Put.
func (s *Store) Get(code function.Digest, fingerprint string) ([]byte, error) {
	want, err := identify(code, fingerprint)
	if err != nil {
		return nil, err
	}
	artifact, err := s.read(want)
	switch {
	case err == nil:
		return artifact, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %s", ErrNotFound, code.Short())
	case errors.Is(err, ErrCorrupt):
		if rerr := s.remove(want.file()); rerr != nil {
			err = errors.Join(err, rerr)
		}
		return nil, fmt.Errorf("%w (code %s; removed)", err, code.Short())
	default:
		return nil, fmt.Errorf("artifact: read %s: %w", code.Short(), err)
	}
}

// Has reports whether there is an artifact of that code for an engine of that
// fingerprint. It does not look at its bytes: Get may still find it corrupt.
func (s *Store) Has(code function.Digest, fingerprint string) bool {
	want, err := identify(code, fingerprint)
	if err != nil {
		return false
	}
	var st unix.Stat_t
	err = unix.Fstatat(int(s.dir.Fd()), want.file(), &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size >= headerSize
}

// read reads a whole file into memory and checks it there.
func (s *Store) read(want header) ([]byte, error) {
	f, err := s.open(want.file())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() < headerSize || fi.Size() > headerSize+maxPayload {
		return nil, fmt.Errorf("%w: a file of %d bytes, %s", ErrCorrupt, fi.Size(), fi.Mode())
	}
	b := make([]byte, fi.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	payload, err := s.config.Key.check(want, b)
	if err == nil {
		_ = touch(f) // where it cannot be noted, artifacts go by their age
	}
	return payload, err
}

// touch notes when the file was last used, for the budget: of the open file and
// without a path, which is the only way a jailed server has.
func touch(f *os.File) error {
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, f.Fd(), 0, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("note its use: %w", errno)
	}
	return nil
}

// open opens a file of the folder itself: what a link leads to is not ours, and
// a pipe must not make us wait.
func (s *Store) open(name string) (*os.File, error) {
	fd, err := unix.Openat(int(s.dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%w: a symbolic link", ErrCorrupt)
	case errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("%w: a socket or device", ErrCorrupt)
	case err != nil:
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Put keeps an artifact. It is there for good, or not at all, once Put returns.
func (s *Store) Put(code function.Digest, fingerprint string, artifact []byte) error {
	h, err := identify(code, fingerprint)
	if err != nil {
		return err
	}
	h.size = uint64(len(artifact))
	if int64(len(artifact)) > min(maxPayload, s.config.MaxBytes-headerSize) {
		return fmt.Errorf("%w: %d bytes for code %s", ErrTooLarge, len(artifact), code.Short())
	}
	s.writes.Lock()
	defer s.writes.Unlock()
	if err := s.write(h, artifact); err != nil {
		return fmt.Errorf("artifact: keep %s: %w", code.Short(), err)
	}
	return s.fit(h.file(), headerSize+int64(len(artifact)))
}

// write makes the file under another name and moves it into place.
func (s *Store) write(h header, artifact []byte) error {
	f, err := atomicfile.Create(s.config.Dir)
	if err != nil {
		return err
	}
	defer f.Discard()
	if _, err := f.Write(s.config.Key.sign(h, artifact)); err != nil {
		return err
	}
	if _, err := f.Write(artifact); err != nil {
		return err
	}
	return s.moveIn(f, h.file())
}

func (s *Store) moveIn(f *atomicfile.File, name string) error {
	err := f.Commit(name)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EEXIST) { // a folder sits there
		if err := s.remove(name); err != nil {
			return err
		}
		err = f.Commit(name)
	}
	return err
}

func (s *Store) path(name string) string { return filepath.Join(s.config.Dir, name) }

// remove removes whatever has that name.
func (s *Store) remove(name string) error {
	if err := os.RemoveAll(s.path(name)); err != nil {
		return fmt.Errorf("artifact: remove: %w", err)
	}
	return nil
}

// kept is one file with what decides how long it stays.
type kept struct {
	name string
	size int64
	used time.Time
}

// list returns the artifacts, the longest unused first.
func (s *Store) list() ([]kept, error) {
	entries, err := os.ReadDir(s.config.Dir)
	if err != nil {
		return nil, fmt.Errorf("artifact: %w", err)
	}
	var all []kept
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil || !strings.HasSuffix(e.Name(), suffix) {
			continue
		}
		all = append(all, kept{e.Name(), fi.Size(), fi.ModTime()})
	}
	slices.SortFunc(all, func(a, b kept) int { return a.used.Compare(b.used) })
	return all, nil
}

// fit removes what was not used for longest until the rest is within the
// budget. The newest, of size bytes, stays: it was made to be loaded now.
func (s *Store) fit(newest string, size int64) error {
	if s.total+size <= s.config.MaxBytes && s.unseen >= 0 && s.unseen < maxUnseen {
		s.total, s.unseen = s.total+size, s.unseen+1
		return nil
	}
	all, err := s.list()
	if err != nil {
		return err
	}
	s.total, s.unseen = 0, 0
	for _, k := range all {
		s.total += k.size
	}
	for _, k := range all {
		if s.total <= s.config.MaxBytes {
			return nil
		}
		if k.name == newest {
			continue
		}
		if err := s.remove(k.name); err != nil {
			return err
		}
		s.total -= k.size
	}
	return nil
}

// Trim removes artifacts of code that is not used, also by other engines, and
// was not for a while (Config.Grace). What runs is in memory and stays whole.
func (s *Store) Trim(used func(function.Digest) bool) (removed int, err error) {
	s.writes.Lock()
	defer s.writes.Unlock()
	all, err := s.list()
	if err != nil {
		return 0, err
	}
	for _, k := range all {
		if time.Since(k.used) < s.config.Grace || used(codeOf(k.name)) {
			continue
		}
		if err := s.remove(k.name); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

// Drop removes the artifacts of a code, also other engines', at once.
func (s *Store) Drop(code function.Digest) error {
	s.writes.Lock()
	defer s.writes.Unlock()
	all, err := s.list()
	if err != nil {
		return err
	}
	for _, k := range all {
		if codeOf(k.name) != code {
			continue
		}
		if err := s.remove(k.name); err != nil {
			return err
		}
		s.total -= k.size
	}
	return nil
}

// Codes are those that artifacts here speak of, also other engines'.
func (s *Store) Codes() (map[function.Digest]bool, error) {
	all, err := s.list()
	codes := make(map[function.Digest]bool, len(all))
	for _, k := range all {
		codes[codeOf(k.name)] = true
	}
	return codes, err
}

// codeOf is the code an artifact's name speaks of; the name proves nothing.
func codeOf(name string) function.Digest {
	hex, _, _ := strings.Cut(name, "-")
	return function.Digest("sha256:" + hex)
}
