package engine

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
)

// Memory that is lent stays its instance's until every loan is back, however
// the instance ends: I/O in flight never lands in the next tenant's memory.
func TestBorrowPinsTheSlot(t *testing.T) {
	p, img := build(t, waitWAT, ProgramConfig{})
	in := start(t, p, StartConfig{})
	if e := run(in); e.Kind != Call {
		t.Fatal(e.Trap)
	}
	one, ok := in.Borrow(100, 50)
	two, ok2 := in.Borrow(131000, 72)
	if !ok || !ok2 {
		t.Fatal("inside the memory, and refused")
	}
	alive := eng.Stats().Instances
	in.Close()
	in.Close()
	if _, ok := in.Borrow(0, 1); ok {
		t.Error("a closed instance lends")
	}
	copy(one.Bytes(), bytes.Repeat([]byte{0xee}, 50)) // late, and harmless
	if n, err := img.Audit(); n != 0 || err != nil {
		t.Errorf("%d slots are free while memory is lent: %v", n, err)
	}
	one.Release()
	one.Release()
	if eng.Stats().Instances != alive {
		t.Error("freed with a loan out")
	}
	two.Release()
	if eng.Stats().Instances != alive-1 || two.Bytes() != nil {
		t.Error("not freed by the last release")
	}
	if n, err := img.Audit(); n != 1 || err != nil {
		t.Errorf("audit of %d slots: %v", n, err)
	}
	Borrow{}.Release()
}

func TestBorrowBounds(t *testing.T) {
	p, _ := build(t, waitWAT, ProgramConfig{})
	in := start(t, p, StartConfig{})
	defer in.Close()
	none, ok := in.Borrow(0, 0) // before the first poll there is no memory: nothing of nothing
	if !ok {
		t.Error("an empty loan is refused")
	}
	none.Release()
	if _, ok := in.Borrow(0, 1); ok {
		t.Error("memory is lent before there is any")
	}
	run(in)
	const size = 2 * 65536
	for _, c := range []struct {
		ptr, n uint32
		ok     bool
	}{
		{0, size, true}, {size, 0, true}, {size - 1, 1, true}, {size - 1, 2, false}, {size + 1, 0, false},
		{0, size + 1, false}, {1, 0xffffffff, false}, {0xffffffff, 1, false}, {0xffffffff, 0xffffffff, false},
	} {
		b, ok := in.Borrow(c.ptr, c.n)
		if ok != c.ok || ok && (len(b.Bytes()) != int(c.n) || cap(b.Bytes()) != int(c.n)) {
			t.Errorf("borrow(%d, %d): %v, %d bytes", c.ptr, c.n, ok, len(b.Bytes()))
		}
		b.Release()
	}
}

// Instances are ended under reads in flight. Each read brings a canary of the
// tenant it was for; no other tenant and no free slot may ever hold it.
func TestCloseUnderReadsInFlight(t *testing.T) {
	p, img := build(t, waitWAT, ProgramConfig{})
	const tenants, size = 40, 8192
	var readers sync.WaitGroup
	var writers []net.Conn
	for i := range tenants {
		in := start(t, p, StartConfig{})
		if e := run(in); e.Kind != Call {
			t.Fatal(e.Trap)
		}
		far, near := net.Pipe()
		b, ok := in.Borrow(uint32(16384+i*512), size)
		if !ok {
			t.Fatal("refused")
		}
		readers.Go(func() {
			io.ReadFull(near, b.Bytes())
			b.Release()
		})
		writers = append(writers, far)
		in.Close() // the tenant is gone; its read is not
	}
	// New tenants come while the old reads wait, and see nothing of them.
	var fresh []*Instance
	for range tenants {
		in := start(t, p, StartConfig{})
		if e := run(in); e.Kind != Call {
			t.Fatal(e.Trap)
		}
		fresh = append(fresh, in)
	}
	for i, w := range writers {
		w.Write(bytes.Repeat([]byte{byte(0x80 + i)}, size))
		w.Close()
	}
	readers.Wait()
	for _, in := range fresh {
		b, _ := in.Borrow(8, 60000)
		if i := bytes.IndexFunc(b.Bytes(), func(r rune) bool { return r != 0 }); i >= 0 {
			t.Fatalf("a tenant sees another's byte at %d", i)
		}
		b.Release()
		in.Close()
	}
	if n, err := img.Audit(); err != nil || n < tenants {
		t.Errorf("audit of %d slots: %v", n, err)
	}
}
