package keeper

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// duty is what Run does: one goroutine owns it, hears what happens to servers,
// and decides what happens next.
type duty struct {
	*Keeper
	ctx   context.Context
	heard chan news
	over  chan struct{}  // nobody hears any more
	work  sync.WaitGroup // watches of servers

	serving *server // what clients get; nil while one is awaited
	next    *server // of an upgrade, until it serves
	old     *server // served; finishes what is under way
	number  int     // of serving's UDP socket, also while there is none

	current  *program // servers are started of it
	previous *program // served before; nil when there is none
	held     bool     // servers are to serve what last served well
	ladder   ladder
	again    <-chan time.Time // when a server is to be started; nil: not
	change   *change          // the upgrade under way, or nil

	turnedAway bool // somebody was, since that upgrade began

	programs []*program // that are open
}

// Run keeps a server running until ctx is done, then has it drained. It returns
// nil after an orderly end, and an error when a server said that it can never
// serve (ExitConfig) or had to be killed. Sockets and helpers are gone by then.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.Close()
	// A server is told of its parent's death when the thread that started it
	// ends, so that thread stays.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	d := &duty{Keeper: k, ctx: ctx, heard: make(chan news), over: make(chan struct{}), current: k.own, programs: []*program{k.own}}
	defer d.forget(func(*program) bool { return false })
	defer d.work.Wait()
	defer d.abandon()
	if err := d.begin(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return d.end()
		case n := <-d.heard:
			if err := d.hear(n); err != nil {
				return err
			}
		case a := <-k.asks:
			d.ask(a)
		case <-d.again:
			if err := d.restart(); err != nil {
				return err
			}
		}
		d.settle()
		d.forget(d.needs)
	}
}

// forget closes the programs that are not needed any more, and with the last
// name the file system forgets them as well.
func (d *duty) forget(needed func(*program) bool) {
	d.programs = slices.DeleteFunc(d.programs, func(p *program) bool {
		if needed(p) {
			return false
		}
		p.close()
		return true
	})
}

// needs reports whether p may yet be started, as server, helper or keeper.
func (d *duty) needs(p *program) bool {
	if p == d.current || p == d.previous || d.change != nil && (p == d.change.program || p == d.change.was) {
		return true
	}
	return slices.ContainsFunc(d.servers(), func(s *server) bool { return s.program == p })
}

// tell passes a fact to the duty.
func (d *duty) tell(n news) {
	select {
	case d.heard <- n:
	case <-d.over:
	}
}

// abandon ends at once what is still there, and hears nothing any more.
func (d *duty) abandon() {
	close(d.over)
	for _, s := range d.servers() {
		_ = s.process.Kill()
	}
}

// servers lists those that are there.
func (d *duty) servers() (all []*server) {
	for _, s := range []*server{d.serving, d.next, d.old} {
		if s != nil {
			all = append(all, s)
		}
	}
	return all
}

// within tells the duty if s was not in time.
func (d *duty) within(s *server, limit time.Duration) *time.Timer {
	return time.AfterFunc(limit, func() { d.tell(news{of: s, fact: late}) })
}

// begin starts the first server, or takes over the one inherited.
func (d *duty) begin() error {
	if d.config.Inherited != nil {
		return d.inherit(d.config.Inherited)
	}
	return d.restart()
}

// restart starts a server where none serves.
func (d *duty) restart() error {
	d.again = nil
	s, err := d.start(d.current, d.number, role{prefix: prefixes(d.tag)[d.number], held: d.held})
	if err != nil && d.change != nil && d.change.server == nil {
		d.fail(err) // what was there before is tried again
		d.again = time.After(0)
		return nil
	}
	if err != nil {
		return d.died(&server{began: time.Now()}, err)
	}
	d.serving = s
	if d.change != nil && d.change.server == nil {
		d.change.server = s // of an upgrade where nothing served
	}
	return nil
}

func (d *duty) hear(n news) error {
	s := n.of
	switch n.fact {
	case greeted:
		_ = s.broker.link.send(message{kind: hello, number: speaks}, nil) // its end is heard of
		d.crown()
	case serves:
		d.serves(s)
	case gaveUp:
		s.gaveUp = true
		d.crown()
	case broke:
		s.kill(n.err) // what breaks the protocol is not a server any more
	case late:
		d.late(s)
	case ended:
		return d.ended(s, n.err)
	case stilled:
		d.become(s)
	case tried:
		d.tried(n.err)
	}
	return nil
}

