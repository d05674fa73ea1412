package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/sealed"
)

// A keeper is upgraded by executing the new program in its place: the process
// stays, and with it its children and its descriptors. What the numbers of
// those mean is in a description, a sealed memory file. Before that, the
// new program is run once beside, to see that it would take it.

// keeperVariable says where the description is: "take N" or "try N", N a descriptor.
const keeperVariable = "SELVAGE_KEEPER"

// tryLimit bounds the trial of the next keeper.
const tryLimit = 20 * time.Second

// descriptionVersion counts changes that older keepers would misunderstand.
// Unknown fields are let pass.
const (
	descriptionVersion = 1
	maxDescription     = 64 << 10
	maxSockets         = 16
)

// description is what one keeper leaves to the next.
type description struct {
	Version   int        `json:"version"`
	Tag       uint32     `json:"tag"`
	Installed string     `json:"installed"`
	Sockets   []inSocket `json:"sockets"`
	Server    inServer   `json:"server"`
	Previous  *inProgram `json:"previous,omitempty"`
	Asker     int        `json:"asker,omitempty"` // 0: nobody
}

type inSocket struct {
	Name string         `json:"name"`
	Addr netip.AddrPort `json:"addr"`
	FD   int            `json:"fd"`
}

type inServer struct {
	PID     int       `json:"pid"`
	Control int       `json:"control"`
	Number  int       `json:"number"`
	Speaks  uint64    `json:"speaks"`
	Reigns  bool      `json:"reigns"`
	Program inProgram `json:"program"`
}

type inProgram struct {
	Name string `json:"name"`
	FD   int    `json:"fd"`
	As   state  `json:"as"`
}

// Inheritance is what a keeper takes over from the one before it.
type Inheritance struct {
	d         description
	tag       [4]byte
	installed string
	sockets   []socket
	trial     bool
}

// Inherit returns what another keeper left in this process, nil if it is a
// plain start. Call it once, early; it removes its trace from the environment.
func Inherit() (*Inheritance, error) {
	text, ok := os.LookupEnv(keeperVariable)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(keeperVariable); err != nil {
		return nil, fmt.Errorf("keeper: inherit: %w", err)
	}
	word, number, _ := strings.Cut(text, " ")
	fd, err := strconv.Atoi(number)
	if err != nil || fd < 3 || word != "take" && word != "try" {
		return nil, fmt.Errorf("keeper: inherit: %s=%q", keeperVariable, text)
	}
	f := os.NewFile(uintptr(fd), "description")
	defer f.Close()
	b, err := sealed.Read(f, maxDescription)
	if err != nil {
		return nil, fmt.Errorf("keeper: inherit: %w", err)
	}
	d, err := decodeDescription(b)
	if err != nil {
		return nil, err
	}
	return d.inheritance(word == "try"), nil
}

// Trial reports whether this process is only to find out whether it could take
// over: it must read its configuration, and end with status 0.
func (in *Inheritance) Trial() bool { return in != nil && in.trial }

func (d description) inheritance(trial bool) *Inheritance {
	in := &Inheritance{d: d, installed: d.Installed, trial: trial}
	in.tag = [4]byte{byte(d.Tag >> 24), byte(d.Tag >> 16), byte(d.Tag >> 8), byte(d.Tag)}
	for _, s := range d.Sockets {
		in.sockets = append(in.sockets, socket{name: s.Name, addr: s.address(), fd: s.FD})
	}
	if !trial {
		for _, fd := range d.fds() {
			unix.CloseOnExec(fd)
		}
	}
	return in
}

func (s inSocket) address() net.Addr {
	if s.Name == PublicUDP || s.Name == secondUDP {
		return net.UDPAddrFromAddrPort(s.Addr)
	}
	return net.TCPAddrFromAddrPort(s.Addr)
}

