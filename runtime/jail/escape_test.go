package jail

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// world is what there is to be had outside of a jail. All of it is open to
// everybody: nothing but the jail stands between it and an escaped guest.
type world struct {
	Victim int    // a process with a secret in its memory and its environment
	Key    string // a key file, mode 0644
	Dir    string // a folder, mode 0777
	TCP    string // a listener
	UDP    string // a socket
	UNIX   string // a listener
	Name   string // a listener in the abstract name space
}

// attempt is one thing that an escaped guest tries.
type attempt struct {
	name string
	do   func(world) error
	rare bool // outside of a jail not every user can, nor every kernel
}

// attempts are tried in every jail and outside of it.
var attempts = []attempt{
	{name: "read environ of another process", do: func(w world) error { return readSome(w.proc("environ")) }},
	{name: "open memory of another process", do: func(w world) error { return openFor(w.proc("mem"), os.O_RDWR) }},
	{name: "list files of another process", do: func(w world) error { _, err := os.ReadDir(w.proc("fd")); return err }},
	{name: "open a file of another process", do: func(w world) error { return openFor(w.proc("exe"), os.O_RDONLY) }},
	{name: "list processes", do: func(world) error { _, err := os.ReadDir("/proc"); return err }},
	{name: "read the key file", do: func(w world) error { return readSome(w.Key) }},
	{name: "write the key file", do: func(w world) error { return openFor(w.Key, os.O_WRONLY) }},
	{name: "list the key folder", do: func(w world) error { _, err := os.ReadDir(filepath.Dir(w.Key)); return err }},
	{name: "create a file", do: func(w world) error { return created(os.Create(w.scratch())) }},
	{name: "make a folder", do: func(w world) error { return os.Mkdir(w.scratch(), 0o700) }},
	{name: "make a link", do: func(w world) error { return os.Symlink("/", w.scratch()) }},
	{name: "make a pipe", do: func(w world) error { return unix.Mkfifo(w.scratch(), 0o600) }},
	{name: "link the key file", do: func(w world) error { return os.Link(w.Key, w.scratch()) }},
	{name: "rename", do: func(w world) error { return os.Rename(filepath.Join(w.Dir, "old"), w.scratch()) }},
	{name: "truncate by path", do: func(w world) error { return os.Truncate(filepath.Join(w.Dir, "short"), 1) }},
	{name: "remove", do: func(w world) error { return os.Remove(filepath.Join(w.Dir, "gone")) }},
	{name: "run a program", do: func(world) error { return exec.Command("/bin/true").Run() }},
	{name: "become a program", do: become},
	{name: "fork", do: fork},
	{name: "signal another process", do: func(w world) error { return unix.Kill(w.Victim, unix.SIGCONT) }},
	{name: "trace another process", do: trace},
	{name: "read memory of another process", do: processVMRead},
	{name: "take a handle on another process", do: func(w world) error { return taken(unix.PidfdOpen(w.Victim, 0)) }},
	{name: "unix socket by name", do: func(w world) error { return dial("unix", w.UNIX) }},
	{name: "unix socket in the abstract", do: func(w world) error { return dial("unix", w.Name) }},
	{name: "raw socket", rare: true, do: socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)},
	{name: "packet socket", rare: true, do: socket(unix.AF_PACKET, unix.SOCK_RAW, 0)},
	{name: "netlink socket of the firewall", rare: true, do: socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)},
	{name: "new user namespace", rare: true, do: func(world) error { return cloned(unix.CLONE_NEWUSER) }},
	{name: "new mount namespace", rare: true, do: func(world) error { return unshared(unix.CLONE_NEWNS) }},
	{name: "mount", rare: true, do: func(world) error { return taken(unix.Fsopen("tmpfs", 0)) }},
	{name: "change root", rare: true, do: func(world) error { return unix.Chroot("/") }},
	{name: "watch the processor", rare: true, do: perf},
	{name: "kernel keys", rare: true, do: func(world) error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true); return err }},
	{name: "io_uring", rare: true, do: func(world) error { return raw3(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(new([120]byte))), 0) }},
	{name: "bpf", rare: true, do: func(world) error {
		return raw3(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&mapAttr)), unsafe.Sizeof(mapAttr))
	}},
	{name: "userfaultfd", rare: true, do: func(world) error { return raw3(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0) }},
	{name: "be dumped again", do: func(world) error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }},
}

// helperAttempts are what a server may and a helper must not.
var helperAttempts = []attempt{
	{name: "stat outside", do: func(w world) error { _, err := os.Stat(w.Key); return err }},
	{name: "stat by statx", do: func(w world) error { return unix.Statx(unix.AT_FDCWD, w.Key, 0, unix.STATX_ALL, &unix.Statx_t{}) }},
	{name: "tcp socket", do: func(w world) error { return dial("tcp", w.TCP) }},
	{name: "udp socket", do: func(w world) error { return dial("udp", w.UDP) }},
	{name: "netlink socket of routes", do: socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)},
	{name: "socket pair", do: func(world) error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err }},
	{name: "open its own memory map", do: func(world) error { return openFor("/proc/self/maps", os.O_RDONLY) }},
	{name: "open its own program", do: func(world) error { return openFor("/proc/self/exe", os.O_RDONLY) }},
}

