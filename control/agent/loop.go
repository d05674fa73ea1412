package agent

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/fleet"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/runtime/atomicfile"
	"github.com/selvage-edge/selvage/runtime/function"
)

// sweepEvery is how often the disk is looked over for what no release names.
const sweepEvery = time.Minute

// loop is the one owner of what runs here.
type loop[F Function] struct {
	*Agent[F]
	ctx     context.Context
	slots   map[function.ID]*slot[F]
	snap    *catalog.Snapshot
	serving bool      // a table was handed out
	patient time.Time // until then a start waits for all functions
	swept   time.Time
	timer   *time.Timer
	saved   catalog.Position
	proof   proof

	// When all slots are gone through again for what changed since.
	tellAt, swapAt    time.Time
	untold, unswapped bool
}

// share is how much longer than a report or a table took to make the next one
// waits at least: with thousands of functions that become ready one by one the
// loop would do nothing else.
const share = 10

func newLoop[F Function](ctx context.Context, a *Agent[F]) *loop[F] {
	now := time.Now()
	return &loop[F]{
		Agent: a, ctx: ctx, slots: map[function.ID]*slot[F]{}, patient: now.Add(a.config.Settle), swept: now,
		timer: time.NewTimer(0), saved: a.catalog.Snapshot().Position(), proof: proof{keptAt: now},
	}
}

// loop keeps the node in step with the catalog until ctx ends.
func (a *Agent[F]) loop(ctx context.Context) {
	l := newLoop(ctx, a)
	l.plan()
	reign := a.config.Reign
	for ctx.Err() == nil {
		l.settle()
		select {
		case <-ctx.Done():
		case <-reign:
			reign = nil
			l.save()
		case <-a.wake:
			l.save()
			l.plan()
		case r := <-a.results:
			l.take(r)
			l.takeMore()
		case <-l.timer.C:
			l.retry()
			l.sweep()
			l.save() // again, if the disk had no room
			l.keepServed()
		}
	}
	l.end()
}

// end stops what is under way and waits for it.
func (l *loop[F]) end() {
	l.timer.Stop()
	for _, s := range l.slots {
		s.stop()
	}
	ended := make(chan struct{})
	go func() { l.work.Wait(); close(ended) }()
	for {
		select {
		case r := <-l.results: // a piece of work that was just done
			r.discard()
		case <-ended:
			return
		}
	}
}

// plan compares the newest catalog with what is here.
func (l *loop[F]) plan() {
	l.snap = l.catalog.Snapshot()
	named := map[function.ID]bool{}
	for _, r := range l.snap.Releases() {
		named[r.ID()] = true
		s := l.slots[r.ID()]
		if s == nil {
			s = &slot[F]{}
			l.slots[r.ID()] = s
		}
		if s.gone || !reflect.DeepEqual(s.want, r) {
			l.begin(s, r)
		}
	}
	for id, s := range l.slots {
		if !named[id] {
			s.stop()
			s.gone = true
		}
	}
	p := l.snap.Position()
	if p.Epoch != 0 { // else nothing is known, and nothing is given up
		l.spaces.want(l.snap.Bound(l.labels))
	}
	// Others are only told what they may ask for: a full table of heads is no fault of this node's.
	_ = l.config.Announce(fleet.Head{Log: catalogLog, Epoch: p.Epoch, Sequence: p.Revision})
}

// save writes the catalog to disk: the last known good of the next start.
func (l *loop[F]) save() {
	at := l.catalog.Snapshot().Position()
	if at == l.saved || !l.reigns() {
		return
	}
	if err := l.catalog.Save(l.catalogPath()); err != nil {
		l.config.OnEvent(Event{Kind: Unsaved, Err: err})
		return
	}
	l.saved = at
}

// begin starts to make a release ready; what the function served so far it serves on.
func (l *loop[F]) begin(s *slot[F], r catalog.Release) {
	s.stop()
	s.want, s.seen, s.state, s.why = r, time.Now(), report.Fetching, ""
	s.failures, s.gone = 0, false
	s.drop()
	l.start(s)
}

