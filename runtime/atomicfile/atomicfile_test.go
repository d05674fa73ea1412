package atomicfile

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func listed(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "f"), []byte("old"), 0o600))
	given, err := Create(dir)
	check(t, err)
	_, err = given.WriteString("half")
	check(t, err)
	check(t, given.Discard())
	if b, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(b) != "old" {
		t.Errorf("after one that was given up: %q, %v", b, err)
	}
	f, err := Create(dir)
	check(t, err)
	_, err = f.WriteString("new")
	check(t, err)
	check(t, f.Commit("f"))
	check(t, f.Discard())
	if b, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(b) != "new" {
		t.Errorf("%q, %v", b, err)
	}
	if left := listed(t, dir); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// What a crash left goes, whatever it is; what is being written stays, and so do other files.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "other"), nil, 0o600))
	check(t, os.WriteFile(filepath.Join(dir, Prefix+"1"), []byte("half"), 0o600))
	check(t, os.MkdirAll(filepath.Join(dir, Prefix+"2", "deep"), 0o700))
	check(t, unix.Mkfifo(filepath.Join(dir, Prefix+"3"), 0o600))
	check(t, os.Symlink("other", filepath.Join(dir, Prefix+"4")))
	f, err := Create(dir)
	check(t, err)
	check(t, Sweep(dir))
	if left := listed(t, dir); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
	check(t, f.Commit("whole"))
	check(t, f.Discard())
	check(t, Sweep(dir))
	if left := listed(t, dir); len(left) != 2 || left[1] != "whole" {
		t.Errorf("left: %v", left)
	}
}

// However sweeping and writing fall together, what is written arrives.
func TestSweepingWhileAnotherWrites(t *testing.T) {
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	var sweepers sync.WaitGroup
	for range 2 {
		sweepers.Go(func() {
			for ctx.Err() == nil {
				if err := Sweep(dir); err != nil {
					t.Errorf("Sweep: %v", err)
					return
				}
			}
		})
	}
	for range 300 {
		f, err := Create(dir)
		check(t, err)
		if err := f.Commit("f"); err != nil {
			t.Errorf("Commit: %v", err)
		}
		f.Discard()
	}
	stop()
	sweepers.Wait()
}
