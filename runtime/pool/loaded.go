package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/fault"
)

// loaded is what a function has while it can be started. It goes when the
// function gives it up and its last invocation has ended.
type loaded struct {
	code    *hold[*engine.Code]
	image   *hold[*engine.Image]
	program *engine.Program
	users   atomic.Int64 // the function, and each invocation
}

// enter counts a user in, unless there is none left.
func enter(users *atomic.Int64) bool {
	for n := users.Load(); n > 0; n = users.Load() {
		if users.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

func (l *loaded) leave() {
	if l.users.Add(-1) == 0 {
		l.close()
	}
}

// close gives back what there is of it.
func (l *loaded) close() {
	if l.program != nil {
		l.program.Close()
	}
	if l.image != nil {
		l.image.release()
	}
	if l.code != nil {
		l.code.release()
	}
}

// current is what the function has loaded, one user more; nil if it has nothing.
func (f *Function) current() *loaded {
	l := f.now.Load()
	if l == nil || !enter(&l.users) {
		return nil
	}
	if now := 2*f.pool.loads.Load() + 1; f.used.Load() != now { // a store for each invocation would cost others' caches
		f.used.Store(now)
	}
	return l
}

// coming is a load under way.
type coming struct {
	done chan struct{} // closed once err is set
	err  error
}

// mostRecalls is how often an invocation has its function loaded that others' then push out at once.
const mostRecalls = 8

// errThrashing: raise what may be loaded.
var errThrashing = errors.New("what was loaded was given up for other functions at once: raise limits.loaded_bytes or limits.loaded_maps")

// take returns what the function has loaded, one user more. It loads it if need be,
// and waits for that until then at most: zero is no such bound.
func (f *Function) take(ctx context.Context, by time.Time) (*loaded, error) {
	for range mostRecalls {
		if l := f.current(); l != nil {
			return l, nil
		}
		if err := f.await(ctx, f.recall(), by); err != nil {
			return nil, err
		}
	}
	return nil, fault.New(fault.Capacity, "", errThrashing)
}

// await waits for a load. It fails with a *fault.Error.
func (f *Function) await(ctx context.Context, c *coming, by time.Time) error {
	var late <-chan time.Time
	if !by.IsZero() {
		timer := time.NewTimer(time.Until(by))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return fault.New(fault.Canceled, "", context.Cause(ctx))
	case <-late:
		limits := f.version.Limits.WithDefaults()
		return &fault.Error{Kind: fault.Shed, Limit: limits.QueueWait.String(), Knob: fault.Shed.Knob(), Detail: "its code or image was not loaded in time"}
	}
	switch {
	case errors.Is(c.err, engine.ErrCapacity):
		return fault.New(fault.Capacity, "", c.err)
	case c.err != nil:
		return fault.New(fault.Internal, "", c.err)
	}
	return nil
}

// recall loads the function, or joins who does; an invocation calls it. The
// work goes on when who waits for it gives up: the next invocation finds it done.
// After a load that failed, the function is not loaded for a while.
func (f *Function) recall() *coming {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.coming != nil {
		return f.mu.coming
	}
	c := &coming{done: make(chan struct{})}
	if f.mu.failed.err != nil && time.Now().Before(f.mu.failed.until) {
		c.err = f.mu.failed.err
		close(c.done)
		return c
	}
	f.mu.coming = c
	f.users.Add(1) // the caller is one, so that it is not gone
	f.pool.recalls.Go(func() {
		defer f.leave()
		c.err = f.bring()
		f.mu.Lock()
		f.mu.coming = nil
		f.mu.failed.note(c.err, f.pool.cfg.Retry, time.Now())
		f.mu.Unlock()
		close(c.done)
	})
	return c
}

// maxLoad is how long a load has in its room: all that it needs is on this node. What
// turns out not to be, since it rotted on disk, comes by an errand of the next load.
const maxLoad = 10 * time.Second

func (f *Function) bring() error {
	p := f.pool
	loaded, err := f.gather(p.ctx)
	if err == nil && !loaded {
		err = f.loadInRoom(p.ctx, nil)
	}
	if err != nil {
		return fmt.Errorf("pool: load %s %s: %w", f.version.ID, f.version.Digest.Short(), err)
	}
	return nil
}

// gather has what a load needs come to this node, so that a load waits for nobody else.
// An artifact that could not be kept is loaded before its errand ends, so that no more
// of them are in memory than there are errands: then loaded is set.
func (f *Function) gather(ctx context.Context) (loaded bool, err error) {
	p := f.pool
	kept := p.codes.has(f.version.Code) || p.has(f.version.Code)
	if _, keeps := p.cfg.Compiler.(Keeper); !keeps {
		kept = true // it compiles for each load
	}
	here := f.parts.Here == nil || p.images.has(f.version.Image) || f.parts.Here()
	if kept && here {
		return false, nil
	}
	err = p.errands.run(ctx, f.version.ID.Project, func() error {
		if !here {
			if err := f.parts.Fetch(ctx); err != nil {
				return err
			}
		}
		if kept {
			return nil
		}
		artifact, _, _, err := p.artifact(ctx, f.version.Code, f.parts.Code)
		if err != nil || p.has(f.version.Code) {
			return err
		}
		loaded = true
		return f.loadInRoom(ctx, artifact)
	})
	return loaded, err
}

// loadInRoom loads the function when there is room: its code from artifact, unless that is nil.
func (f *Function) loadInRoom(ctx context.Context, artifact []byte) error {
	p := f.pool
	select {
	case p.room <- struct{}{}:
		defer func() { <-p.room }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if f.now.Load() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, maxLoad)
	defer cancel()
	_, err := f.load(ctx, artifact)
	return err
}

// load makes the function one that can be started, and makes room for it. Its code is
// from artifact; nil: from where the compiler has it.
func (f *Function) load(ctx context.Context, artifact []byte) (Prepared, error) {
	l, prepared, err := f.make(ctx, artifact)
	if errors.Is(err, engine.ErrCapacity) {
		f.pool.shed()
		l, prepared, err = f.make(ctx, artifact)
	}
	if err != nil {
		return prepared, err
	}
	f.used.Store(2 * f.pool.loads.Add(1))
	f.now.Store(l)
	f.pool.fit(f)
	return prepared, nil
}

// evict gives up what is loaded, unless somebody uses it.
func (f *Function) evict() bool {
	l := f.now.Load()
	if l == nil || l.users.Load() > 1 || !f.now.CompareAndSwap(l, nil) {
		return false
	}
	l.leave()
	f.pool.evicted.Add(1)
	return true
}

// over reports whether more is loaded than may be, or than all but a part of that.
func (p *Pool) over(part int64) bool {
	codes, code := p.codes.size()
	images, image := p.images.size()
	maps := int64(codes*engine.CodeMaps + images*engine.ImageMaps)
	bytes, most := p.cfg.LoadedBytes, int64(p.cfg.LoadedMaps)
	if part > 0 {
		bytes, most = bytes-bytes/part, most-most/part
	}
	return code+image > bytes || maps > most
}

// slack is the part of the budget that is made free at once, so that who is the
// longest unused is not looked for at each load.
const slack = 16

// fit gives up what was not used for longest until the rest is within the budget. keep stays.
func (p *Pool) fit(keep *Function) {
	if !p.over(0) {
		return
	}
	p.fitting.Lock()
	defer p.fitting.Unlock()
	if !p.over(0) {
		return
	}
	for _, f := range p.coldest() {
		if !p.over(slack) {
			return
		}
		if f != keep {
			f.evict()
		}
	}
}

// shed gives up some of what is loaded: the process has no maps for more.
func (p *Pool) shed() {
	p.fitting.Lock()
	defer p.fitting.Unlock()
	cold := p.coldest()
	for _, f := range cold[:(len(cold)+slack-1)/slack] {
		f.evict()
	}
}

// coldest lists the functions that have something loaded, the longest unused first.
func (p *Pool) coldest() []*Function {
	type aged struct {
		f    *Function
		used uint64
	}
	var all []aged
	p.mu.Lock()
	for f := range p.mu.functions {
		if f.now.Load() != nil {
			all = append(all, aged{f, f.used.Load()})
		}
	}
	p.mu.Unlock()
	slices.SortFunc(all, func(a, b aged) int { return cmp.Compare(a.used, b.used) })
	list := make([]*Function, len(all))
	for i, a := range all {
		list[i] = a.f
	}
	return list
}