func (l *loop[F]) start(s *slot[F]) {
	s.again = time.Time{}
	ctx, cancel := context.WithCancel(l.ctx)
	t := &task[F]{agent: l.Agent, release: s.want, known: !l.serving}
	s.cancel, s.task = cancel, t // the slot may have another, or none, before this one begins
	l.work.Go(func() { t.run(ctx) })
}

// takeMore takes what has come meanwhile, so that all slots are gone through once for it.
func (l *loop[F]) takeMore() {
	for range l.slots {
		select {
		case r := <-l.results:
			l.take(r)
		default:
			return
		}
	}
}

// take notes how far a piece of work is. What was overtaken is given back.
func (l *loop[F]) take(r result[F]) {
	s := l.slots[r.task.release.ID()]
	if s == nil || s.task != r.task || s.gone {
		r.discard()
		return
	}
	if r.err == nil && r.ready == nil {
		if s.state != report.Failed { // one that failed and is tried again has failed until it is live
			s.state, s.why = r.state, r.why
		}
		return
	}
	s.stop()
	if r.err == nil {
		s.next, s.state, s.why, s.failures = r.ready, report.Compiling, "", 0
		return
	}
	l.failed(s, r)
}

// failed notes why a release is not ready, and when it is tried again.
func (l *loop[F]) failed(s *slot[F], r result[F]) {
	s.failures++
	s.why = r.err.Error()
	kind := Waiting
	if r.state == report.Compiling {
		s.state, kind = report.Failed, Failed
	}
	if !r.final {
		s.again = time.Now().Add(backoff(r.state, s.failures))
	}
	s.settled = true
	l.config.OnEvent(Event{Kind: kind, Function: s.want.ID(), Release: s.want.Number, Digest: s.want.Bundle, Err: r.err})
}

// backoff becomes long for what costs a compilation, and stays short for what costs a
// question. The first is short for both: a helper may have been killed, a disk full.
func backoff(at report.State, failures int) time.Duration {
	first, most := time.Second, time.Minute
	if at == report.Compiling {
		first, most = 2*time.Second, 30*time.Minute
	}
	return min(first<<min(failures-1, 16), most)
}

// retry starts again what failed and may.
func (l *loop[F]) retry() {
	for _, s := range l.slots {
		if !s.again.IsZero() && !time.Now().Before(s.again) {
			l.start(s)
		}
	}
}

// settle brings the table, the report and the timer in line with the slots.
func (l *loop[F]) settle() {
	if l.ctx.Err() == nil && l.due() {
		l.swap()
	}
	l.watch()
	l.publish()
	l.schedule()
}

// due reports whether another table should be handed out. The first one waits
// until every function is settled, so that a start does not answer 404 for
// what it will have in a moment; one that hangs does not hold up the others for long.
func (l *loop[F]) due() bool {
	if !l.serving {
		for _, s := range l.slots {
			if !s.settled && s.next == nil && !s.gone && time.Now().Before(l.patient) {
				return false
			}
		}
		return l.snap.Position().Epoch != 0 || !time.Now().Before(l.patient)
	}
	l.unswapped = false
	for _, s := range l.slots {
		if s.next != nil || s.gone {
			l.unswapped = true
			return !time.Now().Before(l.swapAt)
		}
	}
	return false
}

// swap hands out a table of the newest of every function, and gives back what it no longer has.
func (l *loop[F]) swap() {
	began := time.Now()
	table, err := l.table()
	if err != nil {
		// Every pattern was checked and every double one decided: ours. The table in use stays.
		l.config.OnEvent(Event{Kind: Failed, Err: err})
		l.swapAt = time.Now().Add(time.Second)
		return
	}
	l.config.Swap(table)
	if !l.serving {
		var parts []part
		for _, r := range l.snap.Releases() {
			if l.holds(r) {
				code, image := partsOf(r)
				parts = append(parts, code, image)
			}
		}
		l.work.Go(func() { l.blobs.scrub(l.ctx, parts) })
	}
	l.serving, l.unswapped, l.swapAt = true, false, time.Now().Add(share*time.Since(began))
	l.config.OnEvent(Event{Kind: Swapped, Routes: table.Len()})
	for id, s := range l.slots {
		switch {
		case s.gone:
			s.drop()
			s.retire()
			delete(l.slots, id)
			l.config.OnEvent(Event{Kind: Removed, Function: id})
		case s.next != nil:
			s.retire()
			s.live, s.next = s.next, nil
			s.state, s.settled, s.took = s.live.state(), true, time.Since(s.seen)
			if !s.live.held {
				l.banish(s.want)
			}
			l.config.OnEvent(Event{Kind: s.live.kind(), Function: id, Release: s.want.Number, Digest: s.want.Bundle, Took: s.took})
		}
	}
}

