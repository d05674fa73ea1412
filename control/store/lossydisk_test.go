package store

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/selvage-edge/selvage/runtime/tooltest"
)

// lossyDisk is a file system in memory. When its power is cut every operation
// fails, and when it is on again a file has what it had when it was last fsynced
// itself, and names are as they were at the last fsync of anything: a journal's
// commit brings all names before it, as on ext4 and XFS, but no file's bytes.
type lossyDisk struct {
	mu struct {
		sync.Mutex
		off   bool
		left  int    // operations until the power is cut; below 0: it stays on
		cut   func() // is told once it was
		names map[string]*lossyFile
		kept  map[string]*lossyFile // names that outlive a cut; a folder has no file
		dirty bool                  // names is not what kept is
	}
}

func newLossyDisk() *lossyDisk {
	d := &lossyDisk{}
	d.mu.names, d.mu.kept, d.mu.left = map[string]*lossyFile{}, map[string]*lossyFile{}, -1
	return d
}

// cutAfter cuts the power at the operation after so many, and then calls told.
func (d *lossyDisk) cutAfter(operations int, told func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.left, d.mu.cut = operations, told
}

// lose has the disk be as it is once its power was cut and is on again. It must not be mounted.
func (d *lossyDisk) lose() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.off, d.mu.left, d.mu.dirty = false, -1, false
	d.mu.names = map[string]*lossyFile{}
	for name, f := range d.mu.kept {
		if f != nil {
			f = &lossyFile{disk: d, data: bytes.Clone(f.kept), kept: f.kept, mode: f.mode, at: f.at}
		}
		d.mu.names[name] = f
	}
	d.mu.kept = copied(d.mu.names)
}

func copied(m map[string]*lossyFile) map[string]*lossyFile {
	out := make(map[string]*lossyFile, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// begin locks the disk for one operation; EIO if its power is off.
func (d *lossyDisk) begin() syscall.Errno {
	d.mu.Lock()
	if d.mu.left == 0 && !d.mu.off {
		d.mu.off = true
		go d.mu.cut() // it may wait for who uses the disk
	}
	d.mu.left--
	if d.mu.off {
		d.mu.Unlock()
		return syscall.EIO
	}
	return 0
}

// commit keeps all names.
func (d *lossyDisk) commit() {
	if d.mu.dirty {
		d.mu.kept, d.mu.dirty = copied(d.mu.names), false
	}
}

// mount puts the disk at dir until unmount; the test is skipped where that cannot be.
func (d *lossyDisk) mount(t *testing.T, dir string) (unmount func()) {
	t.Helper()
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		tooltest.Machine(t, fmt.Sprintf("a loss of power is not tried without FUSE: %v", err))
	} else {
		f.Close()
	}
	if os.Geteuid() != 0 {
		tooltest.Need(t, "a loss of power is not tried: run it as root, who may mount")
	}
	_, err := fs.Mount(dir, &lossyDir{disk: d}, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, Name: "lossy", FsName: "lossy"}})
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	// The server is not waited for: it ends with its last mount, and a process that was started
	// elsewhere in a mount namespace of its own meanwhile has one for as long as it lives.
	unmount = sync.OnceFunc(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	t.Cleanup(unmount)
	return unmount
}

// lossyDir is a folder.
type lossyDir struct {
	fs.Inode
	disk *lossyDisk
}

var (
	_ = fs.NodeOnAdder((*lossyDir)(nil))
	_ = fs.NodeStatfser((*lossyDir)(nil))
	_ = fs.NodeCreater((*lossyDir)(nil))
	_ = fs.NodeMkdirer((*lossyDir)(nil))
	_ = fs.NodeUnlinker((*lossyDir)(nil))
	_ = fs.NodeRmdirer((*lossyDir)(nil))
	_ = fs.NodeRenamer((*lossyDir)(nil))
	_ = fs.NodeFsyncer((*lossyDir)(nil))
	_ = fs.NodeOpener((*lossyFile)(nil))
	_ = fs.NodeGetattrer((*lossyFile)(nil))
	_ = fs.NodeSetattrer((*lossyFile)(nil))
	_ = fs.NodeReader((*lossyFile)(nil))
	_ = fs.NodeWriter((*lossyFile)(nil))
	_ = fs.NodeFsyncer((*lossyFile)(nil))
)

// OnAdd makes the tree of the names, once, at the root.
func (n *lossyDir) OnAdd(ctx context.Context) {
	if !n.IsRoot() {
		return
	}
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	var order []string // folders come before what is in them
	for name := range n.disk.mu.names {
		order = append(order, name)
	}
	slices.Sort(order)
	for _, name := range order {
		at := &n.Inode
		if parent := path.Dir(name); parent != "." {
			for _, part := range split(parent) {
				at = at.GetChild(part)
			}
		}
		at.AddChild(path.Base(name), n.disk.inode(ctx, at, n.disk.mu.names[name]), true)
	}
}

func split(name string) (parts []string) {
	for name != "." && name != "" {
		parts, name = append(parts, path.Base(name)), path.Dir(name)
	}
	slices.Reverse(parts)
	return parts
}

// inode makes the inode of a file, or of a folder if f is nil.
func (d *lossyDisk) inode(ctx context.Context, parent *fs.Inode, f *lossyFile) *fs.Inode {
	if f == nil {
		return parent.NewPersistentInode(ctx, &lossyDir{disk: d}, fs.StableAttr{Mode: syscall.S_IFDIR})
	}
	return parent.NewPersistentInode(ctx, f, fs.StableAttr{Mode: syscall.S_IFREG})
}

func (n *lossyDir) name(child string) string { return path.Join(n.Path(nil), child) }

func (n *lossyDir) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks, out.Bfree, out.Bavail = 1<<24, 1<<24, 1<<24 // 64 GiB
	return 0
}

