package jail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/sealed"
)

// atOnce is how many helpers run at the same time; others wait their turn.
const atOnce = 2

// Config says how helpers are run. The zero value is good.
type Config struct {
	// MaxWall shortens the wall limit of every verb; 0 leaves them as they are.
	MaxWall time.Duration
	// FirstUID is the user id of the first of the helpers at once when this
	// process is root; the others have the next ones. Default 64320: nothing
	// else should run under them. They own no file.
	FirstUID int
}

// Local runs helpers as children of this process. It is safe for use by many.
type Local struct {
	maxWall time.Duration
	means   means
	missing []Missing
	seats   chan int // user ids of helpers that do not run now
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
}

var _ Runner = (*Local)(nil)

// Open finds out which confinement is to be had here, by running children that
// do nothing, and returns a Runner that uses all of it. What could not be had
// is in Missing. It fails only when no child can be run at all.
func Open(c Config) (*Local, error) {
	if c.FirstUID == 0 {
		c.FirstUID = 64320
	}
	l := &Local{maxWall: c.MaxWall, seats: make(chan int, atOnce)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	for i := range atOnce {
		l.seats <- c.FirstUID + i
	}
	m, missing, err := findMeans(c.FirstUID)
	if err != nil {
		return nil, fmt.Errorf("jail: no helper can be started: %w", err)
	}
	l.means, l.missing = m, append(missing, lacking(seccompCapability(), landlockCapability())...)
	return l, nil
}

// Missing lists the walls this machine could not give, for doctor and the log.
func (l *Local) Missing() []Missing { return l.missing }

// Close kills the helpers that run and waits for them.
func (l *Local) Close() error {
	l.stop()
	l.running.Wait()
	return nil
}

// Run implements Runner.
func (l *Local) Run(ctx context.Context, verb Verb, input []byte) (Result, error) {
	if err := checkInput(verb, int64(len(input))); err != nil {
		return Result{}, err
	}
	in, err := sealed.New("selvage-input", input)
	if err != nil {
		return Result{}, err
	}
	defer in.Close()
	o, err := l.RunFile(ctx, verb, in)
	if err != nil {
		return Result{}, err
	}
	return o.Result(verb)
}

// RunFile is Run over sealed files: nothing is read into this process. The
// input stays the caller's. An error means that the work was not run or not
// awaited; how it ended is in the Outcome.
func (l *Local) RunFile(ctx context.Context, verb Verb, input *os.File) (Outcome, error) {
	return l.RunFileOf(ctx, self, verb, input)
}

// self is the program of helpers that belong to this very process.
const self = "/proc/self/exe"

// RunFileOf is RunFile with the helper of another program, such as a newer
// version of this one: a path that the child can open as well.
func (l *Local) RunFileOf(ctx context.Context, exe string, verb Verb, input *os.File) (Outcome, error) {
	if !verb.Valid() {
		return Outcome{}, fmt.Errorf("jail: there is no verb %d", verb)
	}
	size, err := sealed.Check(input, 1<<62)
	if err != nil {
		return Outcome{}, fmt.Errorf("jail: input: %w", err)
	}
	if err := checkInput(verb, size); err != nil {
		return Outcome{}, err
	}
	uid, err := l.sit(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer l.rise(uid)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	return runChild(ctx, order{exe: exe, verb: verb, input: input, uid: uid, means: l.means, wall: l.wall(verb)})
}

func (l *Local) wall(v Verb) time.Duration {
	if l.maxWall > 0 {
		return min(l.maxWall, table[v].wall)
	}
	return table[v].wall
}

// sit waits for a seat.
func (l *Local) sit(ctx context.Context) (uid int, err error) {
	select {
	case <-l.ctx.Done():
		return 0, errors.New("jail: closed")
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case uid = <-l.seats:
		l.running.Add(1)
		return uid, nil
	}
}

func (l *Local) rise(uid int) {
	l.seats <- uid
	l.running.Done()
}

func checkInput(v Verb, size int64) error {
	if size > v.MaxInput() {
		return &Refused{Reason: fmt.Sprintf("the module has %d bytes; at most %d are taken", size, v.MaxInput())}
	}
	return nil
}
