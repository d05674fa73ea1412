package up

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/selvage-edge/selvage/runtime/plain"
)

// Process is one running node.
type Process struct {
	Node Node
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // set before done is closed
}

// Start runs `selvage ARGS` for n with its output in n.Log. The process is in a
// group of its own, so that an interrupt at the terminal reaches only the caller,
// who then stops it in order. It dies with the caller.
func Start(selvage string, n Node, env []string, args ...string) (*Process, error) {
	log, err := os.OpenFile(n.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("up: %w", err)
	}
	defer log.Close()
	line := slices.Concat(n.Within, []string{selvage}, args)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := spawn(cmd); err != nil {
		return nil, fmt.Errorf("up: start %s: %w", n.Name, err)
	}
	p := &Process{Node: n, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// starts carries commands to the one thread that starts them.
var starts = sync.OnceValue(func() chan func() {
	work := make(chan func())
	go func() {
		// The kernel sends the parent-death signal when the thread that started a child
		// ends, not the process; this thread is kept until the process ends.
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func spawn(cmd *exec.Cmd) error {
	failed := make(chan error)
	starts() <- func() { failed <- cmd.Start() }
	return <-failed
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Servers lists the process numbers of the servers under a node's keeper: one, or
// two while it is upgraded.
func (p *Process) Servers() (pids []int, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.PID()))
	if err != nil {
		return nil, err
	}
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for _, child := range strings.Fields(string(b)) {
			args, err := os.ReadFile(filepath.Join("/proc", child, "cmdline"))
			if err != nil {
				continue // it ended meanwhile
			}
			if a := bytes.Split(args, []byte{0}); len(a) > 1 && string(a[1]) == "server" {
				pid, err := strconv.Atoi(child)
				if err != nil {
					return nil, err
				}
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

// Done is closed when the process has ended; Err tells how.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how it ended; call after Done.
func (p *Process) Err() error { return p.err }

// Stop asks the process to end, waits up to grace, then kills its group.
func (p *Process) Stop(grace time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.done:
	case <-time.After(grace):
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
		<-p.done
	}
}

// Ready waits until the node answers 200 at path on its admin address, the
// process ends, or ctx does.
func (p *Process) Ready(ctx context.Context, path string) error {
	cl := &http.Client{Timeout: 2 * time.Second}
	url := "http://" + p.Node.Admin + path
	var last error
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := cl.Do(r)
		if err == nil {
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // for the message only
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK || strings.HasPrefix(string(text), "draining") { // it serves; somebody drained it
				return nil
			}
			err = fmt.Errorf("%s answers %d: %s", url, resp.StatusCode, plain.Line(string(text), len(text)))
		}
		last = err
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %w; see %s", p.Node.Name, errors.Join(p.err, last), p.Node.Log)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; see %s", p.Node.Name, last, p.Node.Log)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
