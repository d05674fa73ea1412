package agent

import (
	"errors"
	"io/fs"
	"os"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/runtime/function"
)

// holds reports whether this node may hold the release.
func (a *Agent[F]) holds(r catalog.Release) bool { return r.Placement.MayHold(a.labels) }

// elsewhere is a release that this node may not hold: its requests go on to nodes that may.
func elsewhere[F Function](r catalog.Release) *ready[F] {
	v := r.Version()
	return &ready[F]{release: r, target: &serve.Target{Version: &v, Away: true}}
}

func (r *ready[F]) giveBack() {
	if r.held {
		r.fn.Release()
	}
}

func (r *ready[F]) state() report.State {
	if r.held {
		return report.Live
	}
	return report.Elsewhere
}

func (r *ready[F]) kind() EventKind {
	if r.held {
		return Live
	}
	return Elsewhere
}

// forbidden are the blobs of r that this node may not have: none, where a release
// that it may hold has them too.
func (l *loop[F]) forbidden(r catalog.Release) (all []function.Digest) {
	if l.holds(r) {
		return nil
	}
	for _, d := range []function.Digest{r.Code, r.Image} {
		if !l.snap.Names(d, l.labels) {
			all = append(all, d)
		}
	}
	return all
}

// banish takes what an earlier release left here, and r forbids, off the disk at
// once: the grace of what is not used is not for it. What was compiled of a code goes
// whether or not the code was still here: an earlier attempt may have ended between the two.
func (l *loop[F]) banish(r catalog.Release) {
	for _, d := range l.forbidden(r) {
		err := os.Remove(l.blobs.path(d))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if l.config.Forget != nil && d == r.Code {
			err = errors.Join(err, l.config.Forget(d))
		}
		if err != nil {
			l.config.OnEvent(Event{Kind: Unswept, Function: r.ID(), Digest: d, Err: err})
		}
	}
}

// banishCompiled banishes again whatever came back since, of which something is compiled: a
// compilation that was under way ends after the release that forbids it has come, and a
// removal may have failed.
func (l *loop[F]) banishCompiled() {
	compiled := l.compiled()
	for _, s := range l.slots {
		if s.live != nil && !s.live.held && compiled[s.want.Code] {
			l.banish(s.want)
		}
	}
}

// compiled are the codes of which something is compiled on this node's disk.
func (a *Agent[F]) compiled() map[function.Digest]bool {
	if a.config.Compiled == nil {
		return nil
	}
	all, err := a.config.Compiled()
	if err != nil {
		a.config.OnEvent(Event{Kind: Unswept, Err: err})
	}
	return all
}

// Held is what a node has of a function, and may have.
type Held struct {
	function.ID
	Release   uint64
	Placement function.Placement
	Allowed   bool // to run here
	MayHold   bool
	Live      bool // it can be run
	OnDisk    bool // code, what was compiled of it, or image, that no release names which may be here
}

// Held lists what this node has of the functions of the catalog, by their names.
func (a *Agent[F]) Held() []Held {
	snap := a.catalog.Snapshot()
	routed, compiled := a.routed.Load(), a.compiled()
	var all []Held
	for _, r := range snap.Releases() {
		h := Held{ID: r.ID(), Release: r.Number, Placement: r.Placement, Allowed: r.Placement.Allows(a.labels), MayHold: a.holds(r)}
		if routed != nil {
			h.Live = (*routed)[r.ID()]
		}
		for _, d := range []function.Digest{r.Code, r.Image} {
			_, err := os.Stat(a.blobs.path(d))
			if (err == nil || compiled[d]) && (h.MayHold || !snap.Names(d, a.labels)) {
				h.OnDisk = true
			}
		}
		all = append(all, h)
	}
	return all
}