func (n *lossyDir) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if err := n.disk.begin(); err != 0 {
		return nil, nil, 0, err
	}
	defer n.disk.mu.Unlock()
	f := &lossyFile{disk: n.disk, mode: mode & 0o7777, at: time.Now()}
	n.disk.mu.names[n.name(name)], n.disk.mu.dirty = f, true
	f.attributes(&out.Attr)
	return n.disk.inode(ctx, &n.Inode, f), opened(flags), fuse.FOPEN_DIRECT_IO, 0
}

func (n *lossyDir) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if err := n.disk.begin(); err != 0 {
		return nil, err
	}
	defer n.disk.mu.Unlock()
	n.disk.mu.names[n.name(name)], n.disk.mu.dirty = nil, true
	return n.disk.inode(ctx, &n.Inode, nil), 0
}

func (n *lossyDir) Unlink(_ context.Context, name string) syscall.Errno {
	if err := n.disk.begin(); err != 0 {
		return err
	}
	defer n.disk.mu.Unlock()
	delete(n.disk.mu.names, n.name(name))
	n.disk.mu.dirty = true
	return 0
}

func (n *lossyDir) Rmdir(ctx context.Context, name string) syscall.Errno {
	if c := n.GetChild(name); c != nil && len(c.Children()) > 0 {
		return syscall.ENOTEMPTY
	}
	return n.Unlink(ctx, name)
}

func (n *lossyDir) Rename(_ context.Context, name string, parent fs.InodeEmbedder, to string, flags uint32) syscall.Errno {
	if flags != 0 {
		return syscall.EINVAL
	}
	if err := n.disk.begin(); err != 0 {
		return err
	}
	defer n.disk.mu.Unlock()
	was, now := n.name(name), parent.(*lossyDir).name(to)
	names := n.disk.mu.names
	for other, f := range copied(names) {
		if rest, below := bytes.CutPrefix([]byte(other), []byte(was+"/")); below {
			delete(names, other)
			names[path.Join(now, string(rest))] = f
		}
	}
	names[now] = names[was]
	delete(names, was)
	n.disk.mu.dirty = true
	return 0
}

func (n *lossyDir) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	if err := n.disk.begin(); err != 0 {
		return err
	}
	defer n.disk.mu.Unlock()
	n.disk.commit()
	return 0
}

// lossyFile is a file.
type lossyFile struct {
	fs.Inode
	disk       *lossyDisk
	data, kept []byte // kept outlives a cut
	lo, hi     int    // data[lo:hi] may differ from kept
	mode       uint32
	at         time.Time
}

// syncing is the handle of a file that is open with O_SYNC or O_DSYNC.
type syncing struct{}

func opened(flags uint32) fs.FileHandle {
	if flags&(syscall.O_SYNC|syscall.O_DSYNC) != 0 {
		return syncing{}
	}
	return nil
}

func (f *lossyFile) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if err := f.disk.begin(); err != 0 {
		return nil, 0, err
	}
	defer f.disk.mu.Unlock()
	if flags&syscall.O_TRUNC != 0 {
		f.resize(0)
	}
	return opened(flags), fuse.FOPEN_DIRECT_IO, 0
}

func (f *lossyFile) attributes(out *fuse.Attr) {
	out.Mode, out.Size, out.Nlink = f.mode, uint64(len(f.data)), 1
	out.Blocks = (out.Size + 511) / 512
	out.SetTimes(nil, &f.at, &f.at)
}

func (f *lossyFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.attributes(&out.Attr)
	return 0
}

func (f *lossyFile) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if err := f.disk.begin(); err != 0 {
		return err
	}
	defer f.disk.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		f.resize(int(size))
	}
	if mode, ok := in.GetMode(); ok {
		f.mode = mode & 0o7777
	}
	f.attributes(&out.Attr)
	return 0
}

func (f *lossyFile) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if err := f.disk.begin(); err != 0 {
		return nil, err
	}
	defer f.disk.mu.Unlock()
	at := min(int(off), len(f.data))
	n := copy(dest, f.data[at:])
	return fuse.ReadResultData(dest[:n]), 0
}

func (f *lossyFile) Write(_ context.Context, h fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if err := f.disk.begin(); err != 0 {
		return 0, err
	}
	defer f.disk.mu.Unlock()
	end := int(off) + len(data)
	if end > len(f.data) {
		f.resize(end)
	}
	copy(f.data[off:], data)
	f.changed(int(off), end)
	f.at = time.Now()
	if h == (syncing{}) {
		f.sync()
	}
	return uint32(len(data)), 0
}

func (f *lossyFile) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	if err := f.disk.begin(); err != 0 {
		return err
	}
	defer f.disk.mu.Unlock()
	f.sync()
	return 0
}

func (f *lossyFile) resize(size int) {
	was := len(f.data)
	if size <= was {
		f.data = f.data[:size]
		f.hi = min(f.hi, size)
		return
	}
	f.data = append(f.data, make([]byte, size-was)...)
	f.changed(was, size)
}

func (f *lossyFile) changed(lo, hi int) {
	if f.lo >= f.hi {
		f.lo, f.hi = lo, hi
		return
	}
	f.lo, f.hi = min(f.lo, lo), max(f.hi, hi)
}

// sync keeps the file's bytes, and with them all names.
func (f *lossyFile) sync() {
	size := len(f.data)
	f.kept = f.kept[:min(len(f.kept), size)]
	if more := size - len(f.kept); more > 0 {
		f.kept = append(f.kept, make([]byte, more)...)
	}
	if f.lo < f.hi {
		copy(f.kept[f.lo:f.hi], f.data[f.lo:f.hi])
	}
	f.lo, f.hi = 0, 0
	f.disk.commit()
}
