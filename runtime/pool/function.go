package pool

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/snapshot"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// Function is one function version, ready to run. Code and image are loaded when
// it is invoked, and given up when it was not for long and others need the room.
type Function struct {
	pool    *Pool
	version function.Version
	parts   Parts
	now     atomic.Pointer[loaded] // nil: nothing is
	used    atomic.Uint64          // when it was last loaded or invoked: twice the loads of the pool until then, and 1 if invoked
	mu      struct {
		sync.Mutex
		coming *coming // nil: it is not being loaded
		failed failure
	}

	users   atomic.Int64 // invocations and loads under way, and one for the owner
	retired sync.Once
	gone    chan struct{} // closed when everything was given back
}

// Version is what the function was made from.
func (f *Function) Version() *function.Version { return &f.version }

// Invoke runs one invocation, which answers x. It fails with a *fault.Error: with
// fault.Shed if the function could not be loaded by x's StartBy.
func (f *Function) Invoke(ctx context.Context, ports guest.Ports, x guest.Exchange) (guest.Usage, error) {
	if !enter(&f.users) {
		return guest.Usage{}, ErrReleased
	}
	defer f.leave()
	l, err := f.take(ctx, x.StartBy())
	if err != nil {
		return guest.Usage{}, err
	}
	defer l.leave()
	return f.pool.runner.Run(ctx, l.program, &f.version, ports, x)
}

// Release says that no route leads here any more. Requests that had found the
// function before may still come for a while (Config.Linger); the code and the
// image go with the last of them. It does not wait.
func (f *Function) Release() { time.AfterFunc(f.pool.cfg.Linger, f.retire) }

// retire gives the owner's hold back, once.
func (f *Function) retire() { f.retired.Do(f.leave) }

func (f *Function) leave() {
	if f.users.Add(-1) > 0 {
		return
	}
	f.unload()
	f.pool.mu.Lock()
	delete(f.pool.mu.functions, f)
	f.pool.mu.Unlock()
	close(f.gone)
}

// make makes the function's program and starts one instance of it, so that what
// cannot be started is known before a guest runs.
func (f *Function) make(ctx context.Context, artifact []byte) (l *loaded, prepared Prepared, err error) {
	l = &loaded{}
	l.users.Store(1)
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.code, err = f.code(ctx, artifact, &prepared); err != nil {
		return l, prepared, err
	}
	if l.image, err = f.pool.image(ctx, f.version.Image, f.parts.Image); err != nil {
		return l, prepared, err
	}
	entries, err := f.entries(l.code.thing)
	if err != nil {
		return l, prepared, err
	}
	l.program, err = f.pool.cfg.Engine.Program(engine.ProgramConfig{
		Code: l.code.thing, Image: l.image.thing, Linker: f.pool.linker, Entries: entries,
		Environment: f.environment(), Args: snapshot.Args, Environ: f.environ(),
	})
	if err != nil {
		return l, prepared, err
	}
	return l, prepared, f.warm(l.program)
}

// code loads the artifact, or the one that is found or compiled if it is nil.
func (f *Function) code(ctx context.Context, artifact []byte, out *Prepared) (*hold[*engine.Code], error) {
	p := f.pool
	out.FromCache = true // unless loading says otherwise
	return p.codes.take(ctx, f.version.Code, func(ctx context.Context) (_ *engine.Code, err error) {
		if artifact == nil {
			artifact, out.FromCache, out.CompileTime, err = p.artifact(ctx, f.version.Code, f.parts.Code)
		}
		if err != nil {
			return nil, err
		}
		return p.cfg.Engine.Load(artifact)
	})
}

// entries are the exports an invocation calls, in order: start-up, unless the
// image was taken after it, and handle.
func (f *Function) entries(code *engine.Code) ([]string, error) {
	if !code.HasFunc(abi.ExportHandle) {
		return nil, fmt.Errorf("the module does not export the function %q", abi.ExportHandle)
	}
	var entries []string
	if !f.version.Started {
		entries = snapshot.Entries(code)
	}
	return append(entries, abi.ExportHandle), nil
}

// warm makes one instance and frees it, running none of the guest.
func (f *Function) warm(program *engine.Program) error {
	instance, err := program.Start(engine.StartConfig{MemoryLimit: f.version.Limits.WithDefaults().MemoryBytes})
	if err != nil {
		return err
	}
	instance.Close()
	return nil
}

// environment is the variables as the environment call gives them.
func (f *Function) environment() []byte {
	var pairs []native.Pair
	for _, name := range f.names() {
		pairs = append(pairs, native.Pair{Name: name, Value: f.version.Bindings.Variables[name]})
	}
	return native.AppendPairs(nil, pairs)
}

// environ is the variables as WASI gives them.
func (f *Function) environ() []string {
	var environ []string
	for _, name := range f.names() {
		environ = append(environ, name+"="+f.version.Bindings.Variables[name])
	}
	return environ
}

func (f *Function) names() []string {
	return slices.Sorted(maps.Keys(f.version.Bindings.Variables))
}

// unload gives back what is loaded, with its last invocation.
func (f *Function) unload() {
	if l := f.now.Swap(nil); l != nil {
		l.leave()
	}
}
