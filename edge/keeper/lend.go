package keeper

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Launch starts this very program with args, as a process below this one that runs
// helpers for it (Lend): so that this one can give up running programs. Of the Attached
// only Run, Lost and Close are of use. The process ends with this one, or at Close; if it ends before, Lost
// is closed and its own message says why.
func Launch(args ...string) (*Attached, error) {
	ours, theirs, err := controlPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	l, err := newLink(ours)
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	failed := make(chan error)
	go func() {
		// The kernel takes the end of the thread that started a child for the end of its parent.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		p, err := lender(args, theirs)
		failed <- err
		if err == nil {
			_, _ = p.Wait() // how it ended it has said itself
		}
	}()
	if err := <-failed; err != nil {
		l.close()
		return nil, fmt.Errorf("keeper: start the process that runs helpers: %w", err)
	}
	a := attach(nil, l)
	a.ended = ended
	return a, l.send(message{kind: hello, number: speaks}, nil)
}

func lender(args []string, ctl *os.File) (*os.Process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return os.StartProcess("/proc/self/exe", append([]string{os.Args[0]}, args...), &os.ProcAttr{
		Env:   append(plainEnv(), fdsVariable+"="+control),
		Files: []*os.File{null, os.Stdout, os.Stderr, ctl},
		// A group of its own: a Ctrl-C is for who launched it.
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	})
}

// Lend runs helpers for the process that launched this one, until that is gone. A
// signal does not end it: who launched it may have work to finish.
func Lend(h Helpers) error {
	files, l, err := inherited()
	if err != nil {
		return err
	}
	for _, f := range files {
		f.Close()
	}
	var why error
	b := newBroker(l, h, "/proc/self/exe", func(f fact, err error) {
		if f == broke {
			why = err
		}
	})
	b.serve()
	b.close()
	return why
}

// inherited takes over the files that a parent of this program left for this process,
// removes its trace from the environment and returns the control socket apart.
func inherited() (map[string]*os.File, *link, error) {
	list, ok := os.LookupEnv(fdsVariable)
	if !ok {
		return nil, nil, ErrAlone
	}
	if err := os.Unsetenv(fdsVariable); err != nil {
		return nil, nil, fmt.Errorf("keeper: attach: %w", err)
	}
	files := map[string]*os.File{}
	for i, name := range strings.Split(list, ":") {
		syscall.CloseOnExec(3 + i)
		files[name] = os.NewFile(uintptr(3+i), name)
	}
	if files[control] == nil {
		return nil, nil, fmt.Errorf("keeper: attach: %s=%q names no control socket", fdsVariable, list)
	}
	l, err := newLink(files[control])
	delete(files, control)
	return files, l, err
}

// awaitEnd waits for the process that Launch started, unless it does not heed that it is not needed any more.
func (a *Attached) awaitEnd() error {
	if a.ended == nil {
		return nil
	}
	select {
	case <-a.ended:
		return nil
	case <-time.After(patience):
		return errors.New("keeper: the process that runs helpers does not end; it will with this one")
	}
}
