package jail

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// On a kernel without the locks, which a filter plays here: helpers run, the
// server starts, and both say what is missing and what to do.
func TestKernelWithoutLocks(t *testing.T) {
	needLocks(t) // a filter cannot be played without filters
	cmd := exec.Command("/proc/self/exe", "bare", t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	must(t, err)
	var got bareReport
	must(t, json.Unmarshal(out, &got))
	if got.Echo != "hello" {
		t.Errorf("a helper gave back %q", got.Echo)
	}
	for who, missing := range map[string][]string{"helpers": got.Helpers, "server": got.Server} {
		text := strings.Join(missing, "\n")
		for _, want := range []string{"seccomp filter: ", "landlock: ", "CONFIG_SECCOMP_FILTER=y", "CONFIG_SECURITY_LANDLOCK=y", "function not implemented"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s do not say %q:\n%s", who, want, text)
			}
		}
	}
	checkCapabilities(t, got.All)
	for _, c := range got.All[:2] {
		if c.OK {
			t.Errorf("%s: said to be there", c.Name)
		}
	}
	if got.NoNewPrivs != "1" || got.Caps != "" && !strings.HasSuffix(got.Caps, "402") {
		t.Errorf("the server kept no_new_privs %s, capabilities %s", got.NoNewPrivs, got.Caps)
	}
}

type bareReport struct {
	Echo             string
	Helpers, Server  []string
	All              []Capability
	NoNewPrivs, Caps string
}

// beBare is a keeper and then a server on such a kernel.
func beBare() int {
	r, err := bare(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_ = json.NewEncoder(os.Stdout).Encode(r)
	return 0
}

func bare(state string) (r bareReport, err error) {
	if err := forgetLocks(); err != nil {
		return r, err
	}
	l, err := Open(Config{})
	if err != nil {
		return r, err
	}
	defer l.Close()
	for _, m := range l.Missing() {
		r.Helpers = append(r.Helpers, m.String())
	}
	in, err := l.Run(context.Background(), Prepare, []byte("echo hello"))
	if err != nil {
		return r, err
	}
	r.Echo, r.All = string(in.Output), Capabilities()
	missing, err := Server(ServerConfig{State: state})
	for _, m := range missing {
		r.Server = append(r.Server, m.String())
	}
	r.NoNewPrivs, r.Caps = statusOf(os.Getpid(), unix.Gettid(), "NoNewPrivs"), strings.TrimLeft(statusOf(os.Getpid(), unix.Gettid(), "CapPrm"), "0")
	return r, err
}

// forgetLocks has the kernel say to this process, and to its children, that it has neither.
func forgetLocks() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := noNewPrivileges(); err != nil {
		return err
	}
	return install(assemble([]rule{{nr: unix.SYS_SECCOMP, then: absent}, {nr: unix.SYS_LANDLOCK_CREATE_RULESET, then: absent}}, allow))
}
