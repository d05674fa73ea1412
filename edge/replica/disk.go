package replica

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is the file system as the database sees it. Pebble ends the process when it cannot
// write; so the first failure takes the database out of use instead, and from then on pebble
// is told that all goes well while nothing changes on disk any more. What is there is then as
// after a crash at that moment: should it not be possible to remove it, no later start reads
// anything that was not so.
type disk struct {
	vfs.FS
	fail   func(error)
	frozen atomic.Bool
}

// do has change change the disk, unless it is frozen, and freezes it if that fails.
func (d *disk) do(change func() error) bool {
	if d.frozen.Load() {
		return false
	}
	err := change()
	if err != nil {
		d.frozen.Store(true)
		d.fail(err)
	}
	return err == nil
}

// file returns what open opens for writing; nowhere, if it cannot.
func (d *disk) file(open func() (vfs.File, error)) (vfs.File, error) {
	var f vfs.File
	ok := d.do(func() (err error) {
		f, err = open()
		return err
	})
	if !ok {
		f = nowhere{}
	}
	return &written{File: f, disk: d}, nil
}

// absent passes on that a file is not there, which is an answer and no failure.
func (d *disk) absent(remove func() error) (absent error) {
	d.do(func() error {
		err := remove()
		if errors.Is(err, os.ErrNotExist) {
			absent, err = err, nil
		}
		return err
	})
	return absent
}

func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.file(func() (vfs.File, error) { return d.FS.Create(name, c) })
}

func (d *disk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return d.file(func() (vfs.File, error) { return d.FS.OpenReadWrite(name, c, o...) })
}

func (d *disk) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.file(func() (vfs.File, error) { return d.FS.ReuseForWrite(old, name, c) })
}

func (d *disk) OpenDir(name string) (vfs.File, error) { // to sync it
	return d.file(func() (vfs.File, error) { return d.FS.OpenDir(name) })
}

func (d *disk) Link(old, name string) error {
	d.do(func() error { return d.FS.Link(old, name) })
	return nil
}

func (d *disk) Rename(old, name string) error {
	d.do(func() error { return d.FS.Rename(old, name) })
	return nil
}

func (d *disk) MkdirAll(dir string, perm os.FileMode) error {
	d.do(func() error { return d.FS.MkdirAll(dir, perm) })
	return nil
}

func (d *disk) Remove(name string) error {
	return d.absent(func() error { return d.FS.Remove(name) })
}

func (d *disk) RemoveAll(name string) error {
	return d.absent(func() error { return d.FS.RemoveAll(name) })
}

func (d *disk) Unwrap() vfs.FS { return d.FS }

// Infof, Errorf and Fatalf are pebble's log. What it has to say of errors comes with them.
// A Fatalf must not return, but of a database that is out of use, whose files are not what pebble thinks.
func (*disk) Infof(string, ...any)  {}
func (*disk) Errorf(string, ...any) {}
func (d *disk) Fatalf(format string, args ...any) {
	if !d.frozen.Load() {
		panic(fmt.Sprintf("replica: "+format, args...))
	}
}

// written is a file, or folder, that is open for writing.
type written struct {
	vfs.File
	disk *disk
}

func (w *written) Write(b []byte) (int, error) {
	w.disk.do(func() error {
		_, err := w.File.Write(b)
		return err
	})
	return len(b), nil
}

func (w *written) WriteAt(b []byte, at int64) (int, error) {
	w.disk.do(func() error {
		_, err := w.File.WriteAt(b, at)
		return err
	})
	return len(b), nil
}

func (w *written) Sync() error {
	w.disk.do(w.File.Sync)
	return nil
}

func (w *written) SyncData() error {
	w.disk.do(w.File.SyncData)
	return nil
}

func (w *written) SyncTo(length int64) (full bool, err error) {
	w.disk.do(func() (err error) {
		full, err = w.File.SyncTo(length)
		return err
	})
	return full, nil
}

func (w *written) Preallocate(at, length int64) error {
	if !w.disk.frozen.Load() {
		_ = w.File.Preallocate(at, length) // the write says it
	}
	return nil
}

func (w *written) Stat() (vfs.FileInfo, error) { // pebble asks a log that it writes over
	info, err := w.File.Stat()
	if err != nil {
		w.disk.do(func() error { return err })
		return empty{}, nil
	}
	return info, nil
}

func (w *written) Close() error {
	if err := w.File.Close(); err != nil {
		w.disk.do(func() error { return err })
	}
	return nil
}

// nowhere is a file that could not be opened. Its holder is told that it is written, by written.
type nowhere struct{}

func (nowhere) Close() error                       { return nil }
func (nowhere) Read([]byte) (int, error)           { return 0, io.EOF }
func (nowhere) ReadAt([]byte, int64) (int, error)  { return 0, io.EOF }
func (nowhere) Write(b []byte) (int, error)        { return len(b), nil }
func (nowhere) WriteAt([]byte, int64) (int, error) { return 0, nil }
func (nowhere) Preallocate(int64, int64) error     { return nil }
func (nowhere) Stat() (vfs.FileInfo, error)        { return empty{}, nil }
func (nowhere) Sync() error                        { return nil }
func (nowhere) SyncTo(int64) (bool, error)         { return false, nil }
func (nowhere) SyncData() error                    { return nil }
func (nowhere) Prefetch(int64, int64) error        { return nil }
func (nowhere) Fd() uintptr                        { return vfs.InvalidFd }

// empty is what there is to know of a file that is nowhere.
type empty struct{}

func (empty) Name() string           { return "" }
func (empty) Size() int64            { return 0 }
func (empty) Mode() os.FileMode      { return 0o600 }
func (empty) ModTime() time.Time     { return time.Time{} }
func (empty) IsDir() bool            { return false }
func (empty) Sys() any               { return nil }
func (empty) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
