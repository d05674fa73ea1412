package node

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/selvage-edge/selvage/runtime/jail"
)

// The test binary is its own server: see beResolver.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "resolver" {
		os.Exit(beResolver(os.Args[2]))
	}
	os.Exit(m.Run())
}

func TestNameServers(t *testing.T) {
	text := "# of old: nameserver 192.0.2.9\nnameserver 192.0.2.1\noptions ndots:1\n\nnameserver  2001:db8::1 # and more\nnameserver\n"
	if got, want := nameServers(text), []string{"192.0.2.1:53", "[2001:db8::1]:53"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A resolv.conf that is replaced behind the jail's back must not send the
// node's questions to whoever listens on this machine. The server is a real one, in
// its jail; the file is replaced as a DHCP client does it.
func TestReplacedResolvConf(t *testing.T) {
	needLandlock(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "resolv.conf")
	put(t, file, "nameserver 192.0.2.1\n")
	cmd := exec.Command("/proc/self/exe", "resolver", file)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	expect := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("got %q, want %q", lines.Text(), want)
		}
	}
	expect("127.0.0.53:53") // as Go asks, while the file can be read
	put(t, file, "nameserver 192.0.2.2\n")
	fmt.Fprintln(in)
	expect("127.0.0.53:53") // rewritten in place: Go reads it again itself
	put(t, file+".new", "nameserver 192.0.2.3\n")
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in)
	expect("192.0.2.1:53")
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func needLandlock(t *testing.T) {
	t.Helper()
	for _, c := range jail.Capabilities() {
		if c.Name != "landlock" || c.OK {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("this machine does not give landlock: %s", c.Detail)
		}
		t.Skipf("this machine does not give landlock: %s", c.Detail)
	}
}

// beResolver locks itself in and says, at the start and for each line it reads,
// which server it would ask where Go would ask 127.0.0.53.
func beResolver(file string) int {
	n := &names{path: file, servers: nameServers(string(must(os.ReadFile(file)))), log: slog.New(slog.DiscardHandler)}
	state := must(os.MkdirTemp("", "state"))
	defer os.Remove(state)
	must(jail.Server(jail.ServerConfig{State: state, Read: []string{file}}))
	lines := bufio.NewScanner(os.Stdin)
	for ok := true; ok; ok = lines.Scan() {
		fmt.Println(n.server("127.0.0.53:53"))
	}
	return 0
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
