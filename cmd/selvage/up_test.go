package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A fleet whose control node is killed says so and serves on; without PoPs it ends.
func TestUpGoesOnWithoutControl(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a fleet of processes")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "fleet")
	cmd := exec.Command(exe, "up", "--pops", "1", "--dir", dir, "--base", "127.0.0.240", "--port", "8443")
	errout, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(errout)
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, unless the test failed
	until := func(what string) {
		t.Helper()
		var all strings.Builder
		for !strings.Contains(all.String(), what) {
			line, err := said.ReadString('\n')
			if all.WriteString(line); err != nil {
				t.Fatalf("%v: it never said %q, but:\n%s", err, what, &all)
			}
		}
	}
	until("ready; logs in")
	kill(t, cmd.Process.Pid, "control")
	until("control-1 ended by itself (signal: killed)")
	until("the PoPs go on without control")
	env := []string{"SELVAGE_TARGET=" + filepath.Join(dir, "target.toml")}
	ask := []string{"request", "-i", "https://none.edge.localhost:8443/"}
	selvage(t, env, append(ask, "--connect", "127.0.0.241:8443")...).expect(t, exitOK, "404")
	selvage(t, env, append(ask, "--pop", "lon")...).expect(t, exitReach, "--connect IP:PORT")
	kill(t, cmd.Process.Pid, "edge")
	until("lon-1 ended by itself")
	until("no PoP is left")
	if _, err := io.Copy(io.Discard, said); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitFailed {
		t.Errorf("it ended with %v", err)
	}
}

// kill kills the child of a process that runs the command.
func kill(t *testing.T, parent int, command string) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tasks {
		children, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for _, child := range strings.Fields(string(children)) {
			args, err := os.ReadFile("/proc/" + child + "/cmdline")
			if err != nil || !strings.Contains(string(args), "\x00"+command+"\x00") {
				continue
			}
			pid, err := strconv.Atoi(child)
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("process %d has no child that is %s", parent, command)
}
