package replica

import (
	"os"
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
