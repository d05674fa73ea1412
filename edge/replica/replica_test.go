package replica

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

var words = hostcall.Namespace{Project: "shop", Name: "words"}

func mustOpen(t *testing.T, c Config) *DB {
	t.Helper()
	c.Spare = 1 // what else is on the disk is not this test's
	d, discarded, err := Open(c)
	if err != nil || discarded != nil {
		t.Fatalf("open: %v, discarded %v", err, discarded)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func put(key string, rev uint64, value string) Change {
	return Change{Key: key, Value: Value{Revision: rev, Value: []byte(value)}}
}

func apply(t *testing.T, c *Copy, to Position, complete bool, list ...Change) {
	t.Helper()
	if err := c.Apply(to, list, complete); err != nil {
		t.Fatal(err)
	}
}

// is checks what the copy says of a key; want "" is that it is not there.
func is(t *testing.T, c *Copy, key, want string) {
	t.Helper()
	v, _, found, ok := c.Get(key)
	if !ok || found != (want != "") || string(v.Value) != want {
		t.Errorf("%q: %q, found %v, ok %v; want %q", key, v.Value, found, ok, want)
	}
}

func TestCopyAnswersOnceItIsWhole(t *testing.T) {
	c := mustOpen(t, Config{Dir: t.TempDir()}).Copy(words)
	apply(t, c, Position{1, 5}, false, put("a", 3, "old"), put("b", 5, "two"))
	if _, _, _, ok := c.Get("a"); ok {
		t.Error("a copy that is not whole answered")
	}
	apply(t, c, Position{1, 9}, true, put("a", 8, "new"), Change{Key: "b", Gone: true})
	is(t, c, "a", "new")
	is(t, c, "b", "")
	is(t, c, "never", "")
	v, at, _, _ := c.Get("a")
	if v.Revision != 8 || at != (Position{1, 9}) {
		t.Errorf("revision %d at %v", v.Revision, at)
	}
}

func TestRestartGoesOn(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, Config{Dir: dir})
	full := Value{Revision: 2, Expires: 1700000000000, Metadata: []byte{0, 1}, Value: []byte("x")}
	apply(t, d.Copy(words), Position{7, 4}, true, Change{Key: "\x00\xff", Value: full}, Change{Key: "big", Value: Value{Revision: 3, Absent: true}})
	keys, size := d.Copy(words).Size()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, _, ok := d.Copy(words).Get("\x00\xff"); ok {
		t.Error("a closed database answered")
	}
	c := mustOpen(t, Config{Dir: dir}).Copy(words)
	if c.Position() != (Position{7, 4}) || !c.Whole() {
		t.Fatalf("at %v, whole %v", c.Position(), c.Whole())
	}
	if k, b := c.Size(); k != keys || b != size || k != 2 || c.db.Bytes() != b {
		t.Errorf("%d keys of %d bytes, before %d of %d", k, b, keys, size)
	}
	v, _, found, ok := c.Get("\x00\xff")
	if !ok || !found || v.Revision != 2 || v.Expires != full.Expires || !bytes.Equal(v.Metadata, full.Metadata) || string(v.Value) != "x" {
		t.Errorf("%+v, found %v, ok %v", v, found, ok)
	}
	if _, _, _, ok := c.Get("big"); ok {
		t.Error("a value that is not here was answered")
	}
}

// TestPagesMakeNoCopyWhole: a copy is whole, and has everything up to a position, only where
// all that its pages left out has come, also over a restart between them.
func TestPagesMakeNoCopyWhole(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, Config{Dir: dir})
	page := func(c *Copy, to Position, head uint64, list ...Change) {
		t.Helper()
		if err := c.ApplyPage(to, list, head); err != nil {
			t.Fatal(err)
		}
	}
	again := func() *Copy {
		t.Helper()
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d = mustOpen(t, Config{Dir: dir})
		return d.Copy(words)
	}
	c := d.Copy(words)
	page(c, Position{1, 10}, 20, put("b", 8, "b")) // a was 5 and is 20 now
	apply(t, c, Position{1, 12}, true)             // everything up to 12, signed when a was 5
	if c.Whole() || c.Complete() != (Position{}) {
		t.Fatalf("whole without a, complete up to %v", c.Complete())
	}
	apply(t, c, Position{1, 20}, true, put("a", 20, "a"))
	if !c.Whole() || c.Complete() != (Position{1, 20}) {
		t.Fatalf("whole %v, complete up to %v", c.Whole(), c.Complete())
	}
	page(c, Position{1, 30}, 40, put("c", 30, "c"))
	if c = again(); c.Position() != (Position{1, 30}) || c.Complete() != (Position{1, 20}) || c.Head() != 40 {
		t.Errorf("after a restart: complete up to %v of %v, again at %d", c.Complete(), c.Position(), c.Head())
	}
	if _, at, _, ok := c.Get("a"); !ok || at != (Position{1, 20}) {
		t.Errorf("a as of %v, %v", at, ok)
	}
	apply(t, c, Position{1, 35}, true)
	if at, _ := c.List("", "", func(string, *Value) bool { return true }); at != (Position{1, 20}) {
		t.Errorf("listed as of %v", at)
	}
	apply(t, c, Position{1, 41}, true)
	if c.Complete() != (Position{1, 41}) {
		t.Errorf("complete up to %v", c.Complete())
	}
}

