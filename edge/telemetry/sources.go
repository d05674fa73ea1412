package telemetry

import "github.com/selvage-edge/selvage/runtime/function"

// source returns the function's source; beyond maxSources functions share one.
func (l *Log) source(id function.ID) *source {
	l.sources.RLock()
	s := l.sources.byID[id]
	l.sources.RUnlock()
	if s != nil {
		return s
	}
	return l.newSource(id)
}

func (l *Log) newSource(id function.ID) *source {
	l.sources.Lock()
	defer l.sources.Unlock()
	if s := l.sources.byID[id]; s != nil {
		return s
	}
	if id.Name != none && len(l.sources.byID) >= maxSources {
		// Its lines are found by their project no more; they are in what is written.
		id = function.ID{Project: other, Name: other}
		if s := l.sources.byID[id]; s != nil {
			return s
		}
	}
	s := &source{id: id}
	s.mu.tokens = l.rate.burst
	l.sources.byID[id] = s
	l.divide()
	return s
}

// divide gives each source its share of the memory. Shares change when the number of
// sources passes a power of two, not with each: all of them are gone through then.
func (l *Log) divide() {
	n := leastShares
	for n < len(l.sources.byID) {
		n *= 2
	}
	share := l.cfg.RecentBytes / n
	if l.share.Swap(int64(share)) == int64(share) {
		return
	}
	for _, s := range l.sources.byID {
		s.trim(share)
	}
}

func (l *Log) sourcesNow() []*source {
	l.sources.RLock()
	defer l.sources.RUnlock()
	all := make([]*source, 0, len(l.sources.byID))
	for _, s := range l.sources.byID {
		all = append(all, s)
	}
	return all
}

// attach puts t among those who follow; false if they are too many.
func (l *Log) attach(t *Tap) bool {
	l.attaching.Lock()
	defer l.attaching.Unlock()
	had := *l.taps.Load()
	if len(had) >= maxTaps {
		return false
	}
	next := append(append(make([]*Tap, 0, len(had)+1), had...), t)
	l.taps.Store(&next)
	return true
}

func (l *Log) detach(t *Tap) {
	l.attaching.Lock()
	defer l.attaching.Unlock()
	next := []*Tap{}
	for _, had := range *l.taps.Load() {
		if had != t {
			next = append(next, had)
		}
	}
	l.taps.Store(&next)
}