// publish tells whoever asks for Stats, and control.
func (l *loop[F]) publish() {
	st := &Stats{Functions: len(l.slots), Blobs: l.stats.Load().Blobs}
	held := make(map[function.ID]bool, len(l.slots))
	for id, s := range l.slots {
		held[id] = s.live != nil && s.live.held
		switch s.state {
		case report.Live:
			st.Live++
		case report.Failed:
			st.Failed++
		}
	}
	l.stats.Store(st)
	l.routed.Store(&held)
	if l.untold = time.Now().Before(l.tellAt); !l.untold {
		l.report()
	}
}

// What is told of why functions are not live, in bytes: of one, and of all, so that
// a report is below report.MaxBytes also where each byte takes six in JSON.
const (
	maxWhy  = 1 << 10
	maxWhys = 400 << 10
)

// report gives the reporter what is to be told next.
func (l *loop[F]) report() {
	began := time.Now()
	all := make([]report.Function, 0, len(l.slots))
	most := min(maxWhy, maxWhys/max(len(l.slots), 1))
	for _, s := range l.slots {
		f := s.report()
		if len(f.Why) > most {
			f.Why = strings.ToValidUTF8(f.Why[:most], "")
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b report.Function) int {
		return compareIDs(function.ID{Project: a.Project, Name: a.Function}, function.ID{Project: b.Project, Name: b.Function})
	})
	l.reporter.set(l.snap.Position(), all)
	l.tellAt = time.Now().Add(share * time.Since(began))
}

// schedule sets the timer to whatever comes first.
func (l *loop[F]) schedule() {
	next := l.swept.Add(sweepEvery)
	if !l.serving && l.patient.After(time.Now()) && l.patient.Before(next) {
		next = l.patient
	}
	for _, s := range l.slots {
		if !s.again.IsZero() && s.again.Before(next) {
			next = s.again
		}
	}
	if l.untold && l.tellAt.Before(next) {
		next = l.tellAt
	}
	if l.unswapped && l.swapAt.Before(next) {
		next = l.swapAt
	}
	if at, watched := l.proven(); watched && at.Before(next) {
		next = at
	}
	l.timer.Reset(max(time.Until(next), 0))
}

// used is the blobs that are to stay: the catalog's, those of what is served
// here, and those of the catalog that is to be served if servers die of this one.
func (l *loop[F]) used() map[function.Digest]bool {
	releases := slices.Clone(l.fallback())
	for _, s := range l.slots {
		releases = append(releases, s.releases(l.holds)...)
	}
	used := make(map[function.Digest]bool, len(releases))
	for _, r := range releases {
		used[r.Code], used[r.Image] = true, true
	}
	for _, s := range l.slots {
		for _, d := range l.forbidden(s.want) {
			delete(used, d)
		}
	}
	return used
}

// sweep removes blobs that are not used, and what was left half written.
func (l *loop[F]) sweep() {
	if time.Since(l.swept) < sweepEvery {
		return
	}
	l.swept = time.Now()
	if !l.reigns() {
		return
	}
	l.banishCompiled()
	kept, err := l.blobs.sweep(l.used(), l.config.Grace)
	err = errors.Join(err, atomicfile.Sweep(l.config.Dir))
	if err != nil && !errors.Is(err, context.Canceled) {
		l.config.OnEvent(Event{Kind: Unswept, Err: err})
	}
	st := *l.stats.Load()
	st.Blobs = kept
	l.stats.Store(&st)
}
