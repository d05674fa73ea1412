package keeper

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/sealed"
)

// Stage is how far an upgrade is.
type Stage uint64

// The stages.
const (
	Starting  Stage = iota + 1 // the new server is started, and makes itself ready
	Switched                   // it serves what comes from here on; the old one finishes what it has
	Finished                   // the old one is gone
	Replacing                  // the keeper becomes the new program
)

// String says it.
func (s Stage) String() string {
	names := [...]string{"", "the new server is getting ready", "the new server takes all new work, the old one finishes its own",
		"the old server is gone", "the keeper replaces itself"}
	if s == 0 || int(s) >= len(names) {
		return fmt.Sprintf("stage %d, which this version does not know", uint64(s))
	}
	return names[s]
}

// Verdicts of an upgrade, as numbers on the wire.
const (
	wentWell   = 1 // server and keeper are of the new program
	wentHalf   = 2 // the server is, the keeper is not
	wentBadly  = 3 // all is as it was
	notStarted = 4 // there was no attempt
	busy       = 5 // nor this time: another one is under way
)

// change is one upgrade.
type change struct {
	program *program
	was     *program
	server  *server // that must come to serve; nil until it is started
	asker   *link   // waits for the verdict; may be nil
	trying  bool    // the next keeper is being tried
	tried   bool    // it was
	refused error   // why it would not take over
	still   bool    // the server's helpers are being waited for
	began   time.Time
	at      Stage
}

// ask is somebody's wish for an upgrade. Its program and link become the duty's.
type ask struct {
	program *os.File // nil: what is installed
	asker   *link    // nil: a signal
}

// ask begins an upgrade, or says why not.
func (d *duty) ask(a ask) {
	if d.change != nil || d.old != nil {
		d.turnAway(a)
		return
	}
	p, err := d.wanted(a)
	if err != nil {
		d.config.Event(Event{Kind: Kept, Program: d.current.name, Err: err})
		lastWord(a.asker, notStarted, err.Error())
		return
	}
	d.turnedAway = false
	d.programs = append(d.programs, p)
	d.change = &change{program: p, was: d.current, asker: a.asker, began: time.Now()}
	d.config.Event(Event{Kind: Upgrading, Program: p.name})
	d.stage(Starting)
	if d.serving != nil && d.serving.ready {
		d.beside()
		return
	}
	// Nothing serves: there is nothing to be careful with.
	d.current, d.held, d.ladder = p, false, ladder{}
	if d.serving != nil {
		d.serving.kill(fmt.Errorf("keeper: replaced before it served"))
	}
}

// turnAway answers who asks while an upgrade is under way. The program is not looked at;
// the log hears of the first, since one may ask again and again until it is over.
func (d *duty) turnAway(a ask) {
	if a.program != nil {
		a.program.Close()
	}
	err := errors.New("keeper: another upgrade is under way" + d.progress(time.Now()))
	if !d.turnedAway || a.asker == nil { // a signal is answered nowhere else
		d.config.Event(Event{Kind: Kept, Program: d.current.name, Err: err})
		d.turnedAway = true
	}
	lastWord(a.asker, busy, err.Error())
}

// progress says how far the upgrade under way is, since when, and what bounds it.
func (d *duty) progress(now time.Time) string {
	if d.change == nil {
		return fmt.Sprintf(": an old server, process %d, still finishes its own; it has %v at most", d.old.pid, d.config.Handover)
	}
	s := fmt.Sprintf(", to %s, since %v (%s): %s", d.change.program.name, now.Sub(d.change.began).Round(time.Second), d.change.began.UTC().Format(time.RFC3339), d.change.at)
	switch d.change.at {
	case Starting:
		s += fmt.Sprintf("; it compiles what it has no code of, and has %v at most", d.config.Patience)
	case Switched:
		s += fmt.Sprintf("; that takes %v at most", d.config.Handover)
	}
	return s
}

func (d *duty) wanted(a ask) (*program, error) {
	if a.program == nil {
		return openProgram(d.installed, d.installed)
	}
	defer a.program.Close()
	return offered(a.program, d.config.State)
}

// beside starts the new server next to the one that serves.
func (d *duty) beside() {
	number := 1 - d.number
	s, err := d.start(d.change.program, number, role{prefix: prefixes(d.tag)[number], beside: true})
	if err != nil {
		d.fail(err)
		return
	}
	d.next, d.change.server = s, s
}

// promote makes the upgrade's server, which is ready, the one that serves.
func (d *duty) promote() {
	if d.change.server == d.next {
		d.old, d.serving, d.next = d.serving, d.next, nil
		d.number = d.serving.number
		d.previous = d.current
		d.point()
		d.retire(d.old)
	}
	d.current, d.held, d.ladder = d.change.program, false, ladder{}
	d.crown()
	d.stage(Switched)
}

// retire has s give up what only one may do and finish.
func (d *duty) retire(s *server) {
	s.limit = d.within(s, d.config.Handover)
	d.config.Event(Event{Kind: Draining, PID: s.pid, Program: s.program.name})
	if s.broker.speaks.Load() == 0 {
		_ = s.process.Signal(unix.SIGTERM) // it knows nothing else
		return
	}
	_ = s.broker.link.send(message{kind: retire}, nil) // its end is heard of
}

// fail ends the upgrade; what served serves on.
func (d *duty) fail(err error) {
	c := d.change
	if c == nil {
		return
	}
	d.change = nil
	if d.current == c.program {
		d.current = c.was
	}
	d.config.Event(Event{Kind: Kept, Program: d.current.name, Err: err})
	lastWord(c.asker, wentBadly, fmt.Sprintf("%s is not used, %s serves on: %v; the node's log says why", c.program.name, d.current.name, err))
}

// finish ends an upgrade whose server serves; err is why the keeper is still the old one.
func (d *duty) finish(err error) {
	c := d.change
	d.change = nil
	d.config.Event(Event{Kind: Upgraded, PID: d.serving.pid, Program: c.program.name, Err: err})
	if err != nil {
		lastWord(c.asker, wentHalf, fmt.Sprintf("the server is %s, but the keeper is still the old one: %v", c.program.name, err))
		return
	}
	lastWord(c.asker, wentWell, c.program.name)
}

// stage tells who asked how far it is.
func (d *duty) stage(s Stage) {
	d.change.at = s
	if d.change.asker != nil {
		_ = d.change.asker.send(message{kind: stage, number: uint64(s)}, nil) // they may have left
	}
}

// lastWord tells who asked what came of it.
func lastWord(asker *link, verdictIs uint64, text string) {
	if asker == nil {
		return
	}
	defer asker.close()
	f, err := sealed.New("selvage-text", []byte(text))
	if err != nil {
		f = nil
	} else {
		defer f.Close()
	}
	_ = asker.send(message{kind: verdict, number: verdictIs}, f) // they may have left
}

// settle takes an upgrade on when nothing is awaited of servers.
func (d *duty) settle() {
	c := d.change
	if c == nil || c.trying || c.still || d.old != nil || d.serving == nil || !d.serving.ready || d.serving.parted || c.server == nil || !c.server.ready {
		return
	}
	switch {
	case d.serving.program != c.program: // it fell back meanwhile
		d.fail(fmt.Errorf("keeper: servers of it died again and again"))
	case !d.config.Become:
		d.stage(Finished)
		d.finish(nil)
	case !c.tried:
		d.stage(Finished)
		d.try()
	case c.refused != nil:
		d.finish(c.refused)
	default:
		c.still = true
		d.still(d.serving)
	}
}
