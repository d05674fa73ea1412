package dev

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/image"
)

// What was compiled is there at the next start, and only if it is what was compiled here.
func TestCompiledCodeIsKept(t *testing.T) {
	e, state := guesttest.Engine(t), filepath.Join(t.TempDir(), "dev")
	code, _, err := image.Split(guesttest.Guest(t, `(func (export "handle"))`))
	if err != nil {
		t.Fatal(err)
	}
	var first []byte
	get := func(want bool) {
		t.Helper()
		c, err := openCompiler(e, state)
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		a, kept, _, err := c.Artifact(t.Context(), function.DigestOf(code), code)
		if err != nil || kept != want || first != nil && !bytes.Equal(a, first) {
			t.Errorf("kept %t, want %t: %v", kept, want, err)
		}
		first = a
	}
	get(false)
	get(true)
	files, err := filepath.Glob(filepath.Join(state, "artifacts", "*.artifact"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	get(false)
	if err := os.Remove(filepath.Join(state, "artifacts.key")); err != nil {
		t.Fatal(err)
	}
	get(false)
	get(true)
	if err := os.WriteFile(filepath.Join(state, "artifacts.key"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openCompiler(e, state); err == nil {
		t.Error("a key of five bytes is taken")
	}
}
