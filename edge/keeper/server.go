package keeper

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrConfig: a server said that it can never serve (ExitConfig).
	ErrConfig = errors.New("keeper: the server cannot serve with this configuration; its own message says why")
	errKilled = errors.New("keeper: the server did not finish in time and was killed")
	errSlow   = errors.New("keeper: the server did not say in time that it serves, and was killed")
)

// server is one server process, from its start to its end. The duty owns what is not constant.
type server struct {
	pid     int
	program *program
	number  int // of its UDP socket
	process *os.Process
	broker  *broker
	began   time.Time
	limit   *time.Timer // kills it; nil when nothing is awaited of it

	ready  bool
	reigns bool  // was given what only one may do
	gaveUp bool  // has given it back
	parted bool  // its link is closed: its end is about to be heard of
	why    error // it was killed for this
}

// fact is what is learnt of a server.
type fact uint8

const (
	greeted fact = iota + 1 // it said hello
	serves
	gaveUp
	broke   // it broke the protocol
	ended   // it is gone
	late    // what was awaited of it did not come
	stilled // no helper of it runs, and what it asks waits in the socket
	tried   // not of a server: the next keeper was tried
)

// news is one fact.
type news struct {
	of   *server
	fact fact
	err  error
}

// start starts a server and watches it.
func (d *duty) start(p *program, number int, r role) (*server, error) {
	if err := p.whole(); err != nil {
		return nil, err
	}
	ours, theirs, err := controlPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	l, err := newLink(ours)
	if err != nil {
		return nil, err
	}
	pid, err := d.fork(p, number, r, theirs)
	if err != nil {
		l.close()
		return nil, fmt.Errorf("keeper: start the server: %w", err)
	}
	s, err := d.adopt(pid, l, p, number)
	if err != nil {
		return nil, err
	}
	s.limit = d.within(s, d.config.Patience)
	d.config.Event(Event{Kind: Started, PID: pid, Program: p.name})
	return s, nil
}

// adopt watches a child that is there.
func (d *duty) adopt(pid int, l *link, p *program, number int) (*server, error) {
	process, err := os.FindProcess(pid)
	if err != nil {
		l.close()
		return nil, fmt.Errorf("keeper: server %d: %w", pid, err)
	}
	s := &server{pid: pid, program: p, number: number, process: process, began: time.Now()}
	s.broker = newBroker(l, d.config.Helpers, p.path(), func(f fact, err error) { d.tell(news{s, f, err}) })
	d.work.Go(s.broker.serve)
	d.work.Go(func() {
		ps, err := process.Wait()
		s.broker.close() // the helpers of a server that is gone are of no use to anybody
		d.tell(news{s, ended, endOf(ps, err)})
	})
	return s, nil
}

// fork starts the process. Only the thread that does may not end before it.
func (d *duty) fork(p *program, number int, r role, ctl *os.File) (pid int, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	names, fds := []string{control}, []uintptr{null.Fd(), os.Stdout.Fd(), os.Stderr.Fd(), ctl.Fd()}
	for _, s := range d.sockets {
		name, ok := handedTo(number, s.name)
		if ok {
			names, fds = append(names, name), append(fds, uintptr(s.fd))
		}
	}
	return syscall.ForkExec(p.path(), append([]string{os.Args[0]}, d.config.Args...), &syscall.ProcAttr{
		Env:   append(plainEnv(), fdsVariable+"="+strings.Join(names, ":"), roleVariable+"="+r.String()),
		Files: fds,
		// A group of its own: a Ctrl-C is the keeper's to pass on.
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	})
}

// handedTo says whether a server gets that socket, and as what: of the two UDP
// sockets each gets the one of its number.
func handedTo(number int, name string) (string, bool) {
	switch name {
	case PublicUDP:
		return PublicUDP, number == 0
	case secondUDP:
		return PublicUDP, number == 1
	}
	return name, true
}

func endOf(ps *os.ProcessState, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("keeper: wait for the server: %w", err)
	case ps.ExitCode() == ExitConfig:
		return ErrConfig
	case ps.Success():
		return nil
	}
	return fmt.Errorf("keeper: the server ended by itself: %s", ps)
}

// kill ends s; why is what its end will be reported with.
func (s *server) kill(why error) {
	s.why = why
	_ = s.process.Kill() // it may be gone
}

// inTime stops the clock that runs for s.
func (s *server) inTime() {
	if s.limit != nil {
		s.limit.Stop()
		s.limit = nil
	}
}

// plainEnv is the environment without what one process of a node tells another.
func plainEnv() []string {
	kept := make([]string, 0, len(os.Environ())+2)
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); name != fdsVariable && name != roleVariable && name != keeperVariable {
			kept = append(kept, e)
		}
	}
	return kept
}

func controlPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("keeper: control socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "keeper"), os.NewFile(uintptr(fds[1]), "server"), nil
}
