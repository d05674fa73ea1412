// Package limit decides who is admitted and who is told to come back.
package limit

import (
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
)

// Config bounds a node.
type Config struct {
	// Node is how many exchanges may run at once on the node. Default 10,000.
	Node int
	// RetryMin and RetryMax bound what a refused client is told to wait.
	// Default 1 s and 5 s.
	RetryMin, RetryMax time.Duration
	// Rand returns a number from 0 up to n, not including it. Default math/rand/v2.
	Rand func(n int64) int64
}

// Limiter counts the exchanges that run.
type Limiter struct {
	cfg Config
	mu  struct {
		sync.Mutex
		node      int
		active    int                    // functions that are not idle
		functions map[function.ID]*count // idle ones too, up to a bound
		refused   Refused
	}
}

// count is how many exchanges of one function run, guarded by the limiter.
type count struct{ n int }

// maxIdle bounds how many idle functions' counts are kept, so that a function
// need not be looked up to be counted out, and seldom be made to be counted in.
const maxIdle = 10_000

// Refused counts the refusals since the start.
type Refused struct {
	Busy     uint64 // the function had too many
	Capacity uint64 // the node had too many
}

// New returns a Limiter with nothing running.
func New(cfg Config) *Limiter {
	if cfg.Node <= 0 {
		cfg.Node = 10_000
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
	l.mu.functions = map[function.ID]*count{}
	return l
}

// Ticket is one admission. Release it once.
type Ticket struct {
	limiter *Limiter
	of      *count
}

// Admit lets one exchange of the function in, unless the function has already
// most of them (0: the default of function.Limits) or the node is full. Versions
// of a function count together. The error is a *fault.Error: Busy or Capacity.
func (l *Limiter) Admit(id function.ID, most int) (Ticket, error) {
	if most <= 0 {
		most = function.Default.Concurrency
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.node >= l.cfg.Node {
		l.mu.refused.Capacity++
		return Ticket{}, &fault.Error{Kind: fault.Capacity, Limit: strconv.Itoa(l.cfg.Node), Knob: "limits.concurrency of the node", Detail: "exchanges at once on this node"}
	}
	f := l.countLocked(id)
	if f.n >= most {
		l.mu.refused.Busy++
		return Ticket{}, &fault.Error{Kind: fault.Busy, Limit: strconv.Itoa(most), Knob: fault.Busy.Knob()}
	}
	l.mu.node++
	if f.n++; f.n == 1 {
		l.mu.active++
	}
	return Ticket{l, f}, nil
}

// countLocked returns the function's count. Where too many are idle all of those go.
func (l *Limiter) countLocked(id function.ID) *count {
	f := l.mu.functions[id]
	if f != nil {
		return f
	}
	if len(l.mu.functions)-l.mu.active >= maxIdle {
		maps.DeleteFunc(l.mu.functions, func(_ function.ID, f *count) bool { return f.n == 0 })
	}
	f = &count{}
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
	l.mu.node--
	if t.of.n--; t.of.n == 0 {
		l.mu.active--
	}
}

// RetryAfter is how long a refused client is to wait, in whole seconds and
// jittered, so that those refused together do not come back together.
func (l *Limiter) RetryAfter() time.Duration {
	lo, hi := int64(l.cfg.RetryMin/time.Second), int64(l.cfg.RetryMax/time.Second)
	return time.Duration(max(lo, 1)+l.cfg.Rand(max(hi-lo, 0)+1)) * time.Second
}

// Stats is a snapshot.
type Stats struct {
	Running   int // exchanges
	Functions int // functions with at least one
	Refused   Refused
}

// Stats returns what runs now.
func (l *Limiter) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{Running: l.mu.node, Functions: l.mu.active, Refused: l.mu.refused}
}
