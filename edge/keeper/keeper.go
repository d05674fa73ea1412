// Package keeper is the small parent of a node: it holds the sockets, starts
// the server and replaces it when it dies, and runs jailed helpers for it.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/jail"
)

// ExitConfig is the status with which a server ends that can never serve, its
// configuration being wrong. It is not started again: Run returns.
const ExitConfig = 78

// Config says what a keeper holds and starts.
type Config struct {
	Public string   // address for TCP and UDP, one port for both; port 0 takes any that is free for both
	Admin  string   // TCP address; empty for none
	Peer   string   // TCP address; empty for none
	Args   []string // the server's command line after the executable, which is this one: {"server", "--config", …}

	Drain   time.Duration // how long a server may take to finish after SIGTERM; default 30 s
	Helpers FileRunner    // runs the helpers; the caller closes it after Run
	Event   func(Event)   // told what happens, in order, from one goroutine; may be nil; must not block
}

// FileRunner is what a keeper needs of a jail; jail.Local is one.
type FileRunner interface {
	RunFile(ctx context.Context, verb jail.Verb, input *os.File) (jail.Outcome, error)
}

var _ FileRunner = (*jail.Local)(nil)

// Validate reports every fault of c.
func (c Config) Validate() error {
	var faults []error
	for _, a := range []struct{ name, addr string }{{"public", c.Public}, {"admin", c.Admin}, {"peer", c.Peer}} {
		if a.addr == "" && a.name != "public" {
			continue
		}
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			faults = append(faults, fmt.Errorf("keeper: %s address %q: want host:port", a.name, a.addr))
		}
	}
	if len(c.Args) == 0 {
		faults = append(faults, errors.New("keeper: no command for the server"))
	}
	if c.Helpers == nil {
		faults = append(faults, errors.New("keeper: nothing to run helpers with"))
	}
	if c.Drain < 0 {
		faults = append(faults, fmt.Errorf("keeper: drain %s is negative", c.Drain))
	}
	return errors.Join(faults...)
}

// EventKind is what happened.
type EventKind uint8

// The events of a server's life.
const (
	Started  EventKind = iota + 1
	Ready              // it said that it serves
	Exited             // it is gone; Err says how
	Draining           // it was asked to finish
)

// String returns the event's word.
func (k EventKind) String() string {
	return [...]string{"unknown", "started", "ready", "exited", "draining"}[min(k, Draining)]
}

// Event is something that happened to a server.
type Event struct {
	Kind EventKind
	PID  int
	Err  error         // of Exited
	Wait time.Duration // of Exited: until the next one is started; 0 also when none is
}

// Keeper holds the sockets of one node.
type Keeper struct {
	config  Config
	sockets []socket
	close   sync.Once
}

// Open opens the sockets; from here on connections queue up rather than being
// refused.
func Open(ctx context.Context, c Config) (*Keeper, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Drain == 0 {
		c.Drain = 30 * time.Second
	}
	if c.Event == nil {
		c.Event = func(Event) {}
	}
	sockets, err := openSockets(ctx, c)
	if err != nil {
		return nil, err
	}
	return &Keeper{config: c, sockets: sockets}, nil
}

// Addr returns where the socket of that name (PublicTCP and so on) listens, nil
// if there is none.
func (k *Keeper) Addr(name string) net.Addr {
	for _, s := range k.sockets {
		if s.name == name {
			return s.addr
		}
	}
	return nil
}

// Close closes the sockets. It is for a Keeper that is not run; Run does it too.
func (k *Keeper) Close() { k.close.Do(func() { closeSockets(k.sockets) }) }

// Run keeps a server running until ctx is done, then has it drained. It returns
// nil after an orderly end, and an error when a server said that it can never
// serve (ExitConfig) or had to be killed. Sockets and helpers are gone by then.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.Close()
	// A server is told of its parent's death when the thread that started it
	// ends, so that thread stays.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var b backoff
	for {
		began := time.Now()
		pid, err := k.serve(ctx)
		if ctx.Err() != nil || errors.Is(err, errConfig) {
			k.config.Event(Event{Kind: Exited, PID: pid, Err: err})
			return err
		}
		wait := b.next(time.Since(began))
		k.config.Event(Event{Kind: Exited, PID: pid, Err: err, Wait: wait})
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// backoff spaces out starts. The first death costs nothing; a server that dies
// again and again, before it lived for calm, is started ever more slowly.
type backoff struct{ deaths int }

const (
	calm      = 10 * time.Second
	firstWait = 100 * time.Millisecond
	maxWait   = 5 * time.Second
)

func (b *backoff) next(lived time.Duration) time.Duration {
	if lived >= calm {
		b.deaths = 0
	}
	b.deaths++
	if b.deaths == 1 {
		return 0
	}
	return min(firstWait<<min(b.deaths-2, 10), maxWait)
}
