package jail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/sealed"
)

// How the child ends when it ends by itself. Go's own crashes end with 2.
const (
	exitDone     = 0
	exitDeclined = 10
	exitMemory   = 11
	exitConfine  = 12
	exitUsage    = 64
)

// order is one child to run.
type order struct {
	exe   string
	verb  Verb
	input *os.File // nil for probe
	uid   int
	means means
	wall  time.Duration
}

// child is one running helper. Its files are the parent's view: what it prints
// goes to a bounded file, what it gives back to one that it seals.
type child struct {
	cmd    *exec.Cmd
	output *os.File
	prints *os.File
	alive  *os.File // our end of the lifeline
	guard  struct {
		sync.Mutex
		reaped bool // the process id may belong to somebody else from here on
	}
}

// runChild runs one helper and waits until nothing of it is left.
func runChild(ctx context.Context, o order) (Outcome, error) {
	// The parent-death signal is sent when the thread that cloned dies, so that
	// thread must be there until the child is gone.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := startChild(o)
	if err != nil {
		return Outcome{}, err
	}
	defer c.close()
	before := oomKills()
	begin := time.Now()
	timed, cancel := context.WithTimeout(ctx, o.wall)
	defer cancel()
	release := context.AfterFunc(timed, c.kill)
	c.wait()
	release()
	if ctx.Err() != nil {
		return Outcome{}, context.Cause(ctx)
	}
	return c.outcome(o, ending{took: time.Since(begin), timedOut: timed.Err() != nil, oomKills: oomKills() - before})
}

// The files of a child beside the standard ones.
const (
	outputFD = 3
	lifeline = 4 // the reading end of a pipe that the parent holds; only until the child is confined
)

func startChild(o order) (*child, error) {
	c := &child{}
	theirs, err := c.open()
	if err != nil {
		c.close()
		return nil, err
	}
	defer theirs.Close()
	c.cmd = &exec.Cmd{
		Path:        o.exe,
		Args:        []string{"selvage", "helper", o.verb.String()},
		Env:         []string{},
		Dir:         "/",
		Stdin:       stdin(o.input),
		Stdout:      c.prints,
		Stderr:      c.prints,
		ExtraFiles:  []*os.File{c.output, theirs},
		SysProcAttr: o.means.attributes(o.uid),
	}
	if err := c.cmd.Start(); err != nil {
		c.close()
		return nil, fmt.Errorf("jail: start a helper: %w", err)
	}
	return c, nil
}

// open makes the child's files; the child's end of the lifeline is returned.
func (c *child) open() (theirs *os.File, err error) {
	if c.output, err = sealed.Create("selvage-output"); err != nil {
		return nil, err
	}
	if c.prints, err = sealed.Bounded("selvage-prints", maxText); err != nil {
		return nil, err
	}
	if theirs, c.alive, err = os.Pipe(); err != nil {
		return nil, fmt.Errorf("jail: %w", err)
	}
	return theirs, nil
}

func (c *child) close() {
	for _, f := range []*os.File{c.output, c.prints, c.alive} {
		if f != nil {
			f.Close()
		}
	}
}

// stdin keeps a nil file from becoming a reader that is not nil.
func stdin(f *os.File) io.Reader {
	if f == nil {
		return nil
	}
	return f
}

// kill ends the helper's whole group, unless it is gone already.
func (c *child) kill() {
	c.guard.Lock()
	defer c.guard.Unlock()
	if !c.guard.reaped {
		_ = unix.Kill(-c.cmd.Process.Pid, unix.SIGKILL)
	}
}

