package sealed

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNewCannotChange(t *testing.T) {
	f, err := New("test", []byte("what was checked"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a sealed file took a write")
	}
	for _, size := range []int64{0, 1 << 20} {
		if f.Truncate(size) == nil {
			t.Errorf("a sealed file took size %d", size)
		}
	}
	if _, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		t.Error("a sealed file could be mapped for writing")
	}
	got, err := Read(f, 64)
	if err != nil || string(got) != "what was checked" {
		t.Errorf("Read = %q, %v", got, err)
	}
	m, unmap, err := Map(f, 64)
	if err != nil || !bytes.Equal(m, got) {
		t.Fatalf("Map = %q, %v", m, err)
	}
	unmap()
}

func TestCheckRefuses(t *testing.T) {
	open, err := Create("open")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	bounded, err := Bounded("bounded", 16)
	if err != nil {
		t.Fatal(err)
	}
	defer bounded.Close()
	disk, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, f := range []*os.File{open, bounded, disk, r} {
		if _, err := Check(f, 1<<20); !errors.Is(err, ErrUnsealed) {
			t.Errorf("%s: %v, want ErrUnsealed", f.Name(), err)
		}
	}
	full, err := New("full", make([]byte, 17))
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if _, err := Read(full, 16); !errors.Is(err, ErrTooLarge) {
		t.Errorf("17 bytes at a limit of 16: %v, want ErrTooLarge", err)
	}
}

func TestBoundedStaysBounded(t *testing.T) {
	f, err := Bounded("b", 8)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, _ := f.Write([]byte("0123456789")); n > 8 {
		t.Errorf("a bound of 8 took %d bytes", n)
	}
	fi, err := f.Stat()
	if err != nil || fi.Size() != 8 {
		t.Errorf("size %d, %v", fi.Size(), err)
	}
}

func TestDupOutlives(t *testing.T) {
	f, err := New("f", []byte("kept"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := Dup(f)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	f.Close()
	if got, err := Read(d, 8); err != nil || string(got) != "kept" {
		t.Errorf("Read = %q, %v", got, err)
	}
}

func TestEmpty(t *testing.T) {
	f, err := New("empty", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, unmap, err := Map(f, 0)
	if err != nil || len(b) != 0 {
		t.Fatalf("Map = %v, %v", b, err)
	}
	unmap()
}
