package dev

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/selvage-edge/selvage/runtime/artifact"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
)

// keptBytes bounds compiled code on a developer's disk: some twenty versions of a Go program.
const keptBytes = 512 << 20

// compiler compiles in this process: the module is the developer's own. What it compiled
// it keeps, so that a start, or a save that takes a change back, compiles nothing.
type compiler struct {
	engine *engine.Engine
	kept   *artifact.Store
}

func openCompiler(e *engine.Engine, state string) (*compiler, error) {
	key, err := keptKey(state)
	if err != nil {
		return nil, err
	}
	kept, err := artifact.Open(artifact.Config{Dir: filepath.Join(state, "artifacts"), Key: key, MaxBytes: keptBytes})
	if err != nil {
		return nil, err
	}
	return &compiler{e, kept}, nil
}

// keptKey is the folder's own: it only keeps apart what this machine compiled from what
// was copied here, as by who shares a folder that was served in.
func keptKey(state string) (key artifact.Key, err error) {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return key, err
	}
	name := filepath.Join(state, "artifacts.key")
	b, err := os.ReadFile(name)
	switch {
	case err == nil && len(b) == len(key):
		return artifact.Key(b), nil
	case err == nil:
		return key, fmt.Errorf("%s has %d bytes, want %d: remove it", name, len(b), len(key))
	case !errors.Is(err, fs.ErrNotExist):
		return key, err
	}
	_, _ = rand.Read(key[:]) // never fails
	return key, os.WriteFile(name, key[:], 0o600)
}

// Artifact implements pool.Compiler.
func (c *compiler) Artifact(_ context.Context, digest function.Digest, code []byte) ([]byte, bool, time.Duration, error) {
	if a, err := c.kept.Get(digest, c.engine.Fingerprint()); err == nil {
		return a, true, 0, nil
	}
	begin := time.Now()
	a, err := c.engine.Compile(code)
	took := time.Since(begin)
	if err == nil {
		_ = c.kept.Put(digest, c.engine.Fingerprint(), a) // a full disk costs the next start its time
	}
	return a, false, took, err
}

func (c *compiler) close() error { return c.kept.Close() }