// decodeDescription reads and checks a description.
func decodeDescription(b []byte) (description, error) {
	var d description
	if err := json.Unmarshal(b, &d); err != nil {
		return d, fmt.Errorf("keeper: inherit: %w", err)
	}
	if d.Version != descriptionVersion {
		return d, fmt.Errorf("keeper: inherit: a description of version %d, known is %d: restart the node instead", d.Version, descriptionVersion)
	}
	if len(d.Sockets) == 0 || len(d.Sockets) > maxSockets || d.Server.PID <= 1 || d.Server.Number != 0 && d.Server.Number != 1 {
		return d, errors.New("keeper: inherit: the description does not fit a node")
	}
	seen := map[int]bool{}
	for _, fd := range d.fds() {
		if fd < 3 || seen[fd] {
			return d, fmt.Errorf("keeper: inherit: descriptor %d is named twice or is none of ours", fd)
		}
		seen[fd] = true
	}
	return d, nil
}

func (d description) fds() []int {
	all := []int{d.Server.Control, d.Server.Program.FD}
	for _, s := range d.Sockets {
		all = append(all, s.FD)
	}
	if d.Previous != nil {
		all = append(all, d.Previous.FD)
	}
	if d.Asker != 0 {
		all = append(all, d.Asker)
	}
	return all
}

// describe writes down what the next keeper needs. The descriptors of the two
// links are copies, to be closed if it comes to nothing.
func (d *duty) describe() (desc description, copies []*os.File, err error) {
	s := d.serving
	desc = description{Version: descriptionVersion, Installed: d.installed,
		Tag: uint32(d.tag[0])<<24 | uint32(d.tag[1])<<16 | uint32(d.tag[2])<<8 | uint32(d.tag[3])}
	for _, k := range d.sockets {
		addr, err := netip.ParseAddrPort(k.addr.String())
		if err != nil {
			return desc, nil, err
		}
		desc.Sockets = append(desc.Sockets, inSocket{Name: k.name, Addr: addr, FD: k.fd})
	}
	ctl, err := s.broker.link.conn.File()
	if errors.Is(err, net.ErrClosed) {
		return desc, nil, errServerEnded
	}
	if err != nil {
		return desc, nil, err
	}
	copies = append(copies, ctl)
	desc.Server = inServer{PID: s.pid, Control: numberOf(ctl), Number: s.number, Speaks: s.broker.speaks.Load(), Reigns: s.reigns, Program: s.program.describe()}
	if d.previous != nil {
		p := d.previous.describe()
		desc.Previous = &p
	}
	if d.change.asker != nil {
		a, err := d.change.asker.conn.File()
		if err != nil {
			return desc, copies, err
		}
		copies = append(copies, a)
		desc.Asker = numberOf(a)
	}
	return desc, copies, nil
}

// numberOf is f's descriptor. Fd would make it blocking, and with it the socket
// that it is a copy of: whoever reads that could not be interrupted any more.
func numberOf(f *os.File) (n int) {
	n = -1
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { n = int(fd) }) // it fails only if f is closed
	}
	return n
}

func (p *program) describe() inProgram { return inProgram{Name: p.name, FD: p.fd, As: p.as} }
func (p inProgram) program() *program  { return &program{fd: p.FD, name: p.Name, as: p.As} }

func (d description) seal() (*os.File, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("keeper: describe: %w", err)
	}
	return sealed.New("selvage-keeper", b)
}

// try runs the new program beside, to see whether it would take over.
func (d *duty) try() {
	c := d.change
	d.stage(Replacing)
	desc, copies, err := d.describe()
	closeAll(copies)
	if errors.Is(err, errServerEnded) {
		d.serving.parted = true
		return
	}
	c.trying = true
	var f *os.File
	if err == nil {
		f, err = desc.seal()
	}
	if err == nil && unix.Gettid() != unix.Getpid() {
		err = errors.New("keeper: not on the main thread, whose end would take the server along")
	}
	d.work.Go(func() {
		if err == nil {
			err = tryKeeper(d.ctx, c.program, f)
			f.Close()
		}
		d.tell(news{fact: tried, err: err})
	})
}

