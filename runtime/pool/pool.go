// Package pool brings a function version from verified bytes to instances that
// start, and shares what versions have in common.
//
// Code and images are held once per digest, however many functions use them, and
// given back when the last one goes. A version that is released serves on until
// its last invocation has ended.
//
// What is loaded is bounded, in bytes and in memory maps: functions that were not
// invoked for longest give theirs up, and load it again when they are.
package pool

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

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

// Keeper is a Compiler that knows what it kept.
type Keeper interface {
	// Has reports whether Artifact would find the artifact of that code; it may be
	// mistaken. Artifact then needs no code, and fails if it was.
	Has(digest function.Digest) bool
}

// Config says what a pool works with. Engine and Compiler must be set.
type Config struct {
	Engine   *engine.Engine
	Compiler Compiler
	// Computing is how many guests may compute long at once, and half of how many may
	// compute at all; default GOMAXPROCS.
	Computing int
	// Linger is how long a released version can still be invoked, for requests
	// that had found it before; default 10 s.
	Linger time.Duration
	// MaxImageBytes bounds an image; default the platform's memory ceiling.
	MaxImageBytes uint64
	// LoadedBytes is how much memory loaded codes and images may take; default 2 GiB.
	LoadedBytes int64
	// LoadedMaps is how many memory maps they may take; default 16,384. At most a
	// quarter of those that the engine may have, and half of the process's
	// descriptors: an image takes one of each.
	LoadedMaps int
	// Retry is how long after a load that failed a function is not loaded again, and
	// who invokes it has the same error; twice as long after each that fails next, 64
	// times at most. Default 100 ms.
	Retry time.Duration
}

// Pool loads function versions. It is safe for concurrent use.
type Pool struct {
	cfg    Config
	linker *engine.Linker
	runner *guest.Runner
	codes  shelf[*engine.Code]
	images shelf[*engine.Image]

	ctx     context.Context // of loads that invocations began
	stop    context.CancelFunc
	room    chan struct{} // for loads at once, of which each has an artifact in memory
	errands *errands
	recalls sync.WaitGroup
	loads   atomic.Uint64
	evicted atomic.Uint64
	fitting sync.Mutex // one at a time makes room

	mu struct {
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
	cfg.Retry = or(cfg.Retry, 100*time.Millisecond)
	cfg.MaxImageBytes = or(cfg.MaxImageBytes, uint64(function.Ceiling.MemoryBytes))
	cfg.LoadedBytes = or(cfg.LoadedBytes, 2<<30)
	cfg.LoadedMaps = min(or(cfg.LoadedMaps, 16<<10), affordable(cfg.Engine))
	linker, err := cfg.Engine.Link(guest.Imports())
	if err != nil {
		return nil, fmt.Errorf("pool: link: %w", err)
	}
	p := &Pool{cfg: cfg, linker: linker, runner: guest.NewRunner(2*cfg.Computing, cfg.Computing), room: make(chan struct{}, maxLoads), errands: newErrands()}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.mu.functions = map[*Function]struct{}{}
	return p, nil
}

// maxLoads is how many functions are loaded at once because they were invoked.
const maxLoads = 4

// affordable is how many memory maps, or files, may be taken by what is loaded.
func affordable(e *engine.Engine) int {
	most := int(e.Stats().MaxMaps) / 4
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil && files.Cur < 1<<30 {
		most = min(most, int(files.Cur)/2)
	}
	return max(most, 16)
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

// Parts is where a version's bytes come from. Both are asked for whenever the
// part is loaded, until the function is released, and give bytes that were
// checked against the version's digests.
type Parts struct {
	Code, Image func(context.Context) ([]byte, error)
	// Here reports whether Image gives the bytes without asking anybody else for them;
	// nil: it always does. If it does not, Fetch has them come, so that it does: not into memory.
	Here  func() bool
	Fetch func(context.Context) error
	// Known says that the version was made ready on this node before. If its code was
	// compiled then, it is loaded by its first invocation and not by Prepare.
	Known bool
}

// Bytes are the parts of a version that are in memory already, and stay there.
func Bytes(code, img []byte) Parts {
	give := func(b []byte) func(context.Context) ([]byte, error) {
		return func(context.Context) ([]byte, error) { return b, nil }
	}
	return Parts{Code: give(code), Image: give(img)}
}

// Prepare makes v ready to be invoked. It may take as long as a compilation.
// Release the function when no route leads to it any more.
func (p *Pool) Prepare(ctx context.Context, v function.Version, parts Parts) (*Function, Prepared, error) {
	f := &Function{pool: p, version: v, parts: parts, gone: make(chan struct{})}
	prepared := Prepared{FromCache: true}
	if !parts.Known || !p.has(v.Code) {
		var err error
		if prepared, err = f.load(ctx, nil); err != nil {
			return nil, prepared, fmt.Errorf("pool: prepare %s %s: %w", v.ID, v.Digest.Short(), err)
		}
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

// has reports whether the compiler kept the artifact of that code.
func (p *Pool) has(digest function.Digest) bool {
	k, ok := p.cfg.Compiler.(Keeper)
	return ok && k.Has(digest)
}

// artifact finds the artifact of that code without its bytes, or else compiles them.
func (p *Pool) artifact(ctx context.Context, digest function.Digest, bytes func(context.Context) ([]byte, error)) (artifact []byte, cached bool, took time.Duration, err error) {
	if p.has(digest) {
		if artifact, cached, took, err = p.cfg.Compiler.Artifact(ctx, digest, nil); err == nil {
			return artifact, cached, took, nil
		}
	}
	code, err := bytes(ctx)
	if err != nil {
		return nil, false, 0, err
	}
	return p.cfg.Compiler.Artifact(ctx, digest, code)
}

func (p *Pool) image(ctx context.Context, digest function.Digest, bytes func(context.Context) ([]byte, error)) (*hold[*engine.Image], error) {
	return p.images.take(ctx, digest, func(ctx context.Context) (*engine.Image, error) {
		encoded, err := bytes(ctx)
		if err != nil {
			return nil, err
		}
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
	p.stop()
	for f := range functions {
		f.retire()
		<-f.gone
	}
	p.recalls.Wait()
	p.runner.Close()
	p.linker.Close()
	return nil
}

// Stats are gauges of a pool.
type Stats struct {
	Functions int   // that can be invoked, those that linger included
	Loaded    int   // of these, whose code and image are
	Codes     int   // loaded
	Images    int   // mapped
	Bytes     int64 // of codes and images
	Waiting   int   // invocations that wait for a turn
	Long      int   // those that wait for a turn among those that compute long
}

// Churn is how many functions were loaded since the pool was opened, and how
// many gave that up for others.
func (p *Pool) Churn() (loads, evictions uint64) { return p.loads.Load(), p.evicted.Load() }

// Stats counts what is loaded.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	s := Stats{Functions: len(p.mu.functions)}
	for f := range p.mu.functions {
		if f.now.Load() != nil {
			s.Loaded++
		}
	}
	p.mu.Unlock()
	var code, image int64
	s.Codes, code = p.codes.size()
	s.Images, image = p.images.size()
	s.Bytes = code + image
	s.Waiting, s.Long = p.runner.Waiting()
	return s
}

// ErrReleased says that a version was invoked after it was given up.
var ErrReleased = fault.New(fault.Internal, "this version was released; look the route up again", nil)
