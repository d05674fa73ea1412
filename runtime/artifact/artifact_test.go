package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/atomicfile"
	"github.com/selvage-edge/selvage/runtime/function"
)

const engine = "wasmtime 39.0.1 x86-64 avx2"

var (
	code     = function.DigestOf([]byte("code"))
	contents = bytes.Repeat([]byte("native code. "), 20)
)

func open(t testing.TB, change func(*Config)) *Store {
	t.Helper()
	c := Config{Dir: filepath.Join(t.TempDir(), "artifacts"), Key: Key{1, 2, 3}}
	if change != nil {
		change(&c)
	}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t testing.TB, s *Store, code function.Digest, b []byte) {
	t.Helper()
	if err := s.Put(code, engine, b); err != nil {
		t.Fatal(err)
	}
}

// file is where the artifact of code lies.
func file(t testing.TB, s *Store, code function.Digest) string {
	t.Helper()
	h, err := identify(code, engine)
	if err != nil {
		t.Fatal(err)
	}
	return s.path(h.file())
}

func TestPutGet(t *testing.T) {
	s := open(t, nil)
	if _, err := s.Get(code, engine); !errors.Is(err, ErrNotFound) {
		t.Errorf("before Put: %v", err)
	}
	put(t, s, code, []byte("an older one"))
	put(t, s, code, contents)
	for range 2 {
		if got, err := s.Get(code, engine); err != nil || !bytes.Equal(got, contents) {
			t.Errorf("Get = %d bytes, %v", len(got), err)
		}
	}
	if _, err := s.Get(code, "another engine"); !errors.Is(err, ErrNotFound) {
		t.Errorf("for another engine: %v", err)
	}
	if _, err := s.Get("sha256:../../etc/passwd", engine); err == nil {
		t.Error("a digest that is none was taken")
	}
	// A restart finds it again.
	again, err := Open(s.config)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got, err := again.Get(code, engine); err != nil || !bytes.Equal(got, contents) {
		t.Errorf("after a restart: %d bytes, %v", len(got), err)
	}
	for _, p := range []string{s.config.Dir, file(t, s, code)} {
		if fi, err := os.Stat(p); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", p, fi.Mode(), err)
		}
	}
}

// Every byte counts: with any one of them changed, or missing, or one more, the
// file is refused and removed.
func TestEveryByteCounts(t *testing.T) {
	s := open(t, nil)
	put(t, s, code, contents)
	path := file(t, s, code)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(code, engine); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s: the file is still there", what)
		}
	}
	for i := range whole {
		for _, bit := range []byte{0x01, 0x80} {
			b := bytes.Clone(whole)
			b[i] ^= bit
			check(fmt.Sprintf("byte %d", i), b)
		}
	}
	for n := range whole {
		check(fmt.Sprintf("first %d bytes", n), whole[:n])
	}
	check("one more byte", append(bytes.Clone(whole), 0))
	put(t, s, code, contents)
	if _, err := s.Get(code, engine); err != nil {
		t.Errorf("put again: %v", err)
	}
}

