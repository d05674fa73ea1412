// Package limit decides who is admitted, who waits, and who is told to come back.
//
// A function has so many places, and the node; who finds none waits in its
// function's queue, which is bounded and has a deadline. A place of the node goes to
// the project that had fewest for as long as it waited, and in it to the function
// that had fewest for its weight (runtime/fair). Of the node's queue a project may
// have as much as is still free (dynamic thresholds: Choudhury and Hahne, 1998): one
// that floods has half of it, and whoever comes next finds room.
package limit

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/fair"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
)

// Config bounds a node.
type Config struct {
	// Node is how many exchanges may run at once on the node. Default 10,000.
	Node int
	// Queue is how many more may wait on the node, of all functions. Default 5,000;
	// below zero: none.
	Queue int
	// RetryMin and RetryMax bound what a refused client is told to wait.
	// Default 1 s and 5 s.
	RetryMin, RetryMax time.Duration
	// Rand returns a number from 0 up to n, not including it. Default math/rand/v2.
	Rand func(n int64) int64
}

// Limiter counts the exchanges that run, and holds the queue of those that wait for
// a place. It is safe for concurrent use.
type Limiter struct {
	cfg Config
	mu  struct {
		sync.Mutex
		running   int
		waiting   int
		active    int                    // functions that are not idle
		functions map[function.ID]*count // idle ones too, up to a bound
		projects  map[string]int         // who waits, by project
		queue     fair.Queue[*count]     // functions that have room for one who waits; charged by admissions
		shed      Shed
	}
}

// maxIdle bounds how many idle functions' counts are kept, so that a function
// need not be looked up to be counted out, and seldom be made to be counted in.
const maxIdle = 10_000

// Shed counts the exchanges that were not admitted, since the start.
type Shed struct {
	Busy     uint64 // the function's queue was full
	Capacity uint64 // the node's was, or the project had its share of it
	Late     uint64 // they waited too long
	Left     uint64 // the client left while it waited
}

// New returns a Limiter with nothing running.
func New(cfg Config) *Limiter {
	if cfg.Node <= 0 {
		cfg.Node = 10_000
	}
	if cfg.Queue == 0 {
		cfg.Queue = 5_000
	}
	if cfg.RetryMin <= 0 {
		cfg.RetryMin = time.Second
	}
	if cfg.RetryMax < cfg.RetryMin {
		cfg.RetryMax = max(5*time.Second, cfg.RetryMin)
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Int64N
	}
	l := &Limiter{cfg: cfg}
	l.mu.functions, l.mu.projects = map[function.ID]*count{}, map[string]int{}
	return l
}

// Ticket is one admission. Release it once.
type Ticket struct {
	Waited  time.Duration // in the queue
	limiter *Limiter
	of      *count
}

// Admit lets one exchange of the function in: at once, if the function has fewer
// than limits.Concurrency and the node has room, or when its turn comes. It waits
// until by at most, and not where limits.Queue of the function wait already; it
// leaves the queue when ctx ends. Versions of a function count together.
// The error is a *fault.Error: Busy, Capacity, Shed or Canceled; the ticket then
// only says how long it waited.
func (l *Limiter) Admit(ctx context.Context, id function.ID, limits function.Limits, by time.Time) (Ticket, error) {
	limits = limits.WithDefaults()
	t, w, err := l.enter(id, limits)
	if w == nil {
		return t, err
	}
	return w.wait(ctx, by, limits)
}

// enter decides at once: in, in the queue, or neither. It looks at counts alone,
// so what it costs does not grow with who waits.
func (l *Limiter) enter(id function.ID, limits function.Limits) (Ticket, *waiter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.countLocked(id)
	f.most = limits.Concurrency
	free := f.queue.Len() == 0 && f.running < f.most
	switch {
	case free && l.mu.running < l.cfg.Node:
		l.takeLocked(f)
		return Ticket{limiter: l, of: f}, nil, nil
	case f.queue.Len() >= limits.Queue:
		l.mu.shed.Busy++
		return Ticket{}, nil, &fault.Error{Kind: fault.Busy, Limit: strconv.Itoa(f.most), Knob: fault.Busy.Knob(),
			Detail: fmt.Sprintf("and %d wait (limits.queue)", f.queue.Len())}
	case l.mu.projects[id.Project] >= l.cfg.Queue-l.mu.waiting:
		l.mu.shed.Capacity++
		return Ticket{}, nil, &fault.Error{Kind: fault.Capacity, Limit: strconv.Itoa(l.cfg.Queue), Knob: "limits.queue of the node",
			Detail: fmt.Sprintf("%d requests wait on this node, %d of them of this project", l.mu.waiting, l.mu.projects[id.Project])}
	}
	return Ticket{}, l.enqueueLocked(f, limits.Weight), nil
}

// takeLocked gives the function a place.
func (l *Limiter) takeLocked(f *count) {
	l.mu.running++
	if f.running++; f.running == 1 {
		l.mu.active++
	}
}

// countLocked returns the function's count. Where too many are idle all of those go.
func (l *Limiter) countLocked(id function.ID) *count {
	f := l.mu.functions[id]
	if f != nil {
		return f
	}
	if len(l.mu.functions)-l.mu.active >= maxIdle {
		maps.DeleteFunc(l.mu.functions, func(_ function.ID, f *count) bool {
			idle := f.running == 0 && f.queue.Len() == 0
			if idle {
				f.Quit()
			}
			return idle
		})
	}
	f = &count{project: id.Project}
	l.mu.queue.Join(&f.Member, id.Project, f)
	l.mu.functions[id] = f
	return f
}

// Release gives the place back. The zero Ticket has none.
func (t Ticket) Release() {
	if t.limiter == nil {
		return
	}
	l := t.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.running--
	if t.of.running--; t.of.running == 0 {
		l.mu.active--
	}
	t.of.offer()
	l.dispatchLocked()
}

// RetryAfter is how long a refused client is to wait, in whole seconds and
// jittered, so that those refused together do not come back together.
func (l *Limiter) RetryAfter() time.Duration {
	lo, hi := int64(l.cfg.RetryMin/time.Second), int64(l.cfg.RetryMax/time.Second)
	return time.Duration(max(lo, 1)+l.cfg.Rand(max(hi-lo, 0)+1)) * time.Second
}

// Places is how many exchanges may run at once.
func (l *Limiter) Places() int { return l.cfg.Node }

// Stats is a snapshot.
type Stats struct {
	Running   int // exchanges
	Waiting   int // for a place
	Functions int // functions with at least one that runs
	Shed      Shed
}

// Stats returns what runs now.
func (l *Limiter) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{Running: l.mu.running, Waiting: l.mu.waiting, Functions: l.mu.active, Shed: l.mu.shed}
}
