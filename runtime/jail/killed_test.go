package jail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/tooltest"
)

// Who is killed from outside did not need too much memory.
func TestKilledFromOutside(t *testing.T) {
	l := open(t, Config{})
	done := make(chan error, 1)
	go func() { _, err := l.Run(t.Context(), Prepare, []byte("sleep")); done <- err }()
	var helper int
	waitUntil(t, func() bool {
		for _, pid := range children(os.Getpid()) {
			if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.HasSuffix(string(b), "\x00"+confined+"\x00") {
				helper = pid
			}
		}
		return helper != 0
	})
	if err := unix.Kill(helper, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err := <-done
	if !errors.Is(err, ErrKilled) || errors.Is(err, ErrMemory) || !strings.Contains(err.Error(), "from outside") || !strings.Contains(err.Error(), "of the 512 it may") {
		t.Errorf("err = %v", err)
	}
}

// Where the machine or a control group has less memory than the helper may have,
// the kernel kills it: that is told, and not as if a limit had been reached.
func TestKilledForWantOfMemory(t *testing.T) {
	group := smallGroup(t, 200<<20)
	cmd := exec.Command("/proc/self/exe", "starved")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	in.Close() // it may begin
	said, err := io.ReadAll(out)
	if err = errors.Join(err, cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	if s := string(said); !strings.Contains(s, ErrKilled.Error()) || !strings.Contains(s, "for want of memory, of the machine") || !strings.Contains(s, "of the 2048 it may") {
		t.Errorf("%s", s)
	}
}

// beStarved waits for the end of its input and says how a helper fares that wants memory.
func beStarved() int {
	_, _ = io.Copy(io.Discard, os.Stdin)
	l, err := Open(Config{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer l.Close()
	_, err = l.Run(context.Background(), Compile, []byte("eat"))
	fmt.Println(err)
	return 0
}

// smallGroup is a control group of processes that may have so much memory together.
func smallGroup(t *testing.T, bytes int) string {
	t.Helper()
	for _, g := range []struct{ mount, limit, swap string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"},
		{"/sys/fs/cgroup", "memory.max", "memory.swap.max"},
	} {
		dir := filepath.Join(g.mount, "selvage-test-"+strconv.Itoa(os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(dir) })
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue // a plain folder
		}
		if os.WriteFile(filepath.Join(dir, g.limit), []byte(strconv.Itoa(bytes)), 0o600) != nil {
			continue
		}
		swap := strconv.Itoa(bytes) // of both together
		if g.limit == "memory.max" {
			swap = "0"
		}
		_ = os.WriteFile(filepath.Join(dir, g.swap), []byte(swap), 0o600) // without swap there is no such file
		return dir
	}
	tooltest.Machine(t, "no control group can be made here")
	return ""
}
