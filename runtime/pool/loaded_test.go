package pool_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// keeper keeps what it compiled, as a node's disk does.
type keeper struct {
	compiler
	mu      sync.Mutex
	kept    map[function.Digest][]byte
	corrupt atomic.Bool
	full    atomic.Bool // it keeps nothing more
}

func (k *keeper) Has(d function.Digest) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept[d] != nil
}

func (k *keeper) Artifact(ctx context.Context, d function.Digest, code []byte) ([]byte, bool, time.Duration, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a := k.kept[d]; a != nil && !k.corrupt.Load() {
		return a, true, 0, nil
	}
	if function.DigestOf(code) != d {
		return nil, false, 0, errors.New("these bytes have another digest")
	}
	a, cached, took, err := k.compiler.Artifact(ctx, d, code)
	if !k.full.Load() {
		k.kept[d] = a
	}
	k.corrupt.Store(false)
	return a, cached, took, err
}

// forget is the loss of an artifact.
func (k *keeper) forget(d deployed) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.kept, d.version.Code)
}

func openBounded(t *testing.T, c pool.Config) (*pool.Pool, *keeper) {
	t.Helper()
	k := &keeper{compiler: compiler{engine: guesttest.Engine(t)}, kept: map[function.Digest][]byte{}}
	c.Engine, c.Compiler, c.Linger = k.engine, k, time.Millisecond
	p, err := pool.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if s := p.Stats(); s != (pool.Stats{}) {
			t.Errorf("left after Close: %+v", s)
		}
	})
	return p, k
}

// source counts how often the parts of a version are asked for.
type source struct {
	d             deployed
	codes, images atomic.Int32
	err           atomic.Pointer[error]
}

func (s *source) parts(known bool) pool.Parts {
	give := func(n *atomic.Int32, b []byte) func(context.Context) ([]byte, error) {
		return func(context.Context) ([]byte, error) {
			n.Add(1)
			if err := s.err.Load(); err != nil {
				return nil, *err
			}
			return b, nil
		}
	}
	return pool.Parts{Code: give(&s.codes, s.d.code), Image: give(&s.images, s.d.image), Known: known}
}

// sayings are versions with one code and an image each.
func sayings(t *testing.T, p *pool.Pool, n int) (list []*pool.Function) {
	t.Helper()
	for i := range n {
		f, _ := prepare(t, p, says(t, fmt.Sprintf("%03d", i)))
		list = append(list, f)
	}
	return list
}

// Of many functions those that were not invoked for longest give up what they have
// loaded, but for those that are in use, and have it again when they are invoked.
func TestColdFunctionsAreGivenUp(t *testing.T) {
	const n, fit = 12, 4
	p, _ := openBounded(t, pool.Config{LoadedMaps: 3 + fit}) // the code's, and an image each
	list := sayings(t, p, n)
	within := func(when string) {
		t.Helper()
		if s := p.Stats(); s.Functions != n || s.Loaded > fit || s.Images != s.Loaded || s.Codes != 1 {
			t.Errorf("%s: %+v", when, s)
		}
	}
	within("prepared")
	g := &gate{entered: make(chan struct{}), leave: make(chan struct{})}
	done := make(chan error)
	go func() {
		_, err := list[0].Invoke(t.Context(), guest.Ports{}, g)
		done <- err
	}()
	<-g.entered
	for range 3 {
		for i, f := range list {
			if got := invoke(t, f); got != fmt.Sprintf("%03d", i) {
				t.Errorf("function %d answers %q", i, got)
			}
			within("invoked")
		}
	}
	close(g.leave)
	if err := <-done; err != nil || string(g.out) != "000" {
		t.Errorf("the one in use: %q, %v", g.out, err)
	}
	loads, evictions := p.Churn()
	if loads != n+3*(n-1)+1 || evictions != loads-fit { // the first one was in use all the time
		t.Errorf("%d loads, %d evictions", loads, evictions)
	}
}

func TestTheLongestUnusedGoesFirst(t *testing.T) {
	p, _ := openBounded(t, pool.Config{LoadedMaps: 3 + 2})
	list := sayings(t, p, 2)
	invoke(t, list[0])
	f, _ := prepare(t, p, says(t, "new"))
	before, _ := p.Churn()
	invoke(t, list[0])
	invoke(t, f)
	if after, _ := p.Churn(); after != before {
		t.Error("one that was used later went first")
	}
	invoke(t, list[1])
	if after, _ := p.Churn(); after != before+1 {
		t.Errorf("%d loads for the one that had to go", after-before)
	}
}