// TestKeysCountOnce has keys change and go while their copy is not whole: what it has is counted as it is on
// disk, over a restart too.
func TestKeysCountOnce(t *testing.T) {
	for _, restart := range []bool{false, true} {
		dir := t.TempDir()
		d := mustOpen(t, Config{Dir: dir})
		again := func() *Copy {
			if restart {
				d.Close()
				d = mustOpen(t, Config{Dir: dir})
			}
			return d.Copy(words)
		}
		page := func(to, head uint64, list ...Change) {
			t.Helper()
			if err := again().ApplyPage(Position{1, to}, list, head); err != nil {
				t.Fatal(err)
			}
		}
		page(3, 9, put("a", 1, "a"), put("b", 2, "b"), put("c", 3, "c"))
		page(6, 12, put("d", 5, "d"), put("e", 6, "e"))
		page(11, 12, put("a", 10, "aa"), Change{Key: "b", Gone: true}, Change{Key: "never", Gone: true})
		page(12, 13, put("d", 12, "dddd"))
		apply(t, again(), Position{1, 14}, true, put("a", 13, "aaa"), put("f", 14, "f"))
		c, want := again(), int64(0)
		if _, ok := c.List("", "", func(key string, v *Value) bool { want += int64(len(key) + len(v.encode())); return true }); !ok {
			t.Fatal("it is not whole")
		}
		if keys, bytes := c.Size(); keys != 5 || bytes != want || d.Bytes() != want {
			t.Errorf("restarted %v: %d keys of %d bytes, %d in all; want 5 of %d", restart, keys, bytes, d.Bytes(), want)
		}
	}
}

func TestAnotherEpochBeginsAgain(t *testing.T) {
	d := mustOpen(t, Config{Dir: t.TempDir()})
	c, other := d.Copy(words), d.Copy(hostcall.Namespace{Project: "shop", Name: "other"})
	apply(t, c, Position{1, 5}, true, put("a", 5, "one"))
	apply(t, other, Position{1, 5}, true, put("a", 4, "theirs"))
	if err := c.Apply(Position{2, 1}, nil, true); err == nil {
		t.Fatal("changes of another epoch were taken")
	}
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	if _, _, _, ok := c.Get("a"); ok || c.Position() != (Position{}) {
		t.Fatalf("answers after a reset, at %v", c.Position())
	}
	apply(t, c, Position{2, 1}, true)
	is(t, c, "a", "")
	is(t, other, "a", "theirs")
}

func TestDroppedCopiesLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, Config{Dir: dir})
	apply(t, d.Copy(words), Position{1, 5}, true, put("a", 5, "one"))
	if err := d.Keep(nil); err != nil {
		t.Fatal(err)
	}
	if d.Bytes() != 0 {
		t.Errorf("%d bytes counted", d.Bytes())
	}
	d.Close()
	c := mustOpen(t, Config{Dir: dir}).Copy(words)
	if c.Position() != (Position{}) || c.Whole() {
		t.Errorf("at %v, whole %v", c.Position(), c.Whole())
	}
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	d := mustOpen(t, Config{Dir: t.TempDir(), Bytes: 1000})
	c := d.Copy(words)
	apply(t, c, Position{1, 1}, true, put("a", 1, strings.Repeat("x", 900)))
	if err := c.Apply(Position{1, 2}, []Change{put("b", 2, strings.Repeat("x", 900))}, false); !errors.Is(err, ErrRoom) {
		t.Fatalf("%v, want ErrRoom", err)
	}
	if c.Position() != (Position{1, 1}) {
		t.Errorf("at %v after a refusal", c.Position())
	}
	is(t, c, "b", "")
	apply(t, c, Position{1, 3}, false, put("a", 3, "small")) // what is replaced counts no more
	apply(t, c, Position{1, 4}, false, put("b", 4, strings.Repeat("x", 900)))
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, Config{Dir: dir})
	if d, _, err := Open(Config{Dir: dir}); err == nil {
		d.Close()
		t.Fatal("opened twice")
	}
}