func TestNotOurs(t *testing.T) {
	other := function.DigestOf([]byte("other"))
	for name, plant := range map[string]func(t *testing.T, s *Store, path string){
		"another code's artifact": func(t *testing.T, s *Store, path string) {
			put(t, s, other, contents)
			check(t, os.Rename(file(t, s, other), path))
		},
		"another engine's artifact": func(t *testing.T, s *Store, path string) {
			check(t, s.Put(code, "another engine", contents))
			h, _ := identify(code, "another engine")
			check(t, os.Rename(s.path(h.file()), path))
		},
		"another node's artifact": func(t *testing.T, s *Store, path string) {
			alien := open(t, func(c *Config) { c.Key = Key{9} })
			put(t, alien, code, contents)
			check(t, os.Rename(file(t, alien, code), path))
		},
		"a link to an artifact": func(t *testing.T, s *Store, path string) {
			put(t, s, code, contents)
			check(t, os.Rename(path, path+".real"))
			check(t, os.Symlink(path+".real", path))
		},
		"a link to nothing": func(t *testing.T, _ *Store, path string) { check(t, os.Symlink("/nowhere", path)) },
		"a pipe":            func(t *testing.T, _ *Store, path string) { check(t, unix.Mkfifo(path, 0o600)) },
		"a socket": func(t *testing.T, _ *Store, path string) {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			check(t, err)
			defer unix.Close(fd)
			// The whole path may be longer than an address.
			check(t, os.Chdir(filepath.Dir(path)))
			defer os.Chdir("/")
			check(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "s"}))
			check(t, os.Rename("s", path))
		},
		"a folder": func(t *testing.T, _ *Store, path string) {
			check(t, os.MkdirAll(filepath.Join(path, "deep", "er"), 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, nil)
			path := file(t, s, code)
			plant(t, s, path)
			if _, err := s.Get(code, engine); !errors.Is(err, ErrCorrupt) {
				t.Errorf("Get: %v", err)
			}
			plant(t, s, path)
			put(t, s, code, contents) // over it
			if got, err := s.Get(code, engine); err != nil || !bytes.Equal(got, contents) {
				t.Errorf("after Put: %v", err)
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Somebody swaps and rewrites the file all the time. What Get returns is what
// was put, or nothing: the bytes it checked cannot change any more.
func TestSwappedUnderOurHands(t *testing.T) {
	s := open(t, nil)
	large := bytes.Repeat([]byte{0xc3}, 1<<20)
	put(t, s, code, large)
	path := file(t, s, code)
	whole, err := os.ReadFile(path)
	check(t, err)
	evil := bytes.Clone(whole)
	evil[len(evil)-1] = 0xcc
	stop := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			swap(path, whole, evil, i)
		}
	})
	taken, refused := 0, 0
	for taken < 20 || refused < 20 {
		got, err := s.Get(code, engine)
		switch {
		case err == nil && bytes.Equal(got, large):
			taken++
		case errors.Is(err, ErrCorrupt), errors.Is(err, ErrNotFound):
			refused++
		default:
			t.Errorf("Get = %d bytes, %v", len(got), err)
			refused++
		}
	}
	close(stop)
	swapper.Wait()
	t.Logf("%d taken, %d refused", taken, refused)
}

func swap(path string, whole, evil []byte, i int) {
	switch i % 4 {
	case 0:
		_ = os.WriteFile(path+"~", whole, 0o600)
		_ = os.Rename(path+"~", path)
		time.Sleep(time.Millisecond) // long enough to be read
	case 1:
		_ = os.WriteFile(path, evil, 0o600) // in place, while it is read
	case 2:
		_ = os.WriteFile(path+"~", evil, 0o600)
		_ = os.Rename(path+"~", path)
	case 3:
		_ = os.WriteFile(path+"~", whole, 0o600)
		_ = os.Remove(path)
		_ = os.Symlink(path+"~", path)
	}
}

func TestBudget(t *testing.T) {
	size := int64(headerSize + 1000)
	s := open(t, func(c *Config) { c.MaxBytes = 3 * size })
	codes := make([]function.Digest, 5)
	for i := range codes {
		codes[i] = function.DigestOf([]byte{byte(i)})
		put(t, s, codes[i], make([]byte, 1000))
		old := time.Now().Add(time.Duration(i-10) * time.Minute)
		check(t, os.Chtimes(file(t, s, codes[i]), old, old))
		if i == 2 {
			_, err := s.Get(codes[0], engine) // the oldest is used, so the second goes first
			check(t, err)
		}
	}
	for i, want := range []bool{true, false, false, true, true} {
		if _, err := s.Get(codes[i], engine); (err == nil) != want {
			t.Errorf("code %d: %v, want there: %t", i, err, want)
		}
	}
	if err := s.Put(code, engine, make([]byte, 3*size)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("larger than all: %v", err)
	}
}

// What another process of the node puts counts too, and what was over the budget before the start.
func TestBudgetOfTwo(t *testing.T) {
	const size, most = headerSize + 1000, 20
	s := open(t, func(c *Config) { c.MaxBytes = most * size })
	other := open(t, func(c *Config) { *c = s.config })
	for i := range 2 * maxUnseen {
		for j, s := range []*Store{s, other} {
			put(t, s, function.DigestOf([]byte{byte(i), byte(j)}), make([]byte, 1000))
		}
	}
	if all, err := s.list(); err != nil || len(all) > most {
		t.Errorf("%d artifacts of at most %d, %v", len(all), most, err)
	}
	third := open(t, func(c *Config) { *c = s.config; c.MaxBytes = 5 * size })
	put(t, third, code, make([]byte, 1000))
	if all, err := third.list(); err != nil || len(all) != 5 {
		t.Errorf("%d artifacts of at most 5, %v", len(all), err)
	}
}

