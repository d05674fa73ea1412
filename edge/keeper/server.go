package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	errConfig = errors.New("keeper: the server cannot serve with this configuration; its own message says why")
	errKilled = errors.New("keeper: the server did not finish in time and was killed")
)

// server is one server process, from its start to its end.
type server struct {
	cmd    *exec.Cmd
	broker *broker
}

// serve runs one server until it is gone: by itself, or drained because ctx is done.
func (k *Keeper) serve(ctx context.Context) (pid int, err error) {
	s, err := k.start()
	if err != nil {
		return 0, err
	}
	pid = s.cmd.Process.Pid
	k.config.Event(Event{Kind: Started, PID: pid})
	result := make(chan error, 1)
	go func() { result <- s.cmd.Wait() }()
	go s.broker.serve()
	err = k.watch(ctx, s, result)
	s.broker.close()
	return pid, err
}

// watch waits for the end of s and tells of its readiness on the way.
func (k *Keeper) watch(ctx context.Context, s *server, result <-chan error) error {
	isReady := s.broker.ready
	for {
		select {
		case <-isReady:
			k.config.Event(Event{Kind: Ready, PID: s.cmd.Process.Pid})
			isReady = nil
		case err := <-s.broker.broken:
			// What breaks the protocol is not a server any more.
			_ = s.cmd.Process.Kill()
			<-result
			return err
		case err := <-result:
			return ended(s.cmd.ProcessState, err)
		case <-ctx.Done():
			return k.drain(s, result)
		}
	}
}

// drain asks s to finish. Our own sockets close first: once the server closes
// its own, clients are refused and go elsewhere, rather than waiting in a queue.
func (k *Keeper) drain(s *server, result <-chan error) error {
	k.config.Event(Event{Kind: Draining, PID: s.cmd.Process.Pid})
	k.Close()
	_ = s.cmd.Process.Signal(unix.SIGTERM)
	late := time.NewTimer(k.config.Drain)
	defer late.Stop()
	select {
	case err := <-result:
		if s.cmd.ProcessState.Success() {
			return nil
		}
		return ended(s.cmd.ProcessState, err)
	case <-late.C:
		_ = s.cmd.Process.Kill()
		<-result
		return fmt.Errorf("%w (%s)", errKilled, k.config.Drain)
	}
}

func ended(ps *os.ProcessState, err error) error {
	if ps.ExitCode() == ExitConfig {
		return errConfig
	}
	if err == nil {
		err = errors.New("exit status 0")
	}
	return fmt.Errorf("keeper: the server ended by itself: %w", err)
}

func (k *Keeper) start() (*server, error) {
	ours, theirs, err := controlPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	l, err := newLink(ours)
	if err != nil {
		return nil, err
	}
	cmd := k.command(theirs)
	if err := cmd.Start(); err != nil {
		l.close()
		return nil, fmt.Errorf("keeper: start the server: %w", err)
	}
	return &server{cmd: cmd, broker: newBroker(l, k.config.Helpers)}, nil
}

// command is the server's: this very executable, even if its file was replaced.
func (k *Keeper) command(ctl *os.File) *exec.Cmd {
	names, files := []string{control}, []*os.File{ctl}
	for _, s := range k.sockets {
		names, files = append(names, s.name), append(files, s.file)
	}
	return &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       append([]string{os.Args[0]}, k.config.Args...),
		Env:        append(withoutFDs(os.Environ()), fdsVariable+"="+strings.Join(names, ":")),
		Stdout:     os.Stdout,
		Stderr:     os.Stderr,
		ExtraFiles: files,
		// A group of its own: a Ctrl-C is the keeper's to pass on.
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	}
}

func withoutFDs(env []string) []string {
	kept := make([]string, 0, len(env)+1)
	for _, e := range env {
		if !strings.HasPrefix(e, fdsVariable+"=") {
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
