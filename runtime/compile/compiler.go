package compile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/artifact"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/jail"
)

// CompilerConfig says what a Compiler works with.
type CompilerConfig struct {
	Runner      jail.Runner
	Store       *artifact.Store
	Fingerprint string      // the engine's that will load the artifacts
	Notice      func(error) // told of what went wrong without stopping the work: a corrupt file, a full disk; may be nil
}

// Compiler gives artifacts for code: from the store, or else by compiling it in
// a helper. It is safe for use by many; the same code is compiled once at a time.
type Compiler struct {
	config  CompilerConfig
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
	mu      struct {
		sync.Mutex
		flights map[function.Digest]*flight
		closed  bool
	}
}

// flight is one search or compilation, and what it gave to all who wait for it.
type flight struct {
	done      chan struct{} // closed when the rest is there
	artifact  []byte
	fromCache bool
	took      time.Duration
	err       error
}

// NewCompiler returns a Compiler. Close it before its Runner and Store.
func NewCompiler(c CompilerConfig) *Compiler {
	if c.Notice == nil {
		c.Notice = func(error) {}
	}
	k := &Compiler{config: c}
	k.ctx, k.stop = context.WithCancel(context.Background())
	k.mu.flights = map[function.Digest]*flight{}
	return k
}

// Close gives up what is being compiled and waits for it.
func (k *Compiler) Close() error {
	k.mu.Lock()
	k.mu.closed = true
	k.mu.Unlock()
	k.stop()
	k.running.Wait()
	return nil
}

// Artifact returns the artifact of code. The bytes are authentic, and shared: do
// not write to them. took is how long it took to find or to compile. The work
// goes on, and is kept, when whoever waits for it gives up. Errors to test for
// are jail's: a *jail.Refused, ErrTime and ErrMemory are the code's fault.
func (k *Compiler) Artifact(ctx context.Context, digest function.Digest, code []byte) (b []byte, fromCache bool, took time.Duration, err error) {
	f, err := k.join(digest, code)
	if err != nil {
		return nil, false, 0, err
	}
	select {
	case <-f.done:
		return f.artifact, f.fromCache, f.took, f.err
	case <-ctx.Done():
		return nil, false, 0, context.Cause(ctx)
	}
}

// Has reports whether the store has the artifact of code, so that Artifact gives
// it without the code's bytes; unless it turns out to be corrupt.
func (k *Compiler) Has(code function.Digest) bool {
	return k.config.Store.Has(code, k.config.Fingerprint)
}

// join returns the flight for that code, starting it if there is none.
func (k *Compiler) join(digest function.Digest, code []byte) (*flight, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.closed {
		return nil, errors.New("compile: closed")
	}
	if f, ok := k.mu.flights[digest]; ok {
		return f, nil
	}
	f := &flight{done: make(chan struct{})}
	k.mu.flights[digest] = f
	k.running.Go(func() {
		k.find(f, digest, code)
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.mu.flights, digest)
		close(f.done)
	})
	return f, nil
}

func (k *Compiler) find(f *flight, digest function.Digest, code []byte) {
	began := time.Now()
	defer func() { f.took = time.Since(began) }()
	f.artifact, f.err = k.config.Store.Get(digest, k.config.Fingerprint)
	if f.err == nil {
		f.fromCache = true
		return
	}
	if !errors.Is(f.err, artifact.ErrNotFound) {
		k.config.Notice(f.err)
	}
	if f.artifact, f.err = k.compile(digest, code); f.err != nil {
		f.err = fmt.Errorf("compile code %s: %w", digest.Short(), f.err)
	}
}

func (k *Compiler) compile(digest function.Digest, code []byte) ([]byte, error) {
	if function.DigestOf(code) != digest {
		return nil, errors.New("these bytes have another digest")
	}
	res, err := k.config.Runner.Run(k.ctx, jail.Compile, code)
	if err != nil {
		return nil, err
	}
	fingerprint, b, err := decodeCompiled(res.Output)
	if err != nil {
		return nil, err
	}
	if fingerprint != k.config.Fingerprint {
		return nil, errors.New("the helper has another engine than the one that runs here: the program was replaced; restart it")
	}
	if err := k.config.Store.Put(digest, fingerprint, b); err != nil {
		k.config.Notice(err) // it runs all the same; after a restart it is compiled again
	}
	return b, nil
}
