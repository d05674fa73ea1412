package doctor

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/runtime/jail"
)

func find(t *testing.T, all []Finding, name string) Finding {
	t.Helper()
	for _, f := range all {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("nothing is said of %s: %+v", name, all)
	return Finding{}
}

// On the machine of the tests everything is looked at, and whatever is not ok says what it means.
func TestThisMachine(t *testing.T) {
	all := Examine(Options{})
	for _, name := range []string{"kernel", "memory reset (PAGEMAP_SCAN)", "guard pages (MADV_GUARD)", "sealed memory (memfd)", "vm.max_map_count", "open files (nofile)", "IPv6", "clock", "jail: seccomp filter"} {
		find(t, all, name)
	}
	for _, f := range all {
		if f.Found == "" || f.Level != OK && f.Remedy == "" && f.Means == "" {
			t.Errorf("%+v", f)
		}
	}
	if f := find(t, all, "sealed memory (memfd)"); f.Level != OK {
		t.Errorf("the tests themselves need it: %+v", f)
	}
}

func TestVersions(t *testing.T) {
	for release, want := range map[string]bool{"6.6.99": true, "6.7.0": false, "6.13-rc1": false, "5.15.0-100-generic": true, "7.0": false} {
		v, err := parseVersion(release)
		if err != nil || v.less(scanKernel) != want {
			t.Errorf("%s is older: %v, %v", release, !want, err)
		}
	}
	if _, err := parseVersion("plan 9"); err == nil {
		t.Error("no version at all")
	}
}

func TestClock(t *testing.T) {
	for off, want := range map[time.Duration]Level{0: OK, -time.Second: OK, 30 * time.Second: Warn, -time.Hour: Fail} {
		if got := skew(off); got.Level != want {
			t.Errorf("%v: %+v", off, got)
		}
	}
	all := clock(func() (time.Time, error) { return time.Now().Add(10 * time.Minute), nil })
	if f := find(t, all, "clock against control"); f.Level != Fail {
		t.Errorf("%+v", f)
	}
	all = clock(func() (time.Time, error) { return time.Time{}, errors.New("nobody answers") })
	if f := find(t, all, "clock against control"); f.Level != Warn || f.Found != "nobody answers" {
		t.Errorf("%+v", f)
	}
}

// A node's configuration whose every part is wrong.
func TestEdgeThatCannotStart(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	for _, err := range []error{os.Mkdir(open, 0o755), os.Chmod(open, 0o755), os.WriteFile(filepath.Join(dir, "key"), nil, 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c := config.DefaultEdge()
	c.Node.State = open
	c.Listen.Public, c.Listen.Admin = taken.Addr().String(), "192.0.2.1:1"
	c.Listen.Peer, c.Listen.Gossip = "127.0.0.1:0", "127.0.0.1:0"
	c.TLS.Certificates = []config.Certificate{{Cert: filepath.Join(dir, "key"), Key: filepath.Join(dir, "key")}, {Cert: filepath.Join(dir, "none"), Key: filepath.Join(dir, "none")}}
	all := edge(&c)
	for name, want := range map[string]Level{
		"node.state": Fail, "listen.public": Warn, "listen.admin": Fail, "listen.peer": OK, "tls.certificates[0]": Fail,
		"tls.certificates[0].key": Fail, "tls.certificates[1]": Fail, "tls.certificates[1].key": Fail,
	} {
		if f := find(t, all, name); f.Level != want || want != OK && f.Remedy == "" {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if f := find(t, all, "node.state"); !strings.Contains(f.Remedy, "chmod 700") {
		t.Errorf("%+v", f)
	}
	if Worst(all) != Fail {
		t.Error("it is not told that the node cannot start")
	}
	if f := space("x", dir, 1<<62); f.Level != Fail {
		t.Errorf("no room at all: %+v", f)
	}
	c.Node.State = filepath.Join(dir, "not", "there")
	if f := find(t, edge(&c), "node.state"); f.Level != OK {
		t.Errorf("it is made at the first start: %+v", f)
	}
}

// What stands around control's own process is told, and what does not.
func TestControlJail(t *testing.T) {
	c := config.DefaultControl()
	c.Control.State = t.TempDir()
	c.Listen = config.ControlListen{API: "127.0.0.1:0", Peer: "127.0.0.1:0", Gossip: "127.0.0.1:0", Admin: "127.0.0.1:0"}
	want := OK
	if len(jail.ServerLacks()) > 0 {
		want = Warn
	}
	if f := find(t, control(&c), "control's jail"); f.Level != want {
		t.Errorf("%+v", f)
	}
	f := controlJail([]jail.Missing{{What: "landlock", Why: errors.New("it is off; add it to lsm=")}})
	if f.Level != Warn || !strings.Contains(f.Found, "add it to lsm=") || f.Means == "" || f.Remedy == "" {
		t.Errorf("%+v", f)
	}
}

// A lock that is held is seen, and is not taken to see it.
func TestIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, held := range []bool{false, true, false} {
		how := unix.LOCK_UN
		if held {
			how = unix.LOCK_EX
		}
		if err := unix.Flock(int(f.Fd()), how); err != nil {
			t.Fatal(err)
		}
		if isLocked(path) != held {
			t.Errorf("held %v is not seen", held)
		}
	}
	if isLocked(path + "-none") {
		t.Error("a file that is not there")
	}
}
