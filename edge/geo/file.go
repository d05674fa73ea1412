package geo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"
)

// MaxFileBytes is the largest file taken. Files are read whole: a mapped one
// that its owner cuts short would end the process.
const MaxFileBytes = 1 << 30

// memoSize is how many records of a file are kept decoded; a power of two.
const memoSize = 1 << 13

// file is one database. It is immutable but for its memo.
type file struct {
	path   string
	stamp  stamp
	reader *maxminddb.Reader
	kind   string
	built  time.Time
	memo   [memoSize]atomic.Pointer[remembered]
	broken *atomic.Uint64 // records that could not be read
}

// remembered is a record that was decoded; many networks share one.
type remembered struct {
	offset uintptr
	place  Place
}

// stamp tells one state of a file on disk from another.
type stamp struct {
	size     int64
	modified time.Time
	inode    uint64
}

func openFile(path string, broken *atomic.Uint64) (*file, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > MaxFileBytes {
		return nil, fmt.Errorf("%s: want a plain file of at most %d bytes", path, MaxFileBytes)
	}
	text := make([]byte, info.Size())
	if _, err := io.ReadFull(in, text); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f := &file{path: path, stamp: stampOf(info), broken: broken}
	if err := f.parse(text); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func (f *file) parse(text []byte) (err error) {
	if f.reader, err = maxminddb.OpenBytes(text); err != nil {
		return err
	}
	f.kind, f.built = f.reader.Metadata.DatabaseType, f.reader.Metadata.BuildTime()
	return f.probe()
}

// probes is how many addresses are looked up before a file is taken.
const probes = 1 << 14

// probe looks up addresses all over both protocols' space. A file of which any
// is broken, or none says where something is, is not taken.
func (f *file) probe() error {
	var knows bool
	for i := range uint32(probes) {
		var a4 [4]byte
		binary.BigEndian.PutUint32(a4[:], i<<18|0x100) // one in each 1/16384 of the space
		a6 := [16]byte{0x20 | byte(i>>9)&0x1f, byte(i >> 1), byte(i << 7)}
		for _, a := range []netip.Addr{netip.AddrFrom4(a4), netip.AddrFrom16(a6)} {
			if a.Is6() && f.reader.Metadata.IPVersion == 4 {
				continue
			}
			p, err := readRecord(f.reader.Lookup(a))
			if err != nil {
				return fmt.Errorf("broken at %s: %w", a, err)
			}
			knows = knows || p != Place{}
		}
	}
	if !knows {
		knows = f.anyRecord()
	}
	if !knows {
		return fmt.Errorf("a database of type %.64q without places: no country, city, position or AS number where MaxMind, DB-IP and IPinfo keep them", f.kind)
	}
	return nil
}

// anyRecord looks for one of a small file that no probe has hit.
func (f *file) anyRecord() bool {
	n := 0
	for r := range f.reader.Networks() {
		if p, err := readRecord(r); err == nil && p != (Place{}) {
			return true
		}
		if n++; n > probes {
			break
		}
	}
	return false
}

// lookup returns what the file knows of a; nil if nothing. The result is shared.
func (f *file) lookup(a netip.Addr) *Place {
	if a.Is6() && f.reader.Metadata.IPVersion == 4 {
		return nil
	}
	r := f.reader.Lookup(a)
	if !r.Found() {
		if r.Err() != nil {
			f.broken.Add(1)
		}
		return nil
	}
	slot := &f.memo[uint64(r.Offset())*0x9e3779b97f4a7c15>>(64-13)]
	if m := slot.Load(); m != nil && m.offset == r.Offset() {
		return &m.place
	}
	p, err := readRecord(r)
	if err != nil {
		f.broken.Add(1)
		return nil
	}
	m := &remembered{r.Offset(), p}
	slot.Store(m)
	return &m.place
}

// isBroken tells a fault of the file from a value that is of another type, or in
// another place, than was asked for.
func isBroken(err error) bool {
	var invalid maxminddb.InvalidDatabaseError
	return errors.As(err, &invalid)
}
