package store

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// The disk itself: what it keeps and what it drops.
func TestLossyDiskDropsWhatWasNotFsynced(t *testing.T) {
	d, dir := newLossyDisk(), t.TempDir()
	unmount := d.mount(t, dir)
	write := func(name, text string, flags int, sync bool) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|flags, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if sync {
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "not there"
		}
		return string(b)
	}
	if err := os.Mkdir(filepath.Join(dir, "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("a", "kept", 0, true)
	write("a", " and more", os.O_APPEND, false)
	write("in/b", "bytes", 0, false)
	write("in/s", "at once", os.O_SYNC, false)
	write("c", "long before", 0, true)
	write("c", "new", os.O_TRUNC, true)
	write("late", "bytes", 0, false) // its name comes after the last fsync
	if got := read("a") + read("in/b") + read("late"); got != "kept and morebytesbytes" {
		t.Errorf("before: %q", got)
	}
	unmount()
	d.lose()
	unmount = d.mount(t, dir)
	for name, want := range map[string]string{"a": "kept", "in/b": "", "in/s": "at once", "c": "new", "late": "not there"} {
		if got := read(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	// A file beside, fsynced and renamed: the rename is there after the next fsync.
	write("a.new", "newer", 0, true)
	if err := os.Rename(filepath.Join(dir, "a.new"), filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	unmount()
	d.lose()
	unmount = d.mount(t, dir)
	if got := read("a") + ", " + read("a.new"); got != "kept, newer" {
		t.Errorf("renamed and not fsynced: %q", got)
	}
	d.cutAfter(0, func() {})
	if err := os.WriteFile(filepath.Join(dir, "off"), nil, 0o600); err == nil {
		t.Error("written without power")
	}
	unmount()
}

// The power is cut at any operation on the disk, also those of opening and recovering: what
// was acknowledged is there when it is on again, although nothing is that was not
// fsynced. SELVAGE_POWER_ROUNDS is how many times, SELVAGE_POWER_SEED=N replays when.
func TestPowerLossKeepsWhatWasAcknowledged(t *testing.T) {
	rounds, seed := setting(t, "SELVAGE_POWER_ROUNDS", 8), setting(t, "SELVAGE_POWER_SEED", rand.Uint64())
	t.Logf("SELVAGE_POWER_SEED=%d replays this", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	var d *lossyDisk
	var all *acked
	lines := 0
	for round := range rounds {
		if round%10 == 0 { // a new one, since it is all in memory
			d, all = newLossyDisk(), &acked{kv: map[string]string{}, rev: map[string]uint64{}}
		}
		unmount := d.mount(t, dir)
		lines += runAndCut(t, d, dir, all, 1+r.IntN(1500))
		unmount()
		d.lose()
		unmount = d.mount(t, dir)
		checkAcked(t, dir, all)
		unmount()
		d.lose() // what closing left unsynced
		if t.Failed() {
			return
		}
	}
	t.Logf("%d writes were acknowledged over %d losses of power", lines, rounds)
	if lines == 0 {
		t.Error("nothing was tried")
	}
}

// runAndCut has a writer write, cuts the power after so many operations on its disk,
// and returns how many writes it said were acknowledged, also without power.
func runAndCut(t *testing.T, d *lossyDisk, dir string, all *acked, operations int) (lines int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SELVAGE_TEST_WRITER="+dir)
	var out, errout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.cutAfter(operations, func() { _ = cmd.Process.Kill() }) // it may have ended, without a disk
	_ = cmd.Wait()
	for {
		line, err := out.ReadString('\n')
		if err != nil {
			break // a line cut short was not said
		}
		if err := all.note(line[:len(line)-1]); err != nil {
			t.Fatalf("%q: %v\n%s", line, err, errout.Bytes())
		}
		lines++
	}
	return lines
}

// setting is a number from the environment, or another if it is not set.
func setting(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
