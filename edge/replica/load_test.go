package replica

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/tally"
)

// pagesOf gives all pages of a copy as it is.
func pagesOf(t *testing.T, c *Copy) (pages [][]byte, at Position) {
	t.Helper()
	s, err := c.Shot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for {
		page, err := s.Next(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return pages, s.Position()
		}
		if len(page) > MaxPageBytes {
			t.Fatalf("a page of %d bytes", len(page))
		}
		pages = append(pages, page)
	}
}

func load(t *testing.T, d *DB, at Position, pages ...[]byte) *Load {
	t.Helper()
	l, err := d.Load(words, at)
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if err := l.Add(page); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// lent is a copy of some pages, at 1/600, and the tally of what it has.
func lent(t *testing.T) (*Copy, *tally.Tally) {
	t.Helper()
	c, all := mustOpen(t, Config{Dir: t.TempDir()}).Copy(words), &tally.Tally{}
	var list []Change
	for i := range 599 {
		ch := put(fmt.Sprintf("key-%03d", i), uint64(i+1), strings.Repeat("v", 1000+i))
		switch i % 7 {
		case 1:
			ch.Value.Metadata, ch.Value.Expires = []byte{byte(i)}, int64(i)
		case 2:
			ch.Value.Value, ch.Value.Absent = nil, true
		case 3:
			ch.Value.Value = []byte{}
		}
		list = append(list, ch)
		e := tally.Entry{Key: ch.Key, Revision: ch.Value.Revision, Expires: ch.Value.Expires, Metadata: ch.Value.Metadata, Large: ch.Value.Absent}
		if !e.Large {
			e.Sum = sha256.Sum256(ch.Value.Value)
		}
		all.Add(&e)
	}
	apply(t, c, Position{1, 600}, true, list...)
	return c, all
}

// What one node has another has then, and goes on from there; meanwhile the first goes on itself.
func TestCopyFromAnotherNode(t *testing.T) {
	from, want := lent(t)
	s, err := from.Shot()
	if err != nil {
		t.Fatal(err)
	}
	apply(t, from, Position{1, 700}, true, put("key-000", 650, "newer"), Change{Key: "key-598", Gone: true}, put("zzz", 700, "new"))
	dir := t.TempDir()
	d := mustOpen(t, Config{Dir: dir})
	l := load(t, d, s.Position())
	pages := 0
	for {
		page, err := s.Next(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		pages++
		if err := l.Add(page); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil || s.Close() != nil || pages < 2 {
		t.Errorf("%d pages, %v", pages, err)
	}
	if keys, sum := l.Tally(); keys != want.Entries() || sum != want.Sum() {
		t.Errorf("%d keys came, of %d", keys, want.Entries())
	}
	if d.Bytes() == 0 {
		t.Error("its bytes do not count while it comes")
	}
	c := d.Copy(words)
	if c.Whole() {
		t.Error("it is read before it was checked")
	}
	if err := l.Keep(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Drop(), d.Keep(map[hostcall.Namespace]bool{words: true})); err != nil || !errors.Is(l.Keep(), errOver) {
		t.Error(err)
	}
	if !c.Whole() || c.Position() != (Position{1, 600}) || c.Complete() != (Position{1, 600}) || c != d.Copy(words) {
		t.Errorf("whole %v at %v", c.Whole(), c.Position())
	}
	if keys, bytes := c.Size(); keys != 599 || d.Bytes() != bytes {
		t.Errorf("%d keys, %d bytes of %d", keys, bytes, d.Bytes())
	}
	is(t, c, "key-000", strings.Repeat("v", 1000))
	is(t, c, "zzz", "")
	apply(t, c, Position{1, 700}, true, put("key-000", 650, "newer"), Change{Key: "key-598", Gone: true}, put("zzz", 700, "new"))
	a, _ := pagesOf(t, from)
	b, at := pagesOf(t, c)
	if at != (Position{1, 700}) || !bytes.Equal(bytes.Join(a, nil), bytes.Join(b, nil)) {
		t.Errorf("they differ at %v", at)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	c = mustOpen(t, Config{Dir: dir}).Copy(words)
	if b, at := pagesOf(t, c); at != (Position{1, 700}) || !bytes.Equal(bytes.Join(a, nil), bytes.Join(b, nil)) {
		t.Errorf("after a restart they differ at %v", at)
	}
}

// A copy that is not whole, or has a page of more, is not lent; nor is one that is gone.
func TestWhatIsNotLent(t *testing.T) {
	d := mustOpen(t, Config{Dir: t.TempDir()})
	c := d.Copy(words)
	refused := func(why string) {
		t.Helper()
		if s, err := c.Shot(); !errors.Is(err, ErrPartial) {
			t.Errorf("%s: %v, %v", why, s, err)
		}
	}
	refused("an empty one")
	apply(t, c, Position{1, 5}, false, put("a", 3, "one"))
	refused("one that is not whole")
	apply(t, c, Position{1, 6}, true)
	if err := c.ApplyPage(Position{1, 7}, []Change{put("b", 7, "two")}, 9); err != nil {
		t.Fatal(err)
	}
	refused("one with a page of more")
	apply(t, c, Position{1, 9}, true)
	s, err := c.Shot()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	refused("one that begins again")
	if page, err := s.Next(nil); err != nil || len(page) == 0 {
		t.Errorf("what was lent before is gone: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("with one lent: %v", err)
	}
	if _, err := s.Next(nil); !errors.Is(err, errBroken) {
		t.Errorf("of a closed one: %v", err)
	}
	if _, err := c.Shot(); !errors.Is(err, errBroken) {
		t.Errorf("of a closed one: %v", err)
	}
}

// What was not kept leaves nothing, also where the process ended; nor does it take the place of what has begun.
func TestLoadThatIsNotKept(t *testing.T) {
	from, _ := lent(t)
	pages, at := pagesOf(t, from)
	dir := t.TempDir()
	d := mustOpen(t, Config{Dir: dir})
	nothing := func(why string) {
		t.Helper()
		it, err := d.db.NewIter(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer it.Close()
		if it.First() || d.Bytes() != 0 {
			t.Errorf("%s: %q is there, %d bytes count", why, it.Key(), d.Bytes())
		}
	}
	if err := load(t, d, at, pages...).Drop(); err != nil {
		t.Fatal(err)
	}
	nothing("dropped")
	load(t, d, at, pages...)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, Config{Dir: dir})
	nothing("after the process ended")
	l := load(t, d, at, pages...)
	c := d.Copy(words)
	apply(t, c, Position{1, 5}, true, put("a", 3, "one"))
	if err := l.Keep(); err == nil {
		t.Error("it took the place of a copy")
	}
	if err := l.Drop(); err != nil {
		t.Fatal(err)
	}
	is(t, c, "a", "one")
	is(t, c, "key-000", "")
	if _, bytes := c.Size(); d.Bytes() != bytes {
		t.Errorf("%d bytes count, of %d", d.Bytes(), bytes)
	}
}

func TestLoadRefuses(t *testing.T) {
	from, _ := lent(t)
	pages, at := pagesOf(t, from)
	record := func(key string, v Value) []byte { return appendRecord(nil, key, v.encode()) }
	fine := record("a", Value{Revision: 1})
	for name, list := range map[string][][]byte{
		"nothing":           {{}},
		"a page twice":      {pages[0], pages[0]},
		"pages turned":      {pages[1], pages[0]},
		"a key twice":       {append(record("a", Value{Revision: 1}), fine...)},
		"keys turned":       {append(record("b", Value{Revision: 1}), fine...)},
		"a page cut short":  {pages[0][:len(pages[0])-1]},
		"more behind it":    {append(bytes.Clone(fine), 0)},
		"no key":            {record("", Value{Revision: 1})},
		"a long key":        {record(strings.Repeat("k", hostcall.MaxKeyBytes+1), Value{Revision: 1})},
		"a long value":      {record("a", Value{Revision: 1, Value: make([]byte, tally.Inline+1)})},
		"long metadata":     {record("a", Value{Revision: 1, Metadata: make([]byte, hostcall.MaxMetadataBytes+1)})},
		"no revision":       {record("a", Value{})},
		"a later revision":  {record("a", Value{Revision: at.Seq + 1})},
		"too long":          {make([]byte, MaxPageBytes+1)},
		"a length too long": {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}},
	} {
		l := load(t, mustOpen(t, Config{Dir: t.TempDir()}), at, list[:len(list)-1]...)
		if err := l.Add(list[len(list)-1]); !errors.Is(err, ErrPage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	d := mustOpen(t, Config{Dir: t.TempDir(), Bytes: 300 << 10})
	l := load(t, d, at, pages[0])
	if err := l.Add(pages[1]); !errors.Is(err, ErrRoom) {
		t.Errorf("what does not fit: %v", err)
	}
	if err := l.Drop(); err != nil || d.Bytes() != 0 {
		t.Errorf("%v, %d bytes count", err, d.Bytes())
	}
}

func FuzzPage(f *testing.F) {
	v := Value{Revision: 3, Expires: 4, Metadata: []byte("m"), Value: []byte("v")}
	f.Add(appendRecord(appendRecord(nil, "a", v.encode()), "b", (&Value{Revision: 9, Absent: true}).encode()), "")
	f.Add(appendRecord(nil, "a", v.encode()), "a")
	f.Add([]byte{1, 'a', 0x80}, "")
	f.Fuzz(func(t *testing.T, page []byte, after string) {
		var again []byte
		last := after
		err := decodePage(page, after, func(key string, v *Value) error {
			if key <= last || len(key) > hostcall.MaxKeyBytes || len(v.Value) > tally.Inline || len(v.Metadata) > hostcall.MaxMetadataBytes {
				t.Errorf("%q after %q, %d bytes, %d of metadata", key, last, len(v.Value), len(v.Metadata))
			}
			last = key
			again = appendRecord(again, key, v.encode())
			return nil
		})
		if err != nil {
			if !errors.Is(err, ErrPage) {
				t.Error(err)
			}
			return
		}
		n := 0
		if err := decodePage(again, after, func(string, *Value) error { n++; return nil }); err != nil || n == 0 {
			t.Errorf("%x became %x: %v", page, again, err)
		}
	})
}

// BenchmarkLoad takes pages of keys of 100 B, as a neighbour sends them: keys/s, with the check.
func BenchmarkLoad(b *testing.B) {
	c := benchCopy(b)
	l, err := c.db.Load(hostcall.Namespace{Project: "p", Name: "n"}, Position{1, 1 << 40})
	if err != nil {
		b.Fatal(err)
	}
	v := Value{Revision: 1, Value: bytes.Repeat([]byte{'v'}, 100)}
	n := 0
	for b.Loop() {
		var page []byte
		for len(page) < PageBytes {
			page = appendRecord(page, fmt.Sprintf("key-%012d", n), v.encode())
			n++
		}
		if err := l.Add(page); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "keys/s")
}
