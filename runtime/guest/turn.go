package guest

import (
	"context"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/sched"
)

// An invocation begins with turns on whatever thread Go has for it. One that has
// computed for longAfter goes on in turns of longSlice, on threads for guests that
// compute long: two levels of a multilevel feedback queue (Corbató and others,
// 1962), between which the kernel divides the processors. So what is short waits for
// nothing that is long. A call that left the engine earns callEarns, as a request
// would: who passes a long body on with little work for each piece stays, or comes
// back, where a turn costs no change of threads. All of it is processor time.
const (
	longAfter = time.Millisecond
	longSlice = 2 * time.Millisecond
	callEarns = 100 * time.Microsecond
)

// credit is what an invocation may compute before it counts as long; from below
// zero it has to come above it again.
type credit struct {
	left time.Duration
	long bool
}

func (c *credit) spend(d time.Duration) { c.left = max(c.left-d, -longAfter) }
func (c *credit) earn()                 { c.left = min(c.left+callEarns, longAfter) }

// changed reports whether the invocation is of the other kind from now on.
func (c *credit) changed() bool {
	was := c.long
	c.long = c.left < 0 || c.long && c.left == 0
	return c.long != was
}

// Runner runs invocations, so many of them computing at once and no more, and so
// many of those that compute long. Close it.
type Runner struct {
	short, long *sched.Scheduler
	threads     *engine.Threads // as many as long has turns
}

// NewRunner returns a runner that lets so many guests compute at once, and beside
// them so many that compute long. A turn is held while its goroutine or its thread
// waits for a processor; who then finds none free has to change goroutines, and so
// has everybody behind it. So give short turns for all of Go's processors, but one
// for each of the machine's to those that are long.
func NewRunner(short, long int) *Runner {
	return &Runner{short: sched.New(short), long: sched.New(long), threads: engine.NewThreads(long)}
}

// Close gives the threads back. Nothing runs any more.
func (r *Runner) Close() { r.threads.Close() }

// Waiting returns how many invocations wait for a turn: those that compute long apart.
func (r *Runner) Waiting() (short, long int) { return r.short.Waiting(), r.long.Waiting() }

// turns is what an invocation has of the scheduler.
type turns struct {
	of      *sched.Scheduler
	job     sched.Job
	id      function.ID
	weight  int
	charged time.Duration // processor time that the scheduler knows of
	credit  credit
}

func (i *invocation) begin(id function.ID, weight int) {
	i.turns.id, i.turns.weight, i.turns.credit.left = id, weight, longAfter
	i.enter()
}

// enter begins a job where the invocation belongs.
func (i *invocation) enter() {
	i.turns.of, i.turns.job = i.runner.short, sched.Job{}
	if i.turns.credit.long {
		i.turns.of = i.runner.long
	}
	i.turns.of.Begin(&i.turns.job, i.turns.id, i.turns.weight)
}

func (i *invocation) end() { i.turns.job.End() }

// first waits for the first turn, as take, but no longer than until then: sched.ErrLate.
func (i *invocation) first(ctx context.Context, by time.Time) error {
	return i.turns.of.TakeBy(ctx, &i.turns.job, by)
}

// take waits for a turn, or until ctx ends and returns its error.
func (i *invocation) take(ctx context.Context) error {
	if i.turns.credit.changed() {
		i.end()
		i.enter()
	}
	return i.turns.of.Take(ctx, &i.turns.job)
}

// turn polls the guest in its turn.
func (i *invocation) turn() engine.Event {
	defer i.give()
	if i.turns.credit.long {
		return i.runner.threads.Poll(&i.instance, min(i.turns.charged+longSlice, i.limits.CPU))
	}
	return i.instance.Poll()
}

// give gives the turn back and says what it was used for.
func (i *invocation) give() {
	used := i.instance.Usage().CPU
	i.turns.of.Give(&i.turns.job, used-i.turns.charged)
	i.turns.credit.spend(used - i.turns.charged)
	i.turns.charged = used
}

// close ends the guest in a turn, as all that is long in C: a thread is held by no
// more of them than there are turns. It is a job of its own, so that an answer that
// waits for it does not wait for those that have computed less than this guest.
func (i *invocation) close() {
	if i.instance.Ended() {
		i.instance.Close()
		return
	}
	i.end()
	i.enter()
	_ = i.take(context.Background()) // it does not end
	defer i.give()
	if i.turns.credit.long {
		i.runner.threads.CloseInstance(&i.instance)
	} else {
		i.instance.Close()
	}
}
