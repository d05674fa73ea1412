// Package replica is the copies of whole KV namespaces that a node has on disk, in one
// pebble database.
//
// A copy follows its namespace's change log. What a batch changes and how far the copy
// is then are written in one piece, so that after any crash a copy is what its namespace
// was at some position of the log, and goes on from there. A copy that begins at
// position 0 is not whole until the log has said that there is no more: before,
// it answers nothing.
//
// Nothing here is the only one of its kind: a database that is damaged is thrown away, and
// its copies begin again. One that only cannot be opened now stays.
package replica

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// Config says where copies are, and how large they may be.
type Config struct {
	Dir   string // the database's own folder; made if it is not there. Required
	Bytes int64  // keys, values and metadata of all copies together; default 4 GiB
	// Spare is how many bytes stay free on the disk: below, copies grow no further, with half of it
	// they change no more, and with a quarter none are opened. Default 256 MiB.
	Spare int64

	free   func() (int64, error)     // of the disk's bytes; nil: as the kernel says
	fs     vfs.FS                    // nil: the system's
	remove func(folder string) error // nil: os.RemoveAll
}

// ErrRoom is that a copy does not fit.
var ErrRoom = errors.New("replica: no room")

// errBroken is that the database failed; its copies answer nothing any more.
var errBroken = errors.New("replica: the database failed")

const (
	cacheBytes    = 32 << 20
	memTableBytes = 16 << 20
	maxFiles      = 256
	keyBytes      = 8 // the number of the copy, before each key
)

// DB is a node's copies. Its methods may be called from many goroutines.
type DB struct {
	config Config
	lock   *pebble.Lock // of Config.Dir: one process at a time
	db     *pebble.DB
	using  sync.RWMutex // held for reading while db is used
	closed bool         // guarded by using
	broken atomic.Pointer[error]
	fell   chan struct{} // closed when broken is set
	used   atomic.Int64
	shots  shots
	mu     struct {
		sync.Mutex
		next   uint64
		copies map[hostcall.Namespace]*Copy
	}
}

// shots are those that are open.
type shots struct {
	sync.Mutex
	open map[*Shot]struct{}
}

// Open opens the database of c.Dir. If what is there is damaged, or of another format, it
// begins an empty one, and discarded says why. For want of room (ErrRoom), files, memory or
// rights it fails and leaves what is there: try again later. Two at once of one folder is an error.
func Open(c Config) (d *DB, discarded, err error) {
	if c.fs == nil {
		c.fs = vfs.Default
	}
	c.Bytes, c.Spare = cmp.Or(c.Bytes, 4<<30), cmp.Or(c.Spare, 256<<20)
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("replica: %w", err)
	}
	if c.free == nil {
		c.free = func() (int64, error) {
			var fs unix.Statfs_t
			err := unix.Statfs(c.Dir, &fs)
			return int64(fs.Bavail) * fs.Bsize, err
		}
	}
	if c.remove == nil {
		c.remove = os.RemoveAll
	}
	lock, err := pebble.LockDirectory(c.Dir, vfs.Default)
	if err != nil {
		return nil, nil, fmt.Errorf("replica: lock %s, which one process may have: %w", c.Dir, err)
	}
	d, discarded, err = c.begin(lock)
	if err != nil {
		return nil, discarded, errors.Join(fmt.Errorf("replica: open the copies in %s: %w", c.Dir, err), lock.Close())
	}
	return d, discarded, nil
}

// begin opens the database, or an empty one if that is damaged.
func (c Config) begin(lock *pebble.Lock) (d *DB, discarded, err error) {
	if err := c.sweep(); err != nil {
		return nil, nil, err
	}
	if err := c.leaves(c.Spare / 4); err != nil {
		return nil, nil, err
	}
	if d, err = open(c, lock); err == nil || ofTheSystem(err) {
		return d, nil, err
	}
	discarded = err
	if err := c.discard(); err != nil {
		return nil, discarded, err
	}
	d, err = open(c, lock)
	return d, discarded, err
}

// ofTheSystem reports whether an error says nothing of what is on disk: no room, too many
// files, no memory, no right to. That a file is not there is damage.
func ofTheSystem(err error) bool {
	var no syscall.Errno
	return errors.As(err, &no) && no != syscall.ENOENT
}

func data(c Config) string { return filepath.Join(c.Dir, "copies") }

