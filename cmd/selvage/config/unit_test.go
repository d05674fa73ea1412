package config

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/runtime/tooltest"
)

// The units for systemd are ones that it takes without a remark.
func TestShippedUnits(t *testing.T) {
	units, err := filepath.Glob("../../../configs/*.service")
	if err != nil || len(units) < 2 {
		t.Fatalf("%v, %v", units, err)
	}
	tool := tooltest.Path(t, "systemd-analyze", "systemd")
	for _, u := range units {
		text, err := os.ReadFile(u)
		if err != nil {
			t.Fatal(err)
		}
		// The program and the user of an installation are not here.
		here := strings.NewReplacer("/usr/local/bin/selvage", "/bin/true", "\nUser=selvage", "", "\nGroup=selvage", "").Replace(string(text))
		if here == string(text) || !strings.Contains(here, "ExecStart=/bin/true") {
			t.Errorf("%s starts something else", u)
		}
		path := filepath.Join(t.TempDir(), filepath.Base(u))
		write(t, path, here)
		out, err := exec.Command(tool, "verify", "--man=no", path).CombinedOutput()
		if err != nil || len(strings.TrimSpace(string(out))) > 0 {
			t.Errorf("%s: %v\n%s", filepath.Base(u), err, out)
		}
	}
}

// The examples for BGP speakers are ones that these take.
func TestShippedSpeakers(t *testing.T) {
	for tool, args := range map[string][]string{"bird": {"-p", "-c"}, "exabgp": {"--test"}} {
		path, err := exec.LookPath(tool)
		if err != nil {
			if tool == "bird" {
				tooltest.Need(t, "bird: apt-get install bird2")
			}
			t.Logf("%s is not here: its example is not checked", tool)
			continue
		}
		text, err := os.ReadFile("../../../configs/" + tool + ".conf")
		if err != nil {
			t.Fatal(err)
		}
		conf := filepath.Join(t.TempDir(), tool+".conf")
		write(t, conf, strings.ReplaceAll(string(text), "/usr/local/bin/selvage", "/bin/true")) // of an installation
		cmd := exec.Command(path, append(args, conf)...)
		cmd.Dir = t.TempDir()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", tool, err, out)
		}
	}
}
