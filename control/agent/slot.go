package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/jail"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// slot is one function on this node; the loop owns it.
type slot[F Function] struct {
	want     catalog.Release
	seen     time.Time // when want was first seen
	state    report.State
	why      string
	failures int
	again    time.Time     // when to try again; zero: not
	took     time.Duration // from seeing want to serving it
	settled  bool          // it was live or failed at least once
	gone     bool          // the catalog has it no more

	live *ready[F] // in the table
	next *ready[F] // waits for the next table

	task   *task[F] // under way
	cancel context.CancelFunc
}

// ready is a release that can be served, or handed on.
type ready[F Function] struct {
	release  catalog.Release
	held     bool // here; else fn is nothing
	fn       F
	target   *serve.Target
	prepared pool.Prepared
}

// stop ends what is under way; its result will not count.
func (s *slot[F]) stop() {
	if s.cancel != nil {
		s.cancel()
	}
	s.cancel, s.task = nil, nil
}

// drop gives back what was never served.
func (s *slot[F]) drop() {
	if s.next != nil {
		s.next.giveBack()
		s.next = nil
	}
}

// retire gives back what was served until now.
func (s *slot[F]) retire() {
	if s.live != nil {
		s.live.giveBack()
		s.live = nil
	}
}

// chosen is what the next table has of the function.
func (s *slot[F]) chosen() *ready[F] {
	switch {
	case s.gone:
		return nil
	case s.next != nil:
		return s.next
	}
	return s.live
}

// releases lists those whose bytes are needed, of those that may be held here.
func (s *slot[F]) releases(holds func(catalog.Release) bool) []catalog.Release {
	all := []catalog.Release{s.want}
	if s.live != nil {
		all = append(all, s.live.release)
	}
	return slices.DeleteFunc(all, func(r catalog.Release) bool { return !holds(r) })
}

func (s *slot[F]) report() report.Function {
	f := report.Function{
		Project: s.want.Project, Function: s.want.Function, Release: s.want.Number, Digest: s.want.Bundle,
		State: s.state, Why: s.why,
	}
	if s.live != nil && s.state == report.Live {
		f.CompileMS, f.FromCache = milliseconds(s.live.prepared.CompileTime), s.live.prepared.FromCache
		f.ReadyMS = milliseconds(s.took)
	}
	return f
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func compareIDs(a, b function.ID) int {
	return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
}

// task makes one release ready.
type task[F Function] struct {
	agent   *Agent[F]
	release catalog.Release
	known   bool // of a node that starts: it may have served this release before
}

// result is how far a task is: at a state, or done with ready or err.
type result[F Function] struct {
	task  *task[F]
	state report.State // how far it came
	why   string       // what it waits for there, if it is not what the state says
	ready *ready[F]
	err   error
	final bool // trying again would not help
}

// discard gives back what a result brought too late.
func (r result[F]) discard() {
	if r.ready != nil {
		r.ready.giveBack()
	}
}

func (t *task[F]) run(ctx context.Context) {
	r := t.make(ctx)
	r.task = t
	if ctx.Err() != nil {
		r.discard() // stopped: nobody waits for it
		return
	}
	t.tell(ctx, r)
}

// tell hands r to the loop, which may be about to stop this task.
func (t *task[F]) tell(ctx context.Context, r result[F]) {
	select {
	case t.agent.results <- r:
	case <-ctx.Done():
		r.discard()
	}
}

func (t *task[F]) make(ctx context.Context) result[F] {
	r := t.release
	for _, p := range r.Routes {
		if _, err := route.ParsePattern(p); err != nil {
			return result[F]{state: report.Compiling, err: err, final: true}
		}
	}
	if !t.agent.holds(r) {
		return result[F]{ready: elsewhere[F](r)}
	}
	// Fetching takes no worker: what control does not hand out now must not hold
	// up what is on disk.
	code, image := partsOf(r)
	for _, p := range []part{code, image} {
		if err := t.agent.blobs.ensure(ctx, p); err != nil {
			return result[F]{state: report.Fetching, err: err}
		}
	}
	if err := t.enter(ctx); err != nil {
		return result[F]{err: err}
	}
	defer func() { <-t.agent.room }()
	return t.prepare(ctx)
}

// enter waits for a place to prepare in, and says so if it has to.
func (t *task[F]) enter(ctx context.Context) error {
	select {
	case t.agent.room <- struct{}{}:
		return nil
	default:
	}
	t.tell(ctx, result[F]{task: t, state: report.Compiling, why: fmt.Sprintf("waits until one of the %d functions that are made ready now is", cap(t.agent.room))})
	select {
	case t.agent.room <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *task[F]) prepare(ctx context.Context) result[F] {
	r := t.release
	code, image := partsOf(r)
	t.tell(ctx, result[F]{task: t, state: report.Compiling})
	fn, prepared, err := t.agent.config.Prepare(ctx, r.Version(), pool.Parts{Code: t.agent.blobs.of(code), Image: t.agent.blobs.of(image), Here: t.agent.blobs.has(image), Fetch: t.agent.blobs.ensured(image), Known: t.known})
	var missing *blobError
	if errors.As(err, &missing) {
		return result[F]{state: report.Fetching, err: missing}
	}
	if err != nil {
		var refused *jail.Refused
		return result[F]{state: report.Compiling, err: err, final: errors.As(err, &refused)}
	}
	target := t.agent.config.Target(fn, r)
	target.Away = !r.Placement.Allows(t.agent.labels)
	return result[F]{ready: &ready[F]{release: r, held: true, fn: fn, target: target, prepared: prepared}}
}
