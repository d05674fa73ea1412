package jail

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCapabilities(t *testing.T) {
	checkCapabilities(t, Capabilities())
	for _, c := range Capabilities() {
		t.Logf("%-28s %-5t %s", c.Name, c.OK, c.Detail)
	}
}

// Without root every answer is still there, and what the kernel refuses is seen.
func TestCapabilitiesWithoutRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else; TestCapabilities runs without root already")
	}
	cmd := exec.Command("/proc/self/exe", "capabilities")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got capabilityReport
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	checkCapabilities(t, got.All)
	if !strings.Contains(got.Refused, "not permitted") {
		t.Errorf("a namespace without root and without a user namespace: %q, want a refusal", got.Refused)
	}
}

func checkCapabilities(t *testing.T, all []Capability) {
	t.Helper()
	want := []string{"seccomp filter", "landlock", "proc file system", "user of its own for helpers",
		"network namespace", "process namespace", "ipc namespace", "mount namespace"}
	if len(all) != len(want) {
		t.Fatalf("%d capabilities, want %d", len(all), len(want))
	}
	for i, c := range all {
		if c.Name != want[i] {
			t.Errorf("capability %d is %q, want %q", i, c.Name, want[i])
		}
		if c.Detail == "" || c.OK != (c.Remedy == "") {
			t.Errorf("%+v: it must say what was found, and what to do only if it is not there", c)
		}
	}
}

type capabilityReport struct {
	All     []Capability
	Refused string
}

func beCapabilities() int {
	err := tryClone(unix.CLONE_NEWNET)
	_ = json.NewEncoder(os.Stdout).Encode(capabilityReport{Capabilities(), fmt.Sprint(err)})
	return 0
}
