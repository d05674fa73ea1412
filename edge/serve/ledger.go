package serve

import (
	"sync"
	"sync/atomic"

	"github.com/selvage-edge/selvage/runtime/function"
)

// Tally counts one function's exchanges since the start of the server.
type Tally struct {
	Answered uint64 // its function was begun here
	Away     uint64 // of these, although it is placed elsewhere
	Pinned   uint64 // of these, although it is pinned there: never
	Passed   uint64 // handed on to another node
}

type tally struct{ answered, away, pinned, passed atomic.Uint64 }

// ledger counts where exchanges are answered. Routes alone name functions, so it is
// as large as the catalog was.
type ledger struct {
	mu        sync.RWMutex
	functions map[function.ID]*tally
}

func (l *ledger) of(id function.ID) *tally {
	l.mu.RLock()
	t := l.functions[id]
	l.mu.RUnlock()
	if t != nil {
		return t
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t = l.functions[id]; t == nil {
		if l.functions == nil {
			l.functions = map[function.ID]*tally{}
		}
		t = &tally{}
		l.functions[id] = t
	}
	return t
}

func (l *ledger) note(x *exchange) {
	if x.target == nil || !x.ran && x.to == "" {
		return
	}
	t := l.of(x.target.Version.ID)
	if x.to != "" {
		t.passed.Add(1)
	}
	if !x.ran {
		return
	}
	t.answered.Add(1)
	if x.target.Away {
		t.away.Add(1)
		if x.target.Version.Placement.Residency {
			t.pinned.Add(1)
		}
	}
}

// Tallies counts exchanges by function.
func (h *Handler) Tallies() map[function.ID]Tally {
	l := &h.ledger
	l.mu.RLock()
	defer l.mu.RUnlock()
	all := make(map[function.ID]Tally, len(l.functions))
	for id, t := range l.functions {
		all[id] = Tally{t.answered.Load(), t.away.Load(), t.pinned.Load(), t.passed.Load()}
	}
	return all
}
