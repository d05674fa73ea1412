package dev

import (
	"context"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Times of watching.
const (
	lookEvery = 500 * time.Millisecond // where the kernel does not tell: a network's file system
	settle    = 25 * time.Millisecond  // without another change: an editor writes several files
	mostFiles = 20_000                 // beyond, files are not looked at
)

// passed are folders that hold no source of the function.
var passed = []string{"node_modules", "target", "vendor.orig"}

// mark is a folder's state: names, sizes and times of its files. What the build itself
// writes (outputs, relative to dir) does not count. Each folder is told to seen before it is read.
func mark(dir string, seen func(folder string), outputs ...string) uint64 {
	h := fnv.New64a()
	files := 0
	// What cannot be read now is looked at again the next time.
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return nil
		}
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains(passed, d.Name())) {
				return fs.SkipDir
			}
			seen(path)
			return nil
		}
		if files++; files > mostFiles {
			return fs.SkipAll
		}
		info, err := d.Info()
		if err == nil && !slices.Contains(outputs, rel) {
			fmt.Fprintf(h, "%q %d %d\n", rel, info.Size(), info.ModTime().UnixNano())
		}
		return nil
	})
	return h.Sum64()
}

// Watcher waits for changes of one folder.
type Watcher struct {
	dir    string
	events *os.File      // inotify; nil: look now and then only
	woken  chan struct{} // something has changed, perhaps something of no interest
	done   chan struct{} // closed when nobody reads events any more
}

// Watch begins to watch dir. Close it.
func Watch(dir string) *Watcher {
	w := &Watcher{dir: dir, woken: make(chan struct{}, 1), done: make(chan struct{})}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil { // too many of this user's: it goes on without
		close(w.done)
		return w
	}
	w.events = os.NewFile(uintptr(fd), "inotify")
	go w.read()
	return w
}

// read turns events into wakings until the watcher is closed.
func (w *Watcher) read() {
	defer close(w.done)
	var b [4096]byte
	for {
		if _, err := w.events.Read(b[:]); err != nil {
			return
		}
		select {
		case w.woken <- struct{}{}:
		default:
		}
	}
}

// Close stops watching.
func (w *Watcher) Close() error {
	if w.events == nil {
		return nil
	}
	err := w.events.Close()
	<-w.done
	return err
}

// Mark is the folder's state now: see Changed. Folders that it finds are watched from then on.
func (w *Watcher) Mark(outputs ...string) uint64 { return mark(w.dir, w.follow, outputs...) }

// follow watches one folder; one that cannot be is looked at now and then.
func (w *Watcher) follow(dir string) {
	if w.events == nil {
		return
	}
	c, err := w.events.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Control(func(fd uintptr) {
		_, _ = unix.InotifyAddWatch(int(fd), dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_MODIFY|unix.IN_MOVE|unix.IN_ATTRIB|unix.IN_CLOSE_WRITE|unix.IN_ONLYDIR)
	})
}

// Changed waits until the folder's state is another than was and has settled, and
// returns it; or until ctx ends, with its error.
func (w *Watcher) Changed(ctx context.Context, was uint64, outputs ...string) (uint64, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		now := w.Mark(outputs...)
		for now != was {
			if err := pause(ctx, settle); err != nil {
				return was, err
			}
			again := w.Mark(outputs...)
			if again == now {
				return now, nil
			}
			now = again
		}
		select {
		case <-w.woken:
		case <-tick.C:
		case <-ctx.Done():
			return was, ctx.Err()
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
