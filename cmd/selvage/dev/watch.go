package dev

import (
	"context"
	"fmt"
	"hash/fnv"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Times of watching.
const (
	lookEvery = 120 * time.Millisecond
	settle    = 60 * time.Millisecond // without another change: an editor writes several files
	mostFiles = 20_000                // beyond, files are not looked at
)

// passed are folders that hold no source of the function.
var passed = []string{"node_modules", "target", "vendor.orig"}

// mark is a folder's state: names, sizes and times of its files. What the build itself
// writes (outputs, relative to dir) does not count.
func mark(dir string, outputs ...string) uint64 {
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

// Changed waits until dir's state is another than was and has settled, and returns
// it; or until ctx ends, with its error.
func Changed(ctx context.Context, dir string, was uint64, outputs ...string) (uint64, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		now := mark(dir, outputs...)
		for now != was {
			if err := pause(ctx, settle); err != nil {
				return was, err
			}
			again := mark(dir, outputs...)
			if again == now {
				return now, nil
			}
			now = again
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return was, ctx.Err()
		}
	}
}

// Mark is dir's state now; see Changed.
func Mark(dir string, outputs ...string) uint64 { return mark(dir, outputs...) }

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
