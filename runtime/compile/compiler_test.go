package compile

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/selvage-edge/selvage/runtime/artifact"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/jail"
	wasm "github.com/selvage-edge/selvage/runtime/scan/scantest"
)

var (
	code   = wasm.Handle()
	digest = function.DigestOf(code)
)

// notices gathers what a Compiler tells.
type notices struct {
	sync.Mutex
	all []error
}

func (n *notices) add(err error) {
	n.Lock()
	defer n.Unlock()
	n.all = append(n.all, err)
}

func (n *notices) has(want error) bool {
	n.Lock()
	defer n.Unlock()
	return len(n.all) == 1 && errors.Is(n.all[0], want)
}

func newCompiler(t *testing.T, r jail.Runner, s *artifact.Store) (*Compiler, *notices) {
	t.Helper()
	n := &notices{}
	k := NewCompiler(CompilerConfig{Runner: r, Store: s, Fingerprint: guesttest.Engine(t).Fingerprint(), Notice: n.add})
	t.Cleanup(func() { k.Close() })
	return k, n
}

func TestSameCodeIsCompiledOnce(t *testing.T) {
	r := openJail(t, jail.Config{})
	k, _ := newCompiler(t, r, openStore(t, nil))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if b, _, _, err := k.Artifact(t.Context(), digest, code); err != nil || len(b) == 0 {
				t.Errorf("%d bytes, %v", len(b), err)
			}
		})
	}
	all.Wait()
	if n := r.runs.Load(); n != 1 {
		t.Errorf("%d helpers were run", n)
	}
}

func TestCorruptArtifactIsCompiledAgain(t *testing.T) {
	r, dir := openJail(t, jail.Config{}), t.TempDir()
	k, told := newCompiler(t, r, openStore(t, func(c *artifact.Config) { c.Dir = dir }))
	first, _, _, err := k.Artifact(t.Context(), digest, code)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.artifact"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	again, fromCache, _, err := k.Artifact(t.Context(), digest, code)
	if err != nil || fromCache || !bytes.Equal(first, again) {
		t.Errorf("from cache %t, %d bytes, %v", fromCache, len(again), err)
	}
	if !told.has(artifact.ErrCorrupt) {
		t.Errorf("told %v", told.all)
	}
	if _, fromCache, _, err = k.Artifact(t.Context(), digest, code); err != nil || !fromCache || r.runs.Load() != 2 {
		t.Errorf("the new one was not kept: %v, %d helpers", err, r.runs.Load())
	}
}

// A store that takes nothing does not stop a function from running.
func TestFullStore(t *testing.T) {
	k, told := newCompiler(t, openJail(t, jail.Config{}), openStore(t, func(c *artifact.Config) { c.MaxBytes = 1000 }))
	if b, _, _, err := k.Artifact(t.Context(), digest, code); err != nil || len(b) == 0 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if !told.has(artifact.ErrTooLarge) {
		t.Errorf("told %v", told.all)
	}
}

func TestCompilerRefuses(t *testing.T) {
	r := openJail(t, jail.Config{})
	k, _ := newCompiler(t, r, openStore(t, nil))
	if _, _, _, err := k.Artifact(t.Context(), digest, append(code, 0)); err == nil || !strings.Contains(err.Error(), "another digest") {
		t.Errorf("other bytes: %v", err)
	}
	if r.runs.Load() != 0 {
		t.Error("they were compiled")
	}
	bad := wasm.Handle(0x6a)
	var no *jail.Refused
	if _, _, _, err := k.Artifact(t.Context(), function.DigestOf(bad), bad); !errors.As(err, &no) {
		t.Errorf("invalid code: %v", err)
	}
	k.config.Fingerprint = "another engine"
	if _, _, _, err := k.Artifact(t.Context(), digest, code); err == nil || !strings.Contains(err.Error(), "another engine") {
		t.Errorf("another engine's artifact: %v", err)
	}
	k.Close()
	if _, _, _, err := k.Artifact(t.Context(), digest, code); err == nil {
		t.Error("a closed compiler took work")
	}
}

// held is a runner that lets nothing through until it is told to.
type held struct {
	jail.Runner
	begun, release chan struct{}
}

func (h held) Run(ctx context.Context, v jail.Verb, in []byte) (jail.Result, error) {
	h.begun <- struct{}{}
	select {
	case <-h.release:
		return h.Runner.Run(ctx, v, in)
	case <-ctx.Done():
		return jail.Result{}, ctx.Err()
	}
}

// Whoever gives up waiting does not take the work away from the others.
func TestGivingUpDoesNotStopTheWork(t *testing.T) {
	h := held{openJail(t, jail.Config{}), make(chan struct{}, 1), make(chan struct{})}
	k, _ := newCompiler(t, h, openStore(t, nil))
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, _, _, err := k.Artifact(ctx, digest, code)
		gone <- err
	}()
	<-h.begun
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	close(h.release)
	if b, _, _, err := k.Artifact(t.Context(), digest, code); err != nil || len(b) == 0 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestCloseStopsTheWork(t *testing.T) {
	h := held{openJail(t, jail.Config{}), make(chan struct{}, 1), make(chan struct{})}
	k, _ := newCompiler(t, h, openStore(t, nil))
	gone := make(chan error, 1)
	go func() {
		_, _, _, err := k.Artifact(context.WithoutCancel(t.Context()), digest, code)
		gone <- err
	}()
	<-h.begun
	k.Close()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}

func TestWireRoundTrip(t *testing.T) {
	p := Prepared{Code: []byte("code"), Image: []byte("image"), Started: true}
	p.Report.Snapshot.Why = "why"
	got, err := decodePrepared(p.encode())
	if err != nil || string(got.Code) != "code" || string(got.Image) != "image" || !got.Started || got.Report.Snapshot.Why != "why" {
		t.Errorf("%+v, %v", got, err)
	}
	f, a, err := decodeCompiled(encodeCompiled("print", []byte("artifact")))
	if err != nil || f != "print" || string(a) != "artifact" {
		t.Errorf("%s %s %v", f, a, err)
	}
}

func FuzzDecode(f *testing.F) {
	p := Prepared{Code: []byte("code"), Image: []byte("image"), Started: true}
	f.Add(p.encode())
	f.Add(encodeCompiled("print", []byte("artifact")))
	f.Add([]byte(preparedMark + "\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := decodePrepared(b); err == nil && len(p.Code)+len(p.Image) > len(b) {
			t.Errorf("%x grew", b)
		}
		if print, a, err := decodeCompiled(b); err == nil && !bytes.Equal(encodeCompiled(print, a), b) {
			t.Errorf("%x was taken", b)
		}
	})
}
