package dev

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestChanged(t *testing.T) {
	dir := t.TempDir()
	w := Watch(dir)
	defer w.Close()
	write(t, filepath.Join(dir, "main.go"), "one")
	was := w.Mark("out.wasm")
	for _, change := range []func(){
		func() { write(t, filepath.Join(dir, "main.go"), "other") },
		func() { write(t, filepath.Join(dir, "sub", "new.go"), "one") },
		func() { write(t, filepath.Join(dir, "sub", "new.go"), "other") }, // in a folder that came later
		func() { _ = os.Rename(filepath.Join(dir, "main.go"), filepath.Join(dir, "sub", "main.go")) },
		func() { _ = os.RemoveAll(filepath.Join(dir, "sub")) },
	} {
		change()
		now, err := w.Changed(t.Context(), was, "out.wasm")
		if err != nil || now == was {
			t.Fatalf("%x, %v", now, err)
		}
		was = now
	}
	// What the build writes, and hidden folders, are no changes.
	write(t, filepath.Join(dir, "out.wasm"), "built")
	write(t, filepath.Join(dir, ".selvage", "dev", "log"), "text")
	if now := w.Mark("out.wasm"); now != was {
		t.Error("what is passed over counts")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Changed(ctx, was, "out.wasm"); err == nil {
		t.Error("it found a change")
	}
}

// The kernel wakes it: nothing is looked at meanwhile.
func TestWoken(t *testing.T) {
	dir := t.TempDir()
	w := Watch(dir)
	defer w.Close()
	if w.events == nil {
		t.Skip("no inotify instance is left to this user")
	}
	w.Mark()
	write(t, filepath.Join(dir, "main.go"), "one")
	select {
	case <-w.woken:
	case <-time.After(time.Minute):
		t.Error("it was not told")
	}
}

func TestClosedWatcherEnds(t *testing.T) {
	w := Watch(t.TempDir())
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	<-w.done
}
