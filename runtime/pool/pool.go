// Package pool brings a function version from verified bytes to instances that
// start, and shares what versions have in common.
//
// Code and images are held once per digest, however many functions use them, and
// given back when the last one goes. A version that is released serves on until
// its last invocation has ended.
package pool

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/image"
)

// Compiler makes code runnable: from its cache, or by compiling it.
type Compiler interface {
	// Artifact returns what Engine.Load takes; it has been authenticated.
	Artifact(ctx context.Context, digest function.Digest, code []byte) (artifact []byte, fromCache bool, took time.Duration, err error)
}

// Config says what a pool works with. Engine and Compiler must be set.
type Config struct {
	Engine   *engine.Engine
	Compiler Compiler
	// Computing is how many guests may compute at once; default GOMAXPROCS.
	Computing int
	// Linger is how long a released version can still be invoked, for requests
	// that had found it before; default 10 s.
	Linger time.Duration
	// MaxImageBytes bounds an image; default the platform's memory ceiling.
	MaxImageBytes uint64
}

// Pool loads function versions. It is safe for concurrent use.
type Pool struct {
	cfg    Config
	linker *engine.Linker
	runner *guest.Runner
	codes  shelf[*engine.Code]
	images shelf[*engine.Image]
	mu     struct {
		sync.Mutex
		functions map[*Function]struct{}
		closed    bool
	}
}

// Open links the imports guests may have. Close the pool before the engine.
func Open(cfg Config) (*Pool, error) {
	if cfg.Engine == nil || cfg.Compiler == nil {
		return nil, errors.New("pool: Config.Engine and Config.Compiler must be set")
	}
	cfg.Computing = or(cfg.Computing, runtime.GOMAXPROCS(0))
	cfg.Linger = or(cfg.Linger, 10*time.Second)
	cfg.MaxImageBytes = or(cfg.MaxImageBytes, uint64(function.Ceiling.MemoryBytes))
	linker, err := cfg.Engine.Link(guest.Imports())
	if err != nil {
		return nil, fmt.Errorf("pool: link: %w", err)
	}
	p := &Pool{cfg: cfg, linker: linker, runner: guest.NewRunner(cfg.Computing)}
	p.mu.functions = map[*Function]struct{}{}
	return p, nil
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Prepared tells what Prepare had to do.
type Prepared struct {
	CompileTime time.Duration // 0 if the code was already loaded
	FromCache   bool          // the code did not have to be compiled
}

// Prepare makes v ready to be invoked: code and image are its bytes, which the
// caller has checked against v.Code and v.Image. It may take as long as a compilation.
// Release the function when no route leads to it any more.
func (p *Pool) Prepare(ctx context.Context, v function.Version, code, img []byte) (*Function, Prepared, error) {
	f := &Function{pool: p, version: v}
	prepared, err := f.load(ctx, code, img)
	if err != nil {
		f.unload()
		return nil, prepared, fmt.Errorf("pool: prepare %s %s: %w", v.ID, v.Digest.Short(), err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		f.unload()
		return nil, prepared, errors.New("pool: closed")
	}
	f.users.Store(1)
	p.mu.functions[f] = struct{}{}
	return f, prepared, nil
}

// code compiles or finds the code v needs.
func (p *Pool) code(ctx context.Context, digest function.Digest, code []byte, out *Prepared) (*hold[*engine.Code], error) {
	out.FromCache = true // unless loading says otherwise
	return p.codes.take(ctx, digest, func(ctx context.Context) (*engine.Code, error) {
		artifact, cached, took, err := p.cfg.Compiler.Artifact(ctx, digest, code)
		out.FromCache, out.CompileTime = cached, took
		if err != nil {
			return nil, err
		}
		return p.cfg.Engine.Load(artifact)
	})
}

func (p *Pool) image(ctx context.Context, digest function.Digest, encoded []byte) (*hold[*engine.Image], error) {
	return p.images.take(ctx, digest, func(context.Context) (*engine.Image, error) {
		img, err := image.Decode(encoded, p.cfg.MaxImageBytes)
		if err != nil {
			return nil, err
		}
		return p.cfg.Engine.Image(img)
	})
}

// Close waits for the invocations under way and gives everything back. Later
// calls fail.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.mu.closed = true
	functions := p.mu.functions
	p.mu.functions = map[*Function]struct{}{}
	p.mu.Unlock()
	for f := range functions {
		f.retire()
		<-f.gone
	}
	p.runner.Close()
	p.linker.Close()
	return nil
}

// Stats are gauges of a pool.
type Stats struct {
	Functions int // loaded, those that linger included
	Codes     int // loaded
	Images    int // mapped
	Waiting   int // invocations that wait for a turn
	Long      int // those that wait for a turn among those that compute long
}

// Stats counts what is loaded.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	n := len(p.mu.functions)
	p.mu.Unlock()
	short, long := p.runner.Waiting()
	return Stats{Functions: n, Codes: p.codes.len(), Images: p.images.len(), Waiting: short, Long: long}
}

// ErrReleased says that a version was invoked after it was given up.
var ErrReleased = fault.New(fault.Internal, "this version was released; look the route up again", nil)