func TestTrim(t *testing.T) {
	s := open(t, nil)
	used, unused, recent := function.DigestOf([]byte("used")), function.DigestOf([]byte("unused")), function.DigestOf([]byte("recent"))
	for _, c := range []function.Digest{used, unused, recent} {
		put(t, s, c, contents)
	}
	old := time.Now().Add(-2 * time.Hour)
	check(t, os.Chtimes(file(t, s, used), old, old))
	check(t, os.Chtimes(file(t, s, unused), old, old))
	n, err := s.Trim(func(d function.Digest) bool { return d == used })
	if err != nil || n != 1 {
		t.Errorf("removed %d, %v", n, err)
	}
	for c, want := range map[function.Digest]bool{used: true, unused: false, recent: true} {
		if _, err := s.Get(c, engine); (err == nil) != want {
			t.Errorf("%s: %v", c.Short(), err)
		}
	}
}

func TestDrop(t *testing.T) {
	s := open(t, nil)
	stays, goes := function.DigestOf([]byte("stays")), function.DigestOf([]byte("goes"))
	for _, c := range []function.Digest{stays, goes} {
		put(t, s, c, contents)
	}
	check(t, s.Put(goes, "another engine", contents))
	if codes, err := s.Codes(); err != nil || len(codes) != 2 || !codes[goes] || !codes[stays] {
		t.Errorf("here are %v, %v", codes, err)
	}
	check(t, s.Drop(goes))
	check(t, s.Drop(goes))
	if codes, err := s.Codes(); err != nil || len(codes) != 1 || !codes[stays] {
		t.Errorf("here are %v, %v", codes, err)
	}
}

func TestOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	check(t, os.MkdirAll(dir, 0o755))
	half := filepath.Join(dir, atomicfile.Prefix+"123")
	check(t, os.WriteFile(half, contents, 0o600))
	s := open(t, func(c *Config) { c.Dir = dir })
	if _, err := os.Stat(half); !os.IsNotExist(err) {
		t.Error("what a crash left is still there")
	}
	if fi, _ := os.Stat(dir); fi.Mode().Perm() != 0o700 {
		t.Errorf("mode %o", fi.Mode().Perm())
	}
	put(t, s, code, contents)
	link := filepath.Join(t.TempDir(), "link")
	check(t, os.Symlink(dir, link))
	if _, err := Open(Config{Dir: link, Key: Key{1}}); err == nil {
		t.Error("a link was taken for the folder")
	}
	if _, err := Open(Config{Dir: dir}); err == nil {
		t.Error("no key was taken for one")
	}
	if os.Geteuid() == 0 {
		foreign := t.TempDir()
		check(t, os.Chown(foreign, 65534, 65534))
		if _, err := Open(Config{Dir: foreign, Key: Key{1}}); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
			t.Errorf("somebody else's folder: %v", err)
		}
	}
}

func TestKeyIsNotPrinted(t *testing.T) {
	k := Key{0xab, 0xcd}
	for _, f := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(f, Config{Key: k}); strings.Contains(s, "171") || strings.Contains(s, "0xab") {
			t.Errorf("%s prints %s", f, s)
		}
	}
}

func FuzzDecodeHeader(f *testing.F) {
	h, _ := identify(code, engine)
	h.size = 5
	f.Add(append(h.encode(), make([]byte, 32)...))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHeader(b)
		if err != nil {
			return
		}
		if !bytes.Equal(h.encode(), b[:macAt]) {
			t.Errorf("%x was taken for %+v", b, h)
		}
	})
}

// FuzzCheck: nothing is taken that was not signed.
func FuzzCheck(f *testing.F) {
	k := Key{7}
	h, _ := identify(code, engine)
	h.size = uint64(len(contents))
	whole := append(k.sign(h, contents), contents...)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := k.check(h, b); err == nil && !bytes.Equal(b, whole) {
			t.Errorf("taken: %x", b)
		}
	})
}

// Two servers of a node share the folder while it is upgraded, and one starts,
// which sweeps, while the other writes: nothing that is being written is swept.
func TestSweepingWhileAnotherWrites(t *testing.T) {
	s := open(t, nil)
	ctx, stop := context.WithCancel(t.Context())
	var sweeper sync.WaitGroup
	sweeper.Go(func() {
		for ctx.Err() == nil {
			again, err := Open(s.config)
			if err != nil {
				t.Errorf("Open: %v", err)
				return
			}
			again.Close()
		}
	})
	for i := range 300 {
		if err := s.Put(function.DigestOf([]byte{byte(i), byte(i >> 8)}), engine, contents); err != nil {
			t.Errorf("Put %d: %v", i, err)
		}
	}
	stop()
	sweeper.Wait()
}
