package jail

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/sealed"
)

// serverAttempts are what Landlock lets pass and the filter must not.
var serverAttempts = []attempt{
	{name: "chmod outside", do: func(w world) error { return os.Chmod(w.Key, 0o666) }},
	{name: "chown outside", do: func(w world) error { return os.Chown(w.Key, os.Getuid(), os.Getgid()) }},
	{name: "set times outside", do: func(w world) error { return os.Chtimes(w.Key, time.Now(), time.Now()) }},
	{name: "set an attribute outside", rare: true, do: func(w world) error { return unix.Setxattr(w.Key, "trusted.selvage", []byte("x"), 0) }},
	{name: "watch a folder outside", do: watch},
	{name: "get out through its own root", do: func(w world) error { return readSome("/proc/self/root" + w.Key) }},
	{name: "get out of the state folder", do: func(w world) error { return readSome(filepath.Join(w.state(), "link")) }},
	{name: "shared memory", do: func(world) error { return sharedMemory() }},
	{name: "sequenced unix socket", do: socket(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)},
	{name: "ping socket", rare: true, do: socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)},
}

func watch(w world) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.InotifyAddWatch(fd, w.Dir, unix.IN_CREATE)
	return err
}

func sharedMemory() error {
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600)
	if err == nil {
		_, err = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	}
	return err
}

// serverReport is what a locked-in server met.
type serverReport struct {
	Met     map[string]string // attempts
	Work    map[string]string // what a server does all day
	Missing []string
}

// beServer locks itself in as the product does, with many threads already there.
func beServer() int {
	var w world
	if err := json.Unmarshal([]byte(os.Args[2]), &w); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	release := spread(20)
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	missing, err := Server(ServerConfig{State: w.state(), Read: []string{w.readable(), "/nowhere", "/proc/stat"}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	r := serverReport{Met: map[string]string{}, Work: map[string]string{}}
	for _, m := range missing {
		r.Missing = append(r.Missing, m.String())
	}
	for _, a := range append(attempts, serverAttempts...) {
		r.Met[a.name] = message(a.do(w))
	}
	for _, a := range serverWork {
		r.Work[a.name] = message(a.do(w))
	}
	r.Work["scan its own pages"] = message(scanPages(pagemap))
	r.Work["be locked on every thread"] = message(release(w))
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// spread starts threads that wait; what it returns has each of them try to read
// the key, and reports the first that could.
func spread(n int) func(world) error {
	var started, done sync.WaitGroup
	key := make(chan string)
	got := make(chan error, n)
	started.Add(n)
	for range n {
		done.Go(func() {
			runtime.LockOSThread() // a thread of its own; it ends with the goroutine
			started.Done()
			if readSome(<-key) == nil {
				got <- fmt.Errorf("thread %d can read the key file", unix.Gettid())
			}
		})
	}
	started.Wait()
	return func(w world) error {
		for range n {
			key <- w.Key
		}
		done.Wait()
		close(got)
		return <-got
	}
}

// serverWork is what must go on in the jail.
var serverWork = []attempt{
	{name: "write its state", do: func(w world) error {
		f, err := os.CreateTemp(w.state(), "new-")
		if err != nil {
			return err
		}
		_, err = f.WriteString("state")
		return errors.Join(err, f.Sync(), f.Close(), os.Rename(f.Name(), filepath.Join(w.state(), "file")),
			os.Mkdir(filepath.Join(w.state(), "folder"), 0o700), os.Remove(filepath.Join(w.state(), "folder")))
	}},
	{name: "read its state", do: func(w world) error { return readSome(filepath.Join(w.state(), "file")) }},
	{name: "list its state", do: func(w world) error { _, err := os.ReadDir(w.state()); return err }},
	{name: "read the read list", do: func(w world) error { return readSome(w.readable()) }},
	{name: "read what /proc says of it", do: func(world) error {
		return errors.Join(readSome("/proc/self/maps"), readSome("/proc/self/stat"), readSome("/proc/stat"))
	}},
	{name: "open a memory file by number", do: func(world) error {
		f, err := sealed.New("test", []byte("x"))
		if err != nil {
			return err
		}
		defer f.Close()
		return readSome(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	}},
	{name: "count its files", do: func(world) error { _, err := os.ReadDir("/proc/self/fd"); return err }},
	{name: "connect over tcp", do: func(w world) error { return dial("tcp", w.TCP) }},
	{name: "connect over udp", do: func(w world) error { return dial("udp", w.UDP) }},
	{name: "listen", do: func(world) error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			err = l.Close()
		}
		return err
	}},
	{name: "list interfaces", do: func(world) error { _, err := net.Interfaces(); return err }},
	{name: "start threads", do: func(world) error { return spread(8)(world{Key: "/nowhere"}) }},
}

// scanPages asks as the engine does; dumpable was dropped after the file was opened.
func scanPages(f *os.File) error {
	page := make([]byte, 1<<16)
	page[0] = 1
	var regions [8][3]uint64
	at := uint64(addressOf(page)) &^ 4095
	arg := [12]uint64{12 * 8, 0, at, at + 4096, 0, uint64(addressOf(regions[:])), 8, 0, 0, 0, 1 << 3, 1 << 3}
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), pagemapScan, addressOf(arg[:]))
	runtime.KeepAlive(page)
	if errno != 0 {
		return errno
	}
	if n != 1 {
		return fmt.Errorf("%d regions, want the one that was written", n)
	}
	return nil
}

func addressOf[T any](s []T) uintptr { return uintptr(unsafe.Pointer(&s[0])) }

func (w world) state() string    { return filepath.Join(filepath.Dir(w.Key), "state") }
func (w world) readable() string { return filepath.Join(filepath.Dir(w.Key), "resolv.conf") }

func TestEscapedServer(t *testing.T) {
	w := newServerWorld(t)
	checkServer(t, runServer(t, w, nil), outside(t, w))
}

// The same without root: what protects the machine must not be root's doing.
func TestEscapedServerWithoutRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else; TestEscapedServer runs without root already")
	}
	w := newServerWorld(t)
	must(t, os.Chown(w.state(), 65534, 65534))
	checkServer(t, runServer(t, w, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}), outside(t, w))
}

func newServerWorld(t *testing.T) world {
	t.Helper()
	needLocks(t)
	w := newWorld(t)
	must(t, os.WriteFile(w.readable(), []byte("nameserver 127.0.0.1\n"), 0o644))
	return w
}

func runServer(t *testing.T, w world, as *syscall.SysProcAttr) serverReport {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "server", asJSON(t, w))
	cmd.SysProcAttr, cmd.Stderr = as, os.Stderr
	out, err := cmd.Output()
	must(t, err)
	var r serverReport
	must(t, json.Unmarshal(out, &r))
	return r
}

func checkServer(t *testing.T, r serverReport, outside map[string]string) {
	t.Helper()
	if len(r.Missing) > 0 {
		t.Errorf("missing %q", r.Missing)
	}
	checkEscape(t, r.Met, outside, append(attempts, serverAttempts...))
	for _, a := range serverWork {
		if met, tried := r.Work[a.name]; !tried || met != "" {
			t.Errorf("a server cannot %s: %s", a.name, met)
		}
	}
	for _, name := range []string{"scan its own pages", "be locked on every thread"} {
		if met := r.Work[name]; met != "" && !strings.Contains(met, "inappropriate ioctl") {
			t.Errorf("%s: %s", name, met)
		}
	}
}
