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

// Function is one function version, ready to run.
type Function struct {
	pool    *Pool
	version function.Version
	code    *hold[*engine.Code]
	image   *hold[*engine.Image]
	program *engine.Program

	users   atomic.Int64 // invocations under way, and one for the owner
	retired sync.Once
	gone    chan struct{} // closed when everything was given back
}

// Version is what the function was made from.
func (f *Function) Version() *function.Version { return &f.version }

// Invoke runs one invocation, which answers x. It fails with a *fault.Error.
func (f *Function) Invoke(ctx context.Context, ports guest.Ports, x guest.Exchange) (guest.Usage, error) {
	if !f.enter() {
		return guest.Usage{}, ErrReleased
	}
	defer f.leave()
	return f.pool.runner.Run(ctx, f.program, &f.version, ports, x)
}

// Release says that no route leads here any more. Requests that had found the
// function before may still come for a while (Config.Linger); the code and the
// image go with the last of them. It does not wait.
func (f *Function) Release() { time.AfterFunc(f.pool.cfg.Linger, f.retire) }

// retire gives the owner's hold back, once.
func (f *Function) retire() { f.retired.Do(f.leave) }

// enter counts an invocation in, unless everything has been given back.
func (f *Function) enter() bool {
	for n := f.users.Load(); n > 0; n = f.users.Load() {
		if f.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

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

// load makes the function's program and starts one instance of it, so that what
// cannot be started is known here and not by the first request.
func (f *Function) load(ctx context.Context, code, img []byte) (prepared Prepared, err error) {
	f.gone = make(chan struct{})
	if f.code, err = f.pool.code(ctx, f.version.Code, code, &prepared); err != nil {
		return prepared, err
	}
	if f.image, err = f.pool.image(ctx, f.version.Image, img); err != nil {
		return prepared, err
	}
	entries, err := f.entries()
	if err != nil {
		return prepared, err
	}
	f.program, err = f.pool.cfg.Engine.Program(engine.ProgramConfig{
		Code: f.code.thing, Image: f.image.thing, Linker: f.pool.linker, Entries: entries,
		Environment: f.environment(), Args: snapshot.Args, Environ: f.environ(),
	})
	if err != nil {
		return prepared, err
	}
	return prepared, f.warm()
}

// entries are the exports an invocation calls, in order: start-up, unless the
// image was taken after it, and handle.
func (f *Function) entries() ([]string, error) {
	if !f.code.thing.HasFunc(abi.ExportHandle) {
		return nil, fmt.Errorf("the module does not export the function %q", abi.ExportHandle)
	}
	var entries []string
	if !f.version.Started {
		entries = snapshot.Entries(f.code.thing)
	}
	return append(entries, abi.ExportHandle), nil
}

// warm makes one instance and frees it, running none of the guest.
func (f *Function) warm() error {
	instance, err := f.program.Start(engine.StartConfig{MemoryLimit: f.version.Limits.WithDefaults().MemoryBytes})
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

// unload gives back what load got.
func (f *Function) unload() {
	if f.program != nil {
		f.program.Close()
	}
	if f.image != nil {
		f.image.release()
	}
	if f.code != nil {
		f.code.release()
	}
}