func TestBytesAreBounded(t *testing.T) {
	p, k := openBounded(t, pool.Config{LoadedBytes: 1})
	list := sayings(t, p, 3) // each is more than may be loaded: the last one stays all the same
	for i, f := range list {
		if got := invoke(t, f); got != fmt.Sprintf("%03d", i) {
			t.Errorf("got %q", got)
		}
		if s := p.Stats(); s.Loaded != 1 || s.Bytes <= 1 {
			t.Errorf("%+v", s)
		}
	}
	if n := k.calls.Load(); n != 1 {
		t.Errorf("compiled %d times", n)
	}
}

// A version that the node knows is loaded by its first invocation, once however
// many come at the same time, and its code is compiled again only if it must be.
func TestKnownVersionIsLoadedWhenInvoked(t *testing.T) {
	p, k := openBounded(t, pool.Config{})
	s := &source{d: says(t, "one")}
	f, prepared, err := p.Prepare(t.Context(), s.d.version, s.parts(true)) // known, but its code is not there
	if err != nil || prepared.FromCache || p.Stats().Loaded != 1 {
		t.Fatalf("%+v, %v, %+v", prepared, err, p.Stats())
	}
	f.Release()
	until(t, func() bool { return p.Stats() == pool.Stats{} })

	f, prepared, err = p.Prepare(t.Context(), s.d.version, s.parts(true))
	if got := p.Stats(); err != nil || !prepared.FromCache || got != (pool.Stats{Functions: 1}) || s.images.Load() != 1 {
		t.Fatalf("%+v, %v, %+v, %d images", prepared, err, got, s.images.Load())
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if got := invoke(t, f); got != "one" {
				t.Errorf("got %q", got)
			}
		})
	}
	all.Wait()
	if loads, _ := p.Churn(); loads != 2 || s.codes.Load() != 1 || s.images.Load() != 2 {
		t.Errorf("%d loads, %d codes and %d images asked for", loads, s.codes.Load(), s.images.Load())
	}
	f.Release()
	until(t, func() bool { return p.Stats() == pool.Stats{} })

	f, _, err = p.Prepare(t.Context(), s.d.version, s.parts(true))
	if err != nil {
		t.Fatal(err)
	}
	k.corrupt.Store(true)
	if got := invoke(t, f); got != "one" || s.codes.Load() != 2 || k.calls.Load() != 2 {
		t.Errorf("with a corrupt artifact: %q, %d codes asked for, %d compilations", got, s.codes.Load(), k.calls.Load())
	}
}

func TestLoadingFailsAndIsTriedAgain(t *testing.T) {
	p, k := openBounded(t, pool.Config{Retry: 1})
	s := &source{d: says(t, "one")}
	if _, _, _, err := k.Artifact(t.Context(), s.d.version.Code, s.d.code); err != nil {
		t.Fatal(err)
	}
	f, _, err := p.Prepare(t.Context(), s.d.version, s.parts(true))
	if err != nil {
		t.Fatal(err)
	}
	bad := errors.New("the disk is gone")
	s.err.Store(&bad)
	if _, err := f.Invoke(t.Context(), guest.Ports{}, &exchange{}); !errors.Is(err, bad) || fault.Of(err).Kind != fault.Internal {
		t.Errorf("got %v", err)
	}
	s.err.Store(nil)
	until(t, func() bool { _, err := f.Invoke(t.Context(), guest.Ports{}, &exchange{}); return err == nil })
	gone, stop := context.WithCancel(t.Context())
	stop()
	f.Release()
	until(t, func() bool { return p.Stats() == pool.Stats{} })
	if f, _, err = p.Prepare(t.Context(), s.d.version, s.parts(true)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Invoke(gone, guest.Ports{}, &exchange{}); fault.Of(err).Kind != fault.Canceled {
		t.Errorf("for nobody: %v", err)
	}
}

// Loads, evictions, invocations and releases at once.
func TestFunctionsComeAndGoUnderAPressedBudget(t *testing.T) {
	p, _ := openBounded(t, pool.Config{LoadedMaps: 3 + 8})
	list := sayings(t, p, 24)
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := range 300 {
				n := (i*7 + w*5) % len(list)
				if got := invoke(t, list[n]); got != fmt.Sprintf("%03d", n) {
					t.Errorf("function %d answers %q", n, got)
					return
				}
			}
		})
	}
	all.Wait()
	if s := p.Stats(); s.Loaded > 8 {
		t.Errorf("%+v", s)
	}
}
