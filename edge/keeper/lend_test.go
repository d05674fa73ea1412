package keeper

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/jail"
)

// beLender is the process that Launch starts.
func beLender() int {
	h, err := jail.Open(jail.Config{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer h.Close()
	if err := Lend(h); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// child is the number of the one process below this one with that word, by the kernel.
// It waits: a process that has just been started has no command line for an instant
// (execve closes the descriptors, by which its parent knows, before it sets the line).
func child(t *testing.T, word string) (found int) {
	t.Helper()
	waitUntil(t, func() bool {
		for _, pid := range childrenOf(t, os.Getpid()) {
			if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(b), "\x00"+word) {
				found = pid
			}
		}
		return found != 0
	})
	return found
}

func childrenOf(t *testing.T, pid int) (pids []int) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name())) // that thread may have ended
		for _, f := range strings.Fields(string(b)) {
			var child int
			if _, err := fmt.Sscan(f, &child); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// A launched process runs helpers, tells how each ended, and ends when it is left.
func TestLaunch(t *testing.T) {
	a, err := Launch("lend")
	if err != nil {
		t.Fatal(err)
	}
	pid := child(t, "lend")
	if got := runHelper(a, "hello"); got != "HELLO" && got != "hello" {
		t.Errorf("a helper gave back %q", got)
	}
	for in, want := range map[string]string{"refuse": "refused: ", "panic": "crash: ", "cancelled": "context deadline exceeded"} {
		if got := runHelper(a, in); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
	// It does not end by a signal that a service's manager sends to all: its launcher may have work to finish.
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := runHelper(a, "refuse"); !strings.HasPrefix(got, "refused: ") {
		t.Errorf("after SIGTERM: %q", got)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("it is still there: %v", err)
	}
}

// A helper that is killed is told as that to who knows it, so that it is tried again.
func TestLaunchTellsOfAKill(t *testing.T) {
	a, err := Launch("lend")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	pid := child(t, "lend")
	done := make(chan error, 1)
	go func() {
		_, err := a.Run(t.Context(), jail.Compile, []byte("sleep"))
		done <- err
	}()
	for { // trial helpers end by themselves
		for _, helper := range childrenOf(t, pid) {
			if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", helper)); strings.Contains(string(b), jail.Compile.String()) {
				_ = unix.Kill(helper, unix.SIGKILL)
			}
		}
		select {
		case err := <-done:
			if !errors.Is(err, jail.ErrKilled) {
				t.Errorf("it is told %v", err)
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// Who loses it hears so: what waits, and what is asked later.
func TestLaunchedProcessDies(t *testing.T) {
	a, err := Launch("lend")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan string, 1)
	go func() { done <- runHelper(a, "sleep") }()
	if err := unix.Kill(child(t, "lend"), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-a.Lost()
	if got := <-done; !strings.Contains(got, "the keeper is gone") {
		t.Errorf("who waited hears %q", got)
	}
	if got := runHelper(a, "hello"); !strings.Contains(got, "keeper") {
		t.Errorf("who asks later hears %q", got)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}
