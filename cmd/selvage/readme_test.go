package main

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/cmd/selvage/up"
	"github.com/selvage-edge/selvage/runtime/tooltest"
)

// The commands of README's tour and of its chapter on KV, as they stand there, on a fleet like the one
// that its first command starts.
func TestReadmeTour(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and deploys the examples on three PoPs")
	}
	tree, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir, commands := tour(t, tree)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	layout, err := up.Plan(up.Options{Dir: filepath.Join(dir, ".selvage"), PoPs: 3, Base: netip.MustParseAddr("127.0.0.80"), Port: 8443})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Fleet: &up.Fleet{Layout: layout, Selvage: exe}}
	t.Cleanup(w.Stop)
	t.Cleanup(func() { w.showLogs(t) })
	if err := w.Boot(t.Context(), func(string, ...any) {}); err != nil {
		t.Fatal(err)
	}
	said := ""
	for _, c := range commands {
		if strings.HasPrefix(c, "curl ") {
			tooltest.Path(t, "curl", "curl")
		}
		c = strings.ReplaceAll(c, "127.0.0.11", layout.Edges[0].Addr.String()) // where `selvage up` has its first PoP
		cmd := exec.CommandContext(context.Background(), "sh", "-c", c)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "SELVAGE_SDK="+filepath.Join(tree, "sdk", "go"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", c, err, out)
		}
		said += string(out)
	}
	for _, want := range []string{"hello from greeter in lon", "HTTP/3.0 200", "Location: https://example.com/docs", "link:docs", "httpbin.edge.localhost", "live",
		"max stale 1m0s", `"metadata": "the first"`, `"stale_ms": 0`, "put visits 2", "2 keys written", "READS AT MOST SO OLD"} {
		if !strings.Contains(said, want) {
			t.Errorf("the commands never said %q", want)
		}
	}
}

// tour returns the commands of both chapters but those that build the program and start the
// fleet, and a folder where they work: bin/selvage is this binary.
func tour(t *testing.T, tree string) (dir string, commands []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(tree, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(section(t, string(text), "A tour") + section(t, string(text), "KV")) {
		c, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		if ok && c != "make build" && !strings.HasPrefix(c, "bin/selvage up") {
			commands = append(commands, c)
		}
	}
	if len(commands) < 18 {
		t.Fatalf("README's tour and KV have %d commands: %q", len(commands), commands)
	}
	dir = t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"sdk": filepath.Join(tree, "sdk"), "bin/selvage": exe} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, link)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, commands
}

// section is the text below one of README's headings.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("README has no section %q", heading)
	}
	s, _, _ := strings.Cut(rest, "\n## ")
	return s + "\n"
}