// wait waits for the helper, kills what it left in its group while its process
// id still cannot be given to another, and takes its status.
func (c *child) wait() {
	for {
		err := unix.Waitid(unix.P_PID, c.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	c.kill()
	c.guard.Lock()
	defer c.guard.Unlock()
	_ = c.cmd.Wait() // the state says it all
	c.guard.reaped = true
}

// ending is what is known of how a helper ended, beside its status.
type ending struct {
	took     time.Duration
	timedOut bool // by the wall
	oomKills int  // processes that the kernel killed meanwhile because memory was short
}

func (c *child) outcome(o order, e ending) (Outcome, error) {
	ps := c.cmd.ProcessState
	out := Outcome{Wall: e.took, CPU: ps.UserTime() + ps.SystemTime()}
	said := c.said()
	ws := ps.Sys().(syscall.WaitStatus)
	out.Status = classify(ws, said, e.timedOut)
	if out.Status == Killed && out.CPU >= table[o.verb].cpu {
		out.Status = TimedOut // the kernel's own kill for that, after the signal
	}
	switch out.Status {
	case Done, Declined:
		return c.handOver(o.verb, out)
	case TimedOut:
		said = fmt.Sprintf("limits are %s of processor time and %s in all; it used %s and %s",
			table[o.verb].cpu, o.wall, out.CPU.Round(time.Millisecond), e.took.Round(time.Millisecond))
	case OutOfMemory:
		said = fmt.Sprintf("limit is %d MiB", table[o.verb].data>>20)
	case Killed:
		said = killed(o.verb, resident(ps), e.oomKills)
	}
	return withText(out, said)
}

// killed says what is known of a kill that is not the wall's and that no limit of
// the helper's makes: a limit on memory makes allocating fail.
func killed(v Verb, resident int64, oomKills int) string {
	held := fmt.Sprintf("it held %d MiB at most, of the %d it may", resident>>20, table[v].data>>20)
	if oomKills > 0 {
		return "it was killed while the kernel killed for want of memory, of the machine or of its control group; " + held + ": free memory and try again"
	}
	return "it was killed from outside (SIGKILL); for want of memory the kernel killed nothing meanwhile, if it tells; " + held + ": try again"
}

// resident is the most memory the process held, in bytes.
func resident(ps *os.ProcessState) int64 {
	if u, ok := ps.SysUsage().(*syscall.Rusage); ok {
		return u.Maxrss << 10
	}
	return 0
}

// oomKills is how many processes the kernel killed since the start because memory
// was short, of the machine or of a control group; 0 where it does not tell.
func oomKills() int {
	b, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(text)) // not a number: not told
			return n
		}
	}
	return 0
}

// classify says how a helper ended. A kill that is not the wall's came from outside.
func classify(ws syscall.WaitStatus, said string, timedOut bool) Status {
	status := -1
	if ws.Exited() {
		status = ws.ExitStatus()
	}
	switch {
	case status == exitDone:
		return Done
	case status == exitDeclined:
		return Declined
	case timedOut, status == exitSignal+int(unix.SIGXCPU):
		return TimedOut
	case status == exitMemory, status >= 0 && noMemory(said):
		return OutOfMemory
	case ws.Signaled() && ws.Signal() == unix.SIGKILL:
		return Killed
	default:
		return Crashed
	}
}

// noMemory knows the last words of an allocator: Go's, Rust's, the kernel's.
func noMemory(said string) bool {
	for _, s := range []string{"out of memory", "cannot allocate", "Cannot allocate", "failed to allocate", "memory allocation of"} {
		if strings.Contains(said, s) {
			return true
		}
	}
	return false
}

// handOver passes the output on if the helper sealed it within its bound.
func (c *child) handOver(v Verb, out Outcome) (Outcome, error) {
	limit := v.MaxOutput()
	if out.Status == Declined {
		limit = maxText
	}
	if v == probe {
		return out, nil
	}
	if _, err := sealed.Check(c.output, limit); err != nil {
		out.Status = Crashed
		return withText(out, "it gave back what cannot be taken: "+err.Error())
	}
	f, err := sealed.Dup(c.output)
	out.File = f
	return out, err
}

func withText(out Outcome, text string) (Outcome, error) {
	f, err := sealed.New("selvage-text", []byte(text))
	out.File = f
	return out, err
}

// said is how what the helper printed begins: a crash says first what it is.
func (c *child) said() string {
	const head = 2 << 10
	b := make([]byte, maxText)
	n, _ := c.prints.ReadAt(b, 0)
	b = bytes.Trim(b[:n], "\x00 \n")
	return string(b[:min(len(b), head)])
}