// TestDamageIsNeverServed flips bytes in every file, one at a time: what is answered then
// is what was written, or nothing.
func TestDamageIsNeverServed(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, Config{Dir: dir})
	var list []Change
	for i := range 500 {
		list = append(list, put(fmt.Sprint("key-", i), uint64(i+1), strings.Repeat(fmt.Sprint("value-", i, "."), 20)))
	}
	apply(t, d.Copy(words), Position{1, 500}, true, list...)
	if err := d.db.Flush(); err != nil {
		t.Fatal(err)
	}
	d.Close()
	files, _ := filepath.Glob(filepath.Join(dir, "copies", "*"))
	damaged := 0
	for _, f := range files {
		whole, err := os.ReadFile(f)
		if err != nil || len(whole) == 0 {
			continue
		}
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(1, uint64(len(whole))))
		bad := slices.Clone(whole)
		for range 1 + len(bad)/50 {
			bad[random.IntN(len(bad))] ^= 0xff
		}
		if err := os.WriteFile(filepath.Join(copied, "copies", filepath.Base(f)), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		got, discarded, err := Open(Config{Dir: copied, Spare: 1})
		if err != nil {
			t.Fatalf("%s damaged: %v", filepath.Base(f), err)
		}
		c := got.Copy(words)
		for i := range list {
			v, _, found, ok := c.Get(list[i].Key)
			if ok && (!found || !bytes.Equal(v.Value, list[i].Value.Value)) {
				t.Errorf("%s damaged: %s is %.40q, found %v", filepath.Base(f), list[i].Key, v.Value, found)
			}
		}
		if discarded != nil || got.Why() != nil {
			damaged++
		}
		broken := got.Why() != nil
		got.Close()
		if broken {
			if _, err := os.Stat(filepath.Join(copied, "copies")); !os.IsNotExist(err) {
				t.Errorf("%s damaged: the broken database stays: %v", filepath.Base(f), err)
			}
		}
	}
	if damaged == 0 {
		t.Error("no damage was noticed: the test does not do what it says")
	}
}

// TestADiskThatFillsUp has others fill the disk: copies stop to grow, then to change, while they
// answer; and where there is no room to open them they wait on disk until there is.
func TestADiskThatFillsUp(t *testing.T) {
	free := int64(4 << 20)
	dir := t.TempDir()
	conf := Config{Dir: dir, Spare: 1 << 20, free: func() (int64, error) { return free, nil }}
	d, _, err := Open(conf)
	if err != nil {
		t.Fatal(err)
	}
	c := d.Copy(words)
	apply(t, c, Position{1, 1}, true, put("a", 1, "one"), put("b", 1, "two"))
	free = conf.Spare
	if err := c.Apply(Position{1, 2}, []Change{put("c", 2, "three")}, false); !errors.Is(err, ErrRoom) {
		t.Errorf("it grows: %v", err)
	}
	apply(t, c, Position{1, 2}, false, put("a", 2, "two"))
	free = conf.Spare/2 - 1
	if err := c.Apply(Position{1, 3}, []Change{put("a", 3, "six")}, false); !errors.Is(err, ErrRoom) {
		t.Errorf("it changes: %v", err)
	}
	is(t, c, "a", "two")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	free = conf.Spare/4 - 1
	if _, discarded, err := Open(conf); !errors.Is(err, ErrRoom) || discarded != nil {
		t.Errorf("opened: %v, %v", discarded, err)
	}
	free = conf.Spare
	d, discarded, err := Open(conf)
	if err != nil || discarded != nil {
		t.Fatal(discarded, err)
	}
	is(t, d.Copy(words), "a", "two")
	d.Close()
}