// discard removes what is on disk. It goes out of the way whole first: of a database half of whose files
// are gone the rest may open, and have a position without what led to it.
func (c Config) discard() error {
	if err := c.sweep(); err != nil {
		return err
	}
	if err := os.Rename(data(c), gone(c)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	folder, err := vfs.Default.OpenDir(c.Dir)
	if err != nil {
		return err
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return err
	}
	return c.sweep()
}

// sweep removes what was discarded.
func (c Config) sweep() error { return c.remove(gone(c)) }

func gone(c Config) string { return data(c) + ".gone" }

func open(c Config, lock *pebble.Lock) (*DB, error) {
	d := &DB{config: c, lock: lock, fell: make(chan struct{})}
	d.mu.copies = map[hostcall.Namespace]*Copy{}
	cache := pebble.NewCache(cacheBytes)
	defer cache.Unref()
	on := &disk{FS: c.fs, fail: d.fail}
	opt := &pebble.Options{
		FS: on, Logger: on, Cache: cache, MemTableSize: memTableBytes, MaxOpenFiles: maxFiles,
		FormatMajorVersion: pebble.FormatValueSeparation,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) {
				if pebble.IsCorruptionError(err) {
					d.fail(err)
				}
			},
			DataCorruption: func(i pebble.DataCorruptionInfo) { d.fail(errors.New(i.String())) },
		},
	}
	for i := range opt.Levels {
		opt.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(data(c), opt)
	if err != nil {
		return nil, errors.Join(d.Why(), err)
	}
	d.db = db
	if err := cmp.Or(d.load(), d.Why()); err != nil {
		return nil, errors.Join(d.Why(), err, db.Close())
	}
	return d, nil
}

// load reads what copies there are.
func (d *DB) load() error {
	heads, err := d.db.NewIter(&pebble.IterOptions{LowerBound: headOf(""), UpperBound: binary.BigEndian.AppendUint64(nil, 1)})
	if err != nil {
		return err
	}
	defer heads.Close()
	for heads.First(); heads.Valid(); heads.Next() {
		value, err := heads.ValueAndErr()
		if err != nil {
			return err
		}
		if id, left := leftOf(value); left {
			d.mu.next = max(d.mu.next, id)
			if err := unload(d.db, heads.Key(), id); err != nil {
				return err
			}
			continue
		}
		h, err := decodeHead(value)
		if err != nil {
			return err
		}
		c := &Copy{db: d, name: h.name}
		c.mu.head = h
		d.mu.copies[h.name] = c
		d.mu.next = max(d.mu.next, h.id)
		d.used.Add(h.bytes)
	}
	return heads.Error()
}

// fail takes the database out of use.
func (d *DB) fail(err error) {
	if d.broken.CompareAndSwap(nil, &err) {
		close(d.fell)
	}
}

// Broken is closed when what is on disk turned out not to be what was written, or cannot
// be written. Nothing is answered from then on: Close it, which removes it, and open it
// again after a while. See Why.
func (d *DB) Broken() <-chan struct{} { return d.fell }

// Why is what Broken was closed for; nil if it is not.
func (d *DB) Why() error {
	if err := d.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends the use of the database, after the reads and writes under way. Copies
// answer nothing any more. One that is broken is removed; where that fails, what is left
// is as after a crash, and the next Open takes it, or finds the damage again.
func (d *DB) Close() error {
	d.using.Lock()
	defer d.using.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	err := errors.Join(d.shots.closeAll(), d.db.Close())
	if d.Why() != nil {
		err = d.config.discard() // what Close has to say of it is known
	}
	return errors.Join(err, d.lock.Close())
}

// use runs do while the database is open and sound; what do found or did counts for nothing if it fails meanwhile.
func (d *DB) use(do func(*pebble.DB) error) error {
	d.using.RLock()
	defer d.using.RUnlock()
	if d.closed || d.broken.Load() != nil {
		return errBroken
	}
	err := do(d.db)
	if err != nil && pebble.IsCorruptionError(err) {
		d.fail(err)
	}
	if err == nil && d.broken.Load() != nil {
		return errBroken
	}
	return err
}

// Copy returns the copy of a namespace; an empty one, at no position, if there is none yet.
func (d *DB) Copy(ns hostcall.Namespace) *Copy {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.mu.copies[ns]
	if c == nil {
		d.mu.next++
		c = &Copy{db: d, name: ns}
		c.mu.head = begin(ns, d.mu.next)
		d.mu.copies[ns] = c
	}
	return c
}

// Keep drops every copy but those.
func (d *DB) Keep(wanted map[hostcall.Namespace]bool) error {
	d.mu.Lock()
	var gone []*Copy
	for ns, c := range d.mu.copies {
		if !wanted[ns] {
			gone = append(gone, c)
		}
	}
	d.mu.Unlock()
	var faults []error
	for _, c := range gone {
		faults = append(faults, c.Drop())
	}
	return errors.Join(faults...)
}

// Bytes is what all copies have, as Config.Bytes counts.
func (d *DB) Bytes() int64 { return d.used.Load() }

// Fits says whether copies may grow by so many bytes; ErrRoom if not.
func (d *DB) Fits(more int64) error { return d.room(more) }

func (d *DB) room(more int64) error {
	if used := d.used.Load(); used+more > d.config.Bytes {
		return fmt.Errorf("%w: %d bytes and %d more, at most %d", ErrRoom, used, more, d.config.Bytes)
	}
	return d.config.leaves(d.config.Spare + 2*more)
}

// leaves reports whether so much of the disk is free.
func (c *Config) leaves(bytes int64) error {
	free, err := c.free()
	if err != nil {
		return fmt.Errorf("replica: look for the disk's room: %w", err)
	}
	if free < bytes {
		return fmt.Errorf("%w: %d bytes are free on the disk, %d are needed", ErrRoom, free, bytes)
	}
	return nil
}

var _ io.Closer = (*DB)(nil)
