package controlnode

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/jail"
)

// TestMain lets this test binary be a control node's process that somebody took over.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "escaped" {
		os.Exit(beEscaped(os.Args[2]))
	}
	os.Exit(m.Run())
}

// attempts are what somebody in a control node's process tries, below a folder that
// has its state, somebody's key and a socket.
var attempts = []struct {
	name string
	do   func(dir string) error
}{
	{"read a key", func(dir string) error { return read(filepath.Join(dir, "key")) }},
	{"read a key through its root", func(dir string) error { return read("/proc/self/root" + filepath.Join(dir, "key")) }},
	{"read a key by a link", func(dir string) error { return read(filepath.Join(dir, "state", "link")) }},
	{"write a key", func(dir string) error {
		f, err := os.OpenFile(filepath.Join(dir, "key"), os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		return err
	}},
	{"make a file outside", func(dir string) error { return os.WriteFile(filepath.Join(dir, "made"), nil, 0o600) }},
	{"list processes", func(string) error { _, err := os.ReadDir("/proc"); return err }},
	{"read another process's environment", func(string) error { return read("/proc/" + strconv.Itoa(os.Getppid()) + "/environ") }},
	{"signal another process", func(string) error { return unix.Kill(os.Getppid(), unix.SIGCONT) }},
	{"run a program", func(string) error { return exec.Command("/bin/true").Run() }},
	{"run its own program", func(string) error { return exec.Command("/proc/self/exe", "-test.run", "^$").Run() }},
	{"speak to a socket by name", func(dir string) error {
		c, err := net.Dial("unix", filepath.Join(dir, "socket"))
		if err == nil {
			c.Close()
		}
		return err
	}},
}

// work is what a control node goes on to do.
var work = []struct {
	name string
	do   func(dir string) error
}{
	{"keep its state", func(dir string) error {
		old, name := filepath.Join(dir, "state", "old"), filepath.Join(dir, "state", "sub", "file")
		return errors.Join(os.Mkdir(filepath.Dir(name), 0o700), os.WriteFile(name, []byte("x"), 0o600), os.Rename(filepath.Dir(name), old), os.RemoveAll(old))
	}},
	{"listen and connect", func(string) error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			c.Close()
		}
		return err
	}},
}

func read(path string) error {
	_, err := os.ReadFile(path)
	return err
}

type met struct{ Missing, Attempts, Work map[string]string }

func beEscaped(dir string) int {
	missing, err := lockIn(filepath.Join(dir, "state"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	m := met{map[string]string{}, map[string]string{}, map[string]string{}}
	for _, w := range missing {
		m.Missing[w.What] = w.Why.Error()
	}
	for _, a := range attempts {
		m.Attempts[a.name] = text(a.do(dir))
	}
	for _, a := range work {
		m.Work[a.name] = text(a.do(dir))
	}
	if err := json.NewEncoder(os.Stdout).Encode(m); err != nil {
		return 1
	}
	return 0
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Who has taken over a control node's process has its state and the network, and
// nothing else of the machine, where the same can be had without the jail.
func TestEscapedControl(t *testing.T) {
	if lacks := jail.ServerLacks(); len(lacks) > 0 && os.Getenv("CI") != "true" {
		t.Skipf("this machine does not give %v", lacks)
	}
	dir := t.TempDir()
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "state"), 0o700), os.WriteFile(filepath.Join(dir, "key"), []byte("secret"), 0o600),
		os.Symlink(filepath.Join(dir, "key"), filepath.Join(dir, "state", "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, a := range attempts {
		if err := a.do(dir); err != nil {
			t.Errorf("outside of a jail nobody can %s either: %v", a.name, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "made")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "escaped", dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var m met
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Missing) > 0 {
		t.Errorf("missing: %v", m.Missing)
	}
	for _, a := range attempts {
		if got, tried := m.Attempts[a.name]; !tried || got == "" {
			t.Errorf("it can %s", a.name)
		}
	}
	for _, a := range work {
		if got, tried := m.Work[a.name]; !tried || got != "" {
			t.Errorf("it cannot %s: %s", a.name, got)
		}
	}
}