func tryKeeper(ctx context.Context, p *program, f *os.File) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(p.path(), os.Args, &syscall.ProcAttr{
		Env:   append(plainEnv(), keeperVariable+"=try 3"),
		Files: []uintptr{null.Fd(), os.Stdout.Fd(), os.Stderr.Fd(), f.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return fmt.Errorf("keeper: try the new one: %w", err)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("keeper: try the new one: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = process.Kill() })()
	ps, err := process.Wait()
	if err == nil && !ps.Success() {
		err = fmt.Errorf("%s; its own message says why", ps)
	}
	if err != nil {
		return fmt.Errorf("keeper: the new one would not take over: %w", err)
	}
	return nil
}

func (d *duty) tried(err error) {
	if d.change == nil {
		return // the upgrade failed meanwhile
	}
	d.change.trying, d.change.tried, d.change.refused = false, true, err
}

// still waits until s has no helper running, away from the duty.
func (d *duty) still(s *server) {
	d.work.Go(func() {
		s.broker.pause()
		d.tell(news{of: s, fact: stilled})
	})
}

// become executes the new program in this process. It returns if it did not come to that.
func (d *duty) become(s *server) {
	defer func() {
		s.broker.resume()
		d.work.Go(s.broker.serve)
	}()
	c := d.change
	if c == nil {
		return
	}
	c.still = false
	if s != d.serving || d.ctx.Err() != nil {
		return // settle tries again, with the next server
	}
	err := d.execute(c.program)
	if errors.Is(err, errServerEnded) {
		s.parted = true
		return
	}
	d.finish(err)
}

// errServerEnded: the server that serves has ended, and the keeper will hear of it. Until then
// settle waits; then the keeper starts another, and settle tries again with that one.
var errServerEnded = errors.New("keeper: the server has ended")

func (d *duty) execute(p *program) error {
	desc, copies, err := d.describe()
	defer closeAll(copies)
	if err != nil {
		return err
	}
	f, err := desc.seal()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.whole(); err != nil {
		return err
	}
	fds := append(desc.fds(), int(f.Fd()))
	for _, fd := range fds {
		if _, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			break
		}
	}
	if err == nil {
		restore := holdSignals()
		err = syscall.Exec(p.path(), os.Args, append(plainEnv(), fmt.Sprintf("%s=take %d", keeperVariable, f.Fd())))
		restore()
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fmt.Errorf("keeper: execute %s: %w", p.name, err)
}

// holdSignals keeps those that a keeper acts on until the new program asks for
// them: in between, they would end the process.
func holdSignals() (restore func()) {
	var set, was unix.Sigset_t
	for _, s := range []unix.Signal{unix.SIGHUP, unix.SIGTERM, unix.SIGINT} {
		set.Val[(s-1)/64] |= 1 << ((s - 1) % 64)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, &was); err != nil {
		return func() {}
	}
	return func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &was, nil) }
}

// inherit goes on with the server that another keeper started.
func (d *duty) inherit(in *Inheritance) error {
	s := in.d.Server
	ctl := os.NewFile(uintptr(s.Control), "server")
	l, err := newLink(ctl)
	if err != nil {
		return err
	}
	d.current, d.number = s.Program.program(), s.Number
	if in.d.Previous != nil {
		d.previous = in.d.Previous.program()
		d.programs = append(d.programs, d.previous)
	}
	d.programs = append(d.programs, d.current)
	if d.serving, err = d.adopt(s.PID, l, d.current, s.Number); err != nil {
		return err
	}
	d.serving.ready, d.serving.reigns = true, s.Reigns
	d.serving.broker.speaks.Store(s.Speaks)
	d.change = &change{program: d.current, was: d.current, server: d.serving}
	if in.d.Asker != 0 {
		if l, err := newLink(os.NewFile(uintptr(in.d.Asker), "operator")); err == nil { // else they learn nothing
			d.change.asker = l
		}
	}
	d.config.Event(Event{Kind: Became, Program: d.own.name})
	d.point()
	d.crown()
	d.finish(nil)
	return nil
}
