package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// One byte of one file of the store on disk is another, anywhere: what is read is what was written,
// or an error, or is not there; it is never something else.
func TestRottenStore(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 6
	}
	whole := filepath.Join(t.TempDir(), "whole")
	values, blobs := rotWrite(t, whole)
	var files []string
	if err := filepath.WalkDir(whole, func(path string, d fs.DirEntry, err error) error {
		if info, _ := d.Info(); err == nil && !d.IsDir() && info.Size() > 0 {
			rel, _ := filepath.Rel(whole, path)
			files = append(files, rel)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d, %d files", seed, len(files))
	r := rand.New(rand.NewPCG(seed, 1))
	count := map[string]int{}
	for round := range rounds {
		dir := filepath.Join(t.TempDir(), "store")
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		name := files[round%len(files)]
		at := rotByte(t, filepath.Join(dir, name), r)
		count[rotRead(t, dir, fmt.Sprintf("byte %d of %s", at, name), values, blobs)]++
		os.RemoveAll(dir)
	}
	t.Logf("%v", count)
	if rounds >= len(files) && count["whole"] == rounds { // a few of them may well not matter
		t.Error("nothing was hit")
	}
}

func rotByte(t *testing.T, path string, r *rand.Rand) int {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := r.IntN(len(b))
	b[at] ^= byte(1 + r.IntN(255))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return at
}

func rotWrite(t *testing.T, dir string) (values map[string]string, blobs []function.Digest) {
	s, err := Open(t.Context(), Config{Dir: dir, MaxBytes: 1 << 30, Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	values = map[string]string{}
	for i := range 20 {
		key := fmt.Sprint("k", i)
		values[key] = strings.Repeat(key+"=", 200)
		if _, err := s.KV().Put(t.Context(), links, key, []byte(values[key]), hostcall.PutOptions{IfRevision: hostcall.AnyRevision}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		d, err := s.PutBlobBytes(t.Context(), bytes.Repeat([]byte{byte(i), 1, 2}, 100_000))
		if err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, d)
	}
	return values, blobs
}

// rotRead opens the store and says how it is.
func rotRead(t *testing.T, dir, what string, values map[string]string, blobs []function.Digest) string {
	t.Helper()
	var said bytes.Buffer
	s, err := Open(t.Context(), Config{Dir: dir, MaxBytes: 1 << 30, Reserve: 1, patience: 500 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Logf("%s: %v", what, err)
		return "refused"
	}
	defer s.Close()
	lost, unsaid := 0, 0
	for key, want := range values {
		e, err := s.KV().Get(t.Context(), links, key)
		switch {
		case err != nil:
			lost++
			if !errors.Is(err, ErrCorrupt) {
				unsaid++
			}
		case string(e.Value) != want:
			t.Errorf("%s: %s is %.60q", what, key, e.Value)
		}
	}
	for _, d := range blobs {
		b, err := s.BlobBytes(t.Context(), d, 1<<20)
		switch {
		case err != nil:
			lost++ // who asks for it is told
		case function.DigestOf(b) != d:
			t.Errorf("%s: blob %s is another", what, d.Short())
		}
	}
	if unsaid > 0 && !strings.Contains(said.String(), "cannot be read") {
		t.Errorf("%s: %d values are gone, and nothing says so: %s", what, unsaid, said.String())
	}
	if lost > 0 {
		return "lost"
	}
	return "whole"
}