func (w world) proc(name string) string { return fmt.Sprintf("/proc/%d/%s", w.Victim, name) }

// scratch is a path in the open folder that nothing has yet.
func (w world) scratch() string {
	return filepath.Join(w.Dir, strconv.FormatInt(time.Now().UnixNano(), 36))
}

func readSome(path string) error {
	b, err := os.ReadFile(path)
	if err == nil && len(b) == 0 {
		err = errors.New("nothing in it")
	}
	return err
}

func openFor(path string, flag int) error { return created(os.OpenFile(path, flag, 0)) }

func created(f *os.File, err error) error {
	if err == nil {
		f.Close()
	}
	return err
}

func taken(fd int, err error) error {
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func dial(network, address string) error {
	c, err := net.DialTimeout(network, address, 5*time.Second)
	if err == nil {
		c.Close()
	}
	return err
}

func socket(domain, kind, protocol int) func(world) error {
	return func(world) error { return taken(unix.Socket(domain, kind, protocol)) }
}

func raw3(nr, a, b, c uintptr) error {
	fd, _, errno := unix.Syscall(nr, a, b, c)
	if errno != 0 {
		return errno
	}
	return taken(int(fd), nil)
}

// mapAttr asks bpf(BPF_MAP_CREATE) for an array of one.
var mapAttr = struct{ kind, key, value, entries, flags uint32 }{2, 4, 4, 1, 0}

func perf(world) error {
	a := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
	return taken(unix.PerfEventOpen(&a, 0, -1, -1, 0))
}

// become succeeds when the kernel gets as far as looking for the program.
func become(world) error {
	err := unix.Exec("/proc/self/none", []string{"none"}, nil)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func fork(world) error { return cloned(0) }

// cloned makes a process that becomes nothing: see tryClone.
func cloned(flags uintptr) error { return tryClone(flags) }

// unshared works on a thread that ends with the goroutine.
func unshared(flags int) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- unix.Unshare(flags)
	}()
	return <-done
}

func trace(w world) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := unix.PtraceSeize(w.Victim)
		if err == nil {
			err = unix.PtraceInterrupt(w.Victim)
		}
		done <- err // the tracer's thread ends, and lets go
	}()
	return <-done
}

func processVMRead(w world) error {
	b := make([]byte, 16)
	to := []unix.Iovec{{Base: &b[0], Len: 16}}
	n, err := unix.ProcessVMReadv(w.Victim, to, []unix.RemoteIovec{{Base: victimAddress, Len: 16}}, 0)
	if err == nil && n != 16 {
		err = fmt.Errorf("%d bytes", n)
	}
	return err
}

// victimAddress is where a program that is not relocated has its header.
const victimAddress = 0x400000

// escape tries everything and gives back what each attempt met; "" is success.
func escape(in string) ([]byte, error) {
	var w world
	if err := json.Unmarshal([]byte(in), &w); err != nil {
		return nil, err
	}
	met := map[string]string{}
	for _, a := range slices.Concat(attempts, helperAttempts, serverAttempts) {
		met[a.name] = ""
		if err := a.do(w); err != nil {
			met[a.name] = err.Error()
		}
	}
	return json.Marshal(met)
}

// beOutside tries everything without a jail.
func beOutside() int {
	out, err := escape(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_, _ = os.Stdout.Write(out)
	return 0
}

// beVictim holds a secret until its standard input ends.
func beVictim() int {
	_ = unix.Prctl(unix.PR_SET_PTRACER, ^uintptr(0), 0, 0, 0) // a cautious kernel would have only its parent trace it
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	return 0
}

// newWorld makes one, and a victim in it.
func newWorld(t *testing.T) world {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "selvage-jail-") // a test's own folder is only root's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := world{Victim: startVictim(t), Key: filepath.Join(dir, "node.key"), Dir: filepath.Join(dir, "open"), UNIX: filepath.Join(dir, "s"),
		Name: "@selvage-jail-" + strconv.Itoa(os.Getpid()) + t.Name()}
	must(t, os.Chmod(dir, 0o755), os.WriteFile(w.Key, []byte("secret"), 0o644), os.Mkdir(w.Dir, 0o777), os.Chmod(w.Dir, 0o777), os.Chmod(w.Key, 0o666))
	must(t, os.Mkdir(w.state(), 0o755), os.Symlink(w.Key, filepath.Join(w.state(), "link")))
	refill(t, w)
	w.TCP = listen(t, "tcp", "127.0.0.1:0")
	listen(t, "unix", w.UNIX)
	must(t, os.Chmod(w.UNIX, 0o777))
	listen(t, "unix", w.Name)
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { u.Close() })
	w.UDP = u.LocalAddr().String()
	return w
}

