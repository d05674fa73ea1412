package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// failing is the system's files, of which the nth operation that is chosen fails, with all after it.
func failing(nth int, with error, chosen func(errorfs.Op) bool) *errorfs.FS {
	var seen atomic.Int64
	return errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if chosen(op) && seen.Add(1) >= int64(nth) {
			return &os.PathError{Op: "test", Path: op.Path, Err: with}
		}
		return nil
	}))
}

func reads(op errorfs.Op) bool { return op.Kind.ReadOrWrite() == errorfs.OpIsRead }

// TestWhatCannotBeOpenedNowStays has the system refuse the reads of a start, from the nth on: the copies are there at the next.
func TestWhatCannotBeOpenedNowStays(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, Config{Dir: dir})
	apply(t, d.Copy(words), Position{1, 1}, true, put("a", 1, "one"))
	d.Close()
	reopened := func() {
		t.Helper()
		d := mustOpen(t, Config{Dir: dir})
		defer d.Close()
		is(t, d.Copy(words), "a", "one")
	}
	refused := 0
	for n := 1; ; n++ {
		with := []error{syscall.EMFILE, syscall.ENOMEM, syscall.EACCES, syscall.EIO}[n%4]
		d, discarded, err := Open(Config{Dir: dir, Spare: 1, fs: failing(n, with, reads)})
		if discarded != nil {
			t.Fatalf("operation %d, %v: discarded: %v", n, with, discarded)
		}
		if err == nil {
			d.Close()
			break
		}
		refused++
		reopened()
	}
	if refused < 20 {
		t.Errorf("%d starts were refused: the test does not do what it says", refused)
	}
}

func writes(op errorfs.Op) bool {
	return op.Kind.ReadOrWrite() == errorfs.OpIsWrite || op.Kind == errorfs.OpOpenDir
}

// TestADiskThatCannotBeWritten has the nth write of the database fail, with all after it, from its start
// through changes, flushes and compactions: a start is refused, and a database that was open
// answers nothing any more and is removed. Where it cannot be, what is there is what it was at its position.
func TestADiskThatCannotBeWritten(t *testing.T) {
	good := t.TempDir()
	d := mustOpen(t, Config{Dir: good})
	apply(t, d.Copy(words), Position{1, 1}, true, put("k", 1, "1"))
	d.Close()
	sound := func(n int, dir string, acked uint64) {
		t.Helper()
		d, discarded, err := Open(Config{Dir: dir, Spare: 1})
		if err != nil || discarded != nil {
			t.Fatalf("write %d: what was left: %v, discarded %v", n, err, discarded)
		}
		defer d.Close()
		c := d.Copy(words)
		if at := c.Position().Seq; at < acked || !c.Whole() {
			t.Errorf("write %d: left at %d after %d was applied; whole: %v", n, at, acked, c.Whole())
		}
		is(t, c, "k", fmt.Sprint(c.Position().Seq))
	}
	refused, broken := 0, 0
	for n := 1; ; n++ {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
			t.Fatal(err)
		}
		with := []error{syscall.ENOSPC, syscall.EIO, syscall.EROFS, syscall.EMFILE, syscall.EDQUOT}[n%5]
		d, discarded, err := Open(Config{Dir: dir, Spare: 1, fs: failing(n, with, writes)})
		if discarded != nil {
			t.Fatalf("write %d: discarded: %v", n, discarded)
		}
		if err != nil {
			refused++
			sound(n, dir, 1)
			continue
		}
		acked := changed(d)
		if d.Why() == nil {
			d.Close()
			break
		}
		broken++
		silent(t, n, d)
		left := filepath.Join(dir, "copies")
		if n%2 == 0 { // it cannot be removed
			dir = t.TempDir()
			if err := os.Rename(left, filepath.Join(dir, "copies")); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Close(); err != nil {
			t.Errorf("write %d: close: %v", n, err)
		}
		if _, err := os.Stat(left); !os.IsNotExist(err) {
			t.Errorf("write %d: the broken database stays: %v", n, err)
		}
		if n%2 == 0 {
			sound(n, dir, acked)
		}
	}
	if refused < 10 || broken < 40 {
		t.Errorf("%d starts were refused, %d databases broke: the test does not do what it says", refused, broken)
	}
	t.Log(refused, broken)
}

// changed changes the copy until something fails, and returns the last position that Apply returned for.
func changed(d *DB) (acked uint64) {
	c := d.Copy(words)
	acked = 1
	for rev := uint64(2); rev < 6 && d.Why() == nil; rev++ {
		if c.Apply(Position{1, rev}, []Change{put("k", rev, fmt.Sprint(rev))}, false) == nil {
			acked = rev
		}
		if flushed, err := d.db.AsyncFlush(); err == nil {
			select { // pebble tries for ever what cannot be
			case <-flushed:
			case <-d.Broken():
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var compacting sync.WaitGroup
	defer compacting.Wait()
	compacting.Go(func() {
		defer cancel()
		_ = d.db.Compact(ctx, []byte{0}, []byte{0xff}, false) // what of it matters is d.Why
	})
	select {
	case <-ctx.Done():
	case <-d.Broken():
		cancel()
	}
	return acked
}

// silent checks that nothing is had of a database that failed.
func silent(t *testing.T, n int, d *DB) {
	t.Helper()
	select {
	case <-d.Broken():
	default:
		t.Errorf("write %d: nobody is told", n)
	}
	c := d.Copy(words)
	if _, _, _, ok := c.Get("k"); ok || c.Whole() {
		t.Errorf("write %d: answered %v, whole %v", n, ok, c.Whole())
	}
	if _, ok := c.List("", "", func(string, *Value) bool { return true }); ok {
		t.Errorf("write %d: listed", n)
	}
	if err := c.Apply(Position{1, 99}, []Change{put("k", 99, "x")}, false); err == nil {
		t.Errorf("write %d: it takes changes", n)
	}
}

// TestARemovalThatIsInterrupted has a database break while what one of its logs has is not elsewhere yet and
// the next log is written already, and a crash after the first file of it is removed: what is
// left is not read, for it is not what the namespace was at any position.
func TestARemovalThatIsInterrupted(t *testing.T) {
	dir, flushing := t.TempDir(), make(chan struct{})
	fails := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind != errorfs.OpCreate || filepath.Ext(op.Path) != ".sst" {
			return nil
		}
		<-flushing
		return &os.PathError{Op: "test", Path: op.Path, Err: syscall.EIO}
	}))
	removed := ""
	first := func(folder string) error {
		if _, err := os.Stat(folder); err != nil {
			return nil
		}
		logs, err := filepath.Glob(filepath.Join(folder, "*.log"))
		if err != nil || len(logs) < 2 {
			t.Fatalf("%v, %v: the test does not do what it says", logs, err)
		}
		removed = logs[0]
		return errors.Join(os.Remove(removed), syscall.EIO)
	}
	d, _, err := Open(Config{Dir: dir, Spare: 1, fs: fails, remove: first})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, d.Copy(words), Position{1, 1}, true, put("a", 1, "one"))
	if _, err := d.db.AsyncFlush(); err != nil {
		t.Fatal(err)
	}
	apply(t, d.Copy(words), Position{1, 2}, true, put("b", 2, "two"))
	close(flushing)
	<-d.Broken()
	if err := d.Close(); err == nil || removed == "" {
		t.Errorf("closed: %v", err)
	}
	d = mustOpen(t, Config{Dir: dir})
	if c := d.Copy(words); c.Position() != (Position{}) {
		_, _, found, ok := c.Get("a")
		t.Errorf("at %v; a is found: %v, %v", c.Position(), found, ok)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.gone")); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}