func TestReadsBesideChangesNeverGoBack(t *testing.T) {
	c := mustOpen(t, Config{Dir: t.TempDir()}).Copy(words)
	apply(t, c, Position{1, 1}, true, put("k", 1, "1"))
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			var last uint64
			for {
				v, at, found, ok := c.Get("k")
				if !ok || !found || v.Revision < last || v.Revision < at.Seq || string(v.Value) != strconv.FormatUint(v.Revision, 10) {
					t.Errorf("revision %d after %d, at %v: %q, found %v, ok %v", v.Revision, last, at, v.Value, found, ok)
					return
				}
				last = v.Revision
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for rev := uint64(2); rev < 100; rev++ {
		apply(t, c, Position{1, rev}, false, put("k", rev, strconv.FormatUint(rev, 10)))
	}
	close(done)
	readers.Wait()
}

// TestReadsBesideResets reads while the copy begins again, epoch after epoch: what is
// answered is of the epoch that it says.
func TestReadsBesideResets(t *testing.T) {
	c := mustOpen(t, Config{Dir: t.TempDir()}).Copy(words)
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				v, at, found, ok := c.Get("k")
				if ok && (!found || string(v.Value) != strconv.FormatUint(at.Epoch, 10)) {
					t.Errorf("at %v: %q, found %v", at, v.Value, found)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for epoch := uint64(1); epoch < 50; epoch++ {
		apply(t, c, Position{epoch, 1}, false, put("k", 1, strconv.FormatUint(epoch, 10)))
		apply(t, c, Position{epoch, 1}, true)
		if _, _, _, ok := c.Get("k"); !ok {
			t.Errorf("epoch %d: a whole copy does not answer", epoch)
		}
		if err := c.Reset(); err != nil {
			t.Error(err)
		}
	}
	close(done)
	readers.Wait()
}

// TestKilled kills a process that applies changes, again and again: each time the copy is
// exactly what the log was at its position, and no older than what Apply returned for.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("REPLICA_KILLED"); dir != "" {
		d, _, err := Open(Config{Dir: dir, Spare: 1})
		if err != nil {
			t.Fatal(err)
		}
		c := d.Copy(words)
		for rev := c.Position().Seq + 1; ; rev++ {
			if err := c.Apply(Position{1, rev}, []Change{put(fmt.Sprint(rev%10), rev, fmt.Sprint(rev))}, true); err != nil {
				t.Fatal(err)
			}
			fmt.Println("applied", rev)
		}
	}
	dir := t.TempDir()
	for range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "REPLICA_KILLED="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var last uint64
		for n := 0; n < 25; n++ {
			if _, err := fmt.Fscanf(out, "applied %d\n", &last); err != nil {
				t.Fatal(err)
			}
		}
		cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		d := mustOpen(t, Config{Dir: dir})
		c := d.Copy(words)
		at := c.Position().Seq
		if at < last {
			t.Fatalf("at %d after %d was applied", at, last)
		}
		for rev := at; rev > at-10; rev-- {
			is(t, c, fmt.Sprint(rev%10), fmt.Sprint(rev))
		}
		d.Close()
	}
}

func FuzzValue(f *testing.F) {
	f.Add((&Value{Revision: 1, Expires: 2, Metadata: []byte("m"), Value: []byte("v")}).encode())
	f.Add((&Value{Revision: 1, Absent: true}).encode())
	f.Add([]byte{1, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decodeValue(b)
		if err != nil {
			return
		}
		again, err := decodeValue(v.encode())
		if err != nil || again.Revision != v.Revision || again.Expires != v.Expires || again.Absent != v.Absent ||
			!bytes.Equal(again.Metadata, v.Metadata) || !bytes.Equal(again.Value, v.Value) {
			t.Errorf("%+v became %+v: %v", v, again, err)
		}
		if v.size() != len(v.encode()) {
			t.Errorf("%+v is of %d bytes, not %d", v, len(v.encode()), v.size())
		}
	})
}

func FuzzHead(f *testing.F) {
	f.Add((&head{name: words, id: 3, at: Position{1, 2}, whole: true, full: 2, head: 9, keys: 4, bytes: 5}).encode())
	f.Add([]byte{version, 1, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHead(b)
		if err != nil {
			return
		}
		if again, err := decodeHead(h.encode()); err != nil || again != h {
			t.Errorf("%+v became %+v: %v", h, again, err)
		}
	})
}