// refill puts back what an attempt that succeeded took.
func refill(t *testing.T, w world) {
	t.Helper()
	for _, name := range []string{"old", "short", "gone"} {
		path := filepath.Join(w.Dir, name)
		must(t, os.WriteFile(path, []byte("text"), 0o666), os.Chmod(path, 0o666))
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func listen(t *testing.T, network, address string) string {
	t.Helper()
	l, err := net.Listen(network, address)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func startVictim(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "victim")
	cmd.Env = []string{"SECRET=of-another-process"}
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func outside(t *testing.T, w world) map[string]string {
	t.Helper()
	out, err := exec.Command("/proc/self/exe", "outside", asJSON(t, w)).Output()
	must(t, err)
	refill(t, w)
	return metIn(t, out)
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return string(b)
}

func metIn(t *testing.T, b []byte) map[string]string {
	t.Helper()
	met := map[string]string{}
	must(t, json.Unmarshal(b, &met))
	return met
}

// checkEscape wants every attempt refused inside. What is refused outside too
// shows nothing, so there it must be something rare.
func checkEscape(t *testing.T, inside, outside map[string]string, all []attempt) {
	t.Helper()
	for _, a := range all {
		in, tried := inside[a.name]
		switch {
		case !tried:
			t.Errorf("%s: not tried", a.name)
		case in == "":
			t.Errorf("%s: an escaped guest can", a.name)
		}
		switch out := outside[a.name]; {
		case out != "" && !a.rare:
			t.Errorf("%s: refused also outside of a jail, so this shows nothing: %s", a.name, out)
		case out != "":
			t.Logf("%s: refused also outside, so this shows nothing here: %s", a.name, out)
		}
		t.Logf("%-34s %s", a.name, in)
	}
}

func TestEscapedHelper(t *testing.T) {
	l := open(t, Config{})
	needLocks(t)
	w := newWorld(t)
	out := outside(t, w)
	r, err := l.Run(t.Context(), Prepare, []byte("escape "+asJSON(t, w)))
	must(t, err)
	checkEscape(t, metIn(t, r.Output), out, slices.Concat(attempts, helperAttempts, serverAttempts))
}

// Landlock holds without the filter: should a call be missed there, files stay shut.
func TestLandlockAlone(t *testing.T) {
	l := open(t, Config{})
	needLocks(t)
	w := newWorld(t)
	without, err := runAs(t.Context(), l, loose, "escape "+asJSON(t, w))
	must(t, err)
	refill(t, w)
	with, err := runAs(t.Context(), l, unfiltered, "escape "+asJSON(t, w))
	must(t, err)
	var files []attempt
	for _, a := range attempts {
		switch a.name {
		case "list processes", "read the key file", "write the key file", "list the key folder", "create a file", "make a folder", "make a link",
			"make a pipe", "rename", "truncate by path", "remove", "run a program":
			files = append(files, a)
		}
	}
	if len(files) != 12 {
		t.Errorf("%d attempts on files, want 12", len(files))
	}
	checkEscape(t, metIn(t, with.Output), metIn(t, without.Output), files)
	if stat := metIn(t, with.Output)["stat outside"]; stat != "" {
		t.Errorf("stat: %q: the page on security says that only the filter keeps that away", stat)
	}
}

// needLocks skips where the kernel has no lock to test, except where tests must not skip.
func needLocks(t *testing.T) {
	t.Helper()
	for _, m := range lacking(seccompCapability(), landlockCapability()) {
		if os.Getenv("CI") == "true" {
			t.Fatalf("this machine does not give %s", m)
		}
		t.Skipf("this machine does not give %s", m)
	}
}

// The filter is on each thread, also on those that Go started by itself.
func TestHelperIsLockedOnEveryThread(t *testing.T) {
	l := open(t, Config{})
	needLocks(t)
	go func() { _, _ = l.Run(t.Context(), Prepare, []byte("sleep")) }()
	waitChildren(t, os.Getpid(), 1)
	pid := children(os.Getpid())[0]
	waitUntil(t, func() bool { return statusOf(pid, pid, "Seccomp") == "2" })
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	must(t, err)
	if len(tasks) < 2 {
		t.Errorf("%d threads: a Go process has more", len(tasks))
	}
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		if s, n := statusOf(pid, tid, "Seccomp"), statusOf(pid, tid, "NoNewPrivs"); s != "2" || n != "1" {
			t.Errorf("thread %d: seccomp %s, no_new_privs %s", tid, s, n)
		}
	}
}

func statusOf(pid, tid int, key string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", pid, tid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+":\t"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// foreign makes calls by another architecture's numbers; the process does not survive them.
func foreign(how string) ([]byte, error) {
	if how == "x32" {
		_, _, errno := syscall.RawSyscall(x32|unix.SYS_GETPID, 0, 0, 0)
		return nil, fmt.Errorf("still alive: %w", errno)
	}
	return nil, errors.New("there is no way " + how)
}

func TestForeignCallsKill(t *testing.T) {
	l := open(t, Config{})
	needLocks(t)
	if _, err := l.Run(t.Context(), Prepare, []byte("foreign x32")); !errors.Is(err, ErrCrash) || strings.Contains(err.Error(), "still alive") {
		t.Errorf("err = %v, want the helper's end", err)
	}
	if _, err := runLoose(t.Context(), l, "foreign x32"); err == nil || !strings.Contains(err.Error(), "still alive") {
		t.Errorf("without the filter: %v, want it to live", err)
	}
}