// crown gives the serving server what only one may do, once no other has it.
func (d *duty) crown() {
	s := d.serving
	if s == nil || s.reigns || s.broker.speaks.Load() == 0 || d.old != nil && !d.old.gaveUp {
		return
	}
	s.reigns = true
	_ = s.broker.link.send(message{kind: reign}, nil) // its end is heard of
}

func (d *duty) serves(s *server) {
	if s.ready {
		return
	}
	s.ready = true
	s.inTime()
	d.config.Event(Event{Kind: Ready, PID: s.pid, Program: s.program.name})
	if d.change != nil && s == d.change.server {
		d.promote()
	}
}

func (d *duty) late(s *server) {
	if s.limit == nil {
		return // it was in time after all
	}
	s.limit = nil
	if s == d.old {
		s.kill(fmt.Errorf("%w (%s)", errKilled, d.config.Handover))
		return
	}
	s.kill(fmt.Errorf("%w (%s)", errSlow, d.config.Patience))
}

// ended decides what follows the end of s.
func (d *duty) ended(s *server, err error) error {
	s.inTime()
	if s.why != nil {
		err = s.why
	}
	if s == d.old {
		d.old = nil
		d.config.Event(Event{Kind: Exited, PID: s.pid, Err: err})
		d.point()
		d.crown()
		return nil
	}
	if err == nil {
		err = errors.New("keeper: the server ended by itself: exit status 0")
	}
	if s == d.next {
		d.next = nil
		d.config.Event(Event{Kind: Exited, PID: s.pid, Err: err})
		d.fail(err)
		return nil
	}
	d.serving = nil
	if !s.ready && d.change != nil && d.change.server == s {
		d.fail(err)
		err = fmt.Errorf("%s", err) // ErrConfig would be the new program's, and another one is next
	}
	return d.died(s, err)
}

// died decides what follows the end of the server that served, or was to.
func (d *duty) died(s *server, err error) error {
	if errors.Is(err, ErrConfig) && d.previous == nil && d.next == nil {
		d.config.Event(Event{Kind: Exited, PID: s.pid, Err: err})
		return err
	}
	wait, other := d.ladder.fell(time.Since(s.began), s.ready)
	d.config.Event(Event{Kind: Exited, PID: s.pid, Err: err, Wait: wait})
	if other {
		d.fall()
	}
	if d.next != nil { // it takes over earlier than was planned
		d.serving, d.next = d.next, nil
		d.number = d.serving.number
		d.point()
		d.crown()
		return nil
	}
	d.again = time.After(wait)
	return nil
}

// fall chooses something that may live longer: the program that served before, or else,
// in turn, what last served well and what is wanted now.
func (d *duty) fall() {
	if d.previous != nil {
		d.current, d.previous, d.held = d.previous, nil, false
		d.config.Event(Event{Kind: FellBack, Program: d.current.name})
		return
	}
	d.held = !d.held
	if d.held {
		d.config.Event(Event{Kind: Held, Program: d.current.name})
	}
}

// point steers UDP packets to the servers there are.
func (d *duty) point() {
	program := toOne(d.number)
	if d.old != nil {
		program = toBoth(d.number, d.old.number, prefixes(d.tag)[d.old.number])
	}
	for _, s := range d.sockets {
		if s.name == PublicUDP {
			if err := steer(s.fd, program); err != nil { // it was possible at the start
				d.config.Event(Event{Kind: Kept, Program: d.current.name, Err: err})
			}
		}
	}
}

// end has every server finish. Our own sockets close first: once a server closes
// its own, clients are refused and go elsewhere, rather than waiting in a queue.
func (d *duty) end() error {
	d.Close()
	left := map[*server]bool{}
	for _, s := range d.servers() {
		left[s] = true
		s.inTime()
		d.config.Event(Event{Kind: Draining, PID: s.pid})
		_ = s.process.Signal(unix.SIGTERM) // its end is heard of
	}
	limit := time.NewTimer(d.config.Drain)
	defer limit.Stop()
	var errs []error
	for len(left) > 0 {
		select {
		case n := <-d.heard:
			if n.fact == ended && left[n.of] {
				delete(left, n.of)
				errs = append(errs, d.last(n))
			}
		case <-limit.C:
			for s := range left {
				s.kill(fmt.Errorf("%w (%s)", errKilled, d.config.Drain))
			}
		}
	}
	return errors.Join(errs...)
}

// last tells of the end of a server after which there is none.
func (d *duty) last(n news) error {
	err := n.err
	if n.of.why != nil {
		err = n.of.why
	}
	d.config.Event(Event{Kind: Exited, PID: n.of.pid, Err: err})
	return err
}
