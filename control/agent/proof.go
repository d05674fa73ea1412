package agent

import (
	"errors"
	"io/fs"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
)

// provenAge is how old the kept catalog gets, in Calms, before the one in use is
// kept though not all of it was tried, or though newer ones come all the time.
const provenAge = 10

// proof is how a catalog shows that a node can serve it: by serving it for a
// while (Calm). The one that last did is kept, for a node whose servers die of
// the newest. The loop owns it.
type proof struct {
	trial  *catalog.Snapshot // being watched; nil: none is
	since  time.Time         // when that began
	kept   *catalog.Snapshot // what is on disk; nil: not looked at yet
	keptAt time.Time         // when it was written, or else when this process began
}

// watch begins to watch the catalog in use, once all of it was tried.
func (l *loop[F]) watch() {
	p := &l.proof
	aged := time.Since(p.keptAt) >= provenAge*l.config.Calm
	switch {
	case !l.serving, l.snap.Position().Epoch == 0, l.snap == p.trial, l.snap == p.kept:
		return
	case aged && p.trial != nil: // let that one come to its end
		return
	case !aged && !l.tried():
		return
	}
	p.trial, p.since = l.snap, time.Now()
}

// tried reports whether every release of the catalog is live here, cannot run, or may not be here.
func (l *loop[F]) tried() bool {
	for _, s := range l.slots {
		if s.gone || !s.state.Final() {
			return false
		}
	}
	return true
}

// proven says when the catalog that is watched has served for long enough.
func (l *loop[F]) proven() (at time.Time, watched bool) {
	return l.proof.since.Add(l.config.Calm), l.proof.trial != nil && l.reigns()
}

// keepServed writes the catalog that is watched to disk if it has served well.
func (l *loop[F]) keepServed() {
	p := &l.proof
	if at, watched := l.proven(); !watched || time.Now().Before(at) {
		return
	}
	if err := p.trial.Save(l.servedPath()); err != nil {
		l.config.OnEvent(Event{Kind: Unsaved, Err: err})
		p.since = time.Now() // again after as long
		return
	}
	p.kept, p.keptAt, p.trial = p.trial, time.Now(), nil
}

// fallback lists the releases of the catalog on disk that served well, and of
// the one that is to be the next: they must be there when nothing else serves.
func (l *loop[F]) fallback() []catalog.Release {
	p := &l.proof
	if p.kept == nil {
		s := catalog.NewState(l.config.Trust)
		if err := s.Load(l.servedPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.config.OnEvent(Event{Kind: CatalogUnread, Err: err})
		}
		p.kept = s.Snapshot()
	}
	all := p.kept.Releases()
	if p.trial != nil {
		all = append(all[:len(all):len(all)], p.trial.Releases()...)
	}
	return all
}
