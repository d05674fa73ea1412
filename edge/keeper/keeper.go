// Package keeper is the small parent of a node: it holds the sockets, starts
// the server and replaces it when it dies, and runs jailed helpers for it.
package keeper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
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
	Args   []string // the server's command line after the executable: {"server", "--config", …}
	State  string   // the node's folder, where operators ask for upgrades; empty: nowhere

	Drain    time.Duration // how long a server may take to finish after SIGTERM; default 30 s
	Handover time.Duration // how long one may take when another serves already; default 2 min 10 s
	Patience time.Duration // how long one may take from its start until it serves; default 5 min

	Helpers Helpers     // runs the helpers; the caller closes it after Run
	Event   func(Event) // told what happens, in order, from one goroutine; may be nil; must not block

	// Become lets an upgrade replace the keeper's own program as well, in place.
	// Run must then be called on the process's main thread: the kernel takes the
	// end of the thread that started a server for the end of the keeper.
	Become bool
	// Inherited is what a keeper that became this one left; nil at a plain start.
	Inherited *Inheritance
}

// Helpers is what a keeper needs of a jail; jail.Local is one.
type Helpers interface {
	RunFileOf(ctx context.Context, exe string, verb jail.Verb, input *os.File) (jail.Outcome, error)
}

var _ Helpers = (*jail.Local)(nil)

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
	for _, d := range []struct {
		name string
		time.Duration
	}{{"drain", c.Drain}, {"handover", c.Handover}, {"patience", c.Patience}} {
		if d.Duration < 0 {
			faults = append(faults, fmt.Errorf("keeper: %s %s is negative", d.name, d.Duration))
		}
	}
	return errors.Join(faults...)
}

// EventKind is what happened.
type EventKind uint8

// The events of a node's life.
const (
	Started   EventKind = iota + 1
	Ready               // it said that it serves
	Exited              // it is gone; Err says how
	Draining            // it was asked to finish
	Upgrading           // a server of Program is started beside the one that serves
	Upgraded            // the server of Program serves, and the old one is gone; Err: the keeper itself could not be replaced
	Kept                // an upgrade failed, Err says why; Program serves on
	FellBack            // servers died again and again: the next are of Program, which served before
	Held                // and if there is no such: the next serve what last served well
	Became              // the keeper is of Program from here on
)

// String returns the event's word.
func (k EventKind) String() string {
	return [...]string{"unknown", "started", "ready", "exited", "draining", "upgrading", "upgraded",
		"not upgraded", "fell back", "held", "keeper replaced"}[min(k, Became)]
}

// Event is something that happened.
type Event struct {
	Kind    EventKind
	PID     int // the server's; 0 when it is of none
	Program string
	Err     error
	Wait    time.Duration // of Exited: until the next one is started; 0 also when none is
}

// Keeper holds the sockets of one node.
type Keeper struct {
	config    Config
	sockets   []socket
	tag       [4]byte  // of connection IDs
	own       *program // what this process runs
	installed string   // where an upgrade finds its program when it is not told
	asks      chan ask
	door      *door // nil: nobody can ask
	close     sync.Once
}

// Open opens the sockets, or takes over those inherited; from here on
// connections queue up rather than being refused.
func Open(ctx context.Context, c Config) (*Keeper, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	k := &Keeper{config: c.withDefaults(), asks: make(chan ask)}
	if err := k.open(ctx); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

func (c Config) withDefaults() Config {
	for field, def := range map[*time.Duration]time.Duration{&c.Drain: 30 * time.Second, &c.Handover: 130 * time.Second, &c.Patience: 5 * time.Minute} {
		if *field == 0 {
			*field = def
		}
	}
	if c.Event == nil {
		c.Event = func(Event) {}
	}
	return c
}

func (k *Keeper) open(ctx context.Context) (err error) {
	if k.own, err = ownProgram(); err != nil {
		return err
	}
	if in := k.config.Inherited; in != nil {
		k.tag, k.installed, k.sockets = in.tag, in.installed, in.sockets
	} else {
		_, _ = rand.Read(k.tag[:]) // never fails
		k.installed = k.own.name
		k.sockets, err = openSockets(ctx, k.config)
	}
	if err == nil && k.config.State != "" {
		k.door, err = openDoor(k.config.State, k.asks)
	}
	return err
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
func (k *Keeper) Close() {
	k.close.Do(func() {
		k.door.close()
		closeSockets(k.sockets)
	})
}

// Upgrade asks for an upgrade to the program that is installed now, as a
// signal does: what comes of it is told by events. It returns when it is under way or ctx is done.
func (k *Keeper) Upgrade(ctx context.Context) {
	select {
	case k.asks <- ask{}:
	case <-ctx.Done():
	}
}
