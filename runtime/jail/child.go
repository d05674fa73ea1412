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
	exitAborted  = 13 // also in abort_amd64.s
	exitUsage    = 64
)

// order is one child to run.
type order struct {
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
	defer c.prints.Close()
	defer c.output.Close()
	begin := time.Now()
	timed, cancel := context.WithTimeout(ctx, o.wall)
	defer cancel()
	release := context.AfterFunc(timed, c.kill)
	c.wait()
	release()
	if ctx.Err() != nil {
		return Outcome{}, context.Cause(ctx)
	}
	return c.outcome(o, time.Since(begin), timed.Err() != nil)
}

func startChild(o order) (*child, error) {
	output, err := sealed.Create("selvage-output")
	if err != nil {
		return nil, err
	}
	prints, err := sealed.Bounded("selvage-prints", maxText)
	if err != nil {
		output.Close()
		return nil, err
	}
	c := &child{output: output, prints: prints}
	c.cmd = &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        []string{"selvage", "helper", o.verb.String()},
		Env:         []string{},
		Dir:         "/",
		Stdin:       stdin(o.input),
		Stdout:      prints,
		Stderr:      prints,
		ExtraFiles:  []*os.File{output}, // fd 3
		SysProcAttr: o.means.attributes(o.uid),
	}
	if err := c.cmd.Start(); err != nil {
		output.Close()
		prints.Close()
		return nil, fmt.Errorf("jail: start a helper: %w", err)
	}
	return c, nil
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

func (c *child) outcome(o order, took time.Duration, timedOut bool) (Outcome, error) {
	ps := c.cmd.ProcessState
	out := Outcome{Wall: took, CPU: ps.UserTime() + ps.SystemTime()}
	said := c.said()
	out.Status = classify(ps.Sys().(syscall.WaitStatus), said, timedOut, cpuGone(out.CPU, table[o.verb]))
	switch out.Status {
	case Done, Declined:
		return c.handOver(o.verb, out)
	case TimedOut:
		said = fmt.Sprintf("limits are %s of processor time and %s in all; it used %s and %s",
			table[o.verb].cpu, o.wall, out.CPU.Round(time.Millisecond), took.Round(time.Millisecond))
	case OutOfMemory:
		said = fmt.Sprintf("limit is %d MiB", table[o.verb].data>>20)
	}
	return withText(out, said)
}

// cpuGone allows for the kernel, which counts towards the limit more finely than
// it reports.
func cpuGone(used time.Duration, l limits) bool { return used >= l.cpu*9/10 }

// classify says how a helper ended. A kill that is neither the wall's nor the
// processor limit's is the kernel's, out of memory.
func classify(ws syscall.WaitStatus, said string, timedOut, noTime bool) Status {
	killed := ws.Signaled() && (ws.Signal() == syscall.SIGKILL || ws.Signal() == syscall.SIGXCPU)
	switch {
	case ws.Exited() && ws.ExitStatus() == exitDone:
		return Done
	case ws.Exited() && ws.ExitStatus() == exitDeclined:
		return Declined
	case ws.Exited() && ws.ExitStatus() == exitMemory:
		return OutOfMemory
	case timedOut, killed && noTime:
		return TimedOut
	case killed, noMemory(said):
		return OutOfMemory
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
