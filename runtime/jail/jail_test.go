package jail

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/sealed"
)

// The test binary is its own helper, as the product is. Prepare gets limits
// small enough to be hit in a test; Compile keeps the real ones.
func TestMain(m *testing.M) {
	table[Prepare] = limits{name: "prepare", wall: 20 * time.Second, cpu: time.Second,
		data: 512 << 20, space: 16 << 30, file: 4 << 20, input: 1 << 10, output: 1 << 20}
	table[loose] = table[Prepare].without("loose", true, true)
	table[unfiltered] = table[Prepare].without("unfiltered", true, false)
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "helper":
			os.Exit(Main(os.Args[2:], hostileWork))
		case "parent":
			os.Exit(beParent())
		case "starved":
			os.Exit(beStarved())
		case "describe":
			os.Exit(beDescriber())
		case "outside":
			os.Exit(beOutside())
		case "server":
			os.Exit(beServer())
		case "bare":
			os.Exit(beBare())
		case "victim":
			os.Exit(beVictim())
		case "capabilities":
			os.Exit(beCapabilities())
		}
	}
	os.Exit(m.Run())
}

// Prepare without seccomp, and loose also without Landlock: for looking around
// inside, and to show what these two keep a helper from.
const (
	loose      Verb = 0x10
	unfiltered Verb = 0x11
)

func (l limits) without(name string, filter, walls bool) limits {
	l.name, l.unfiltered, l.unwalled = name, filter, walls
	return l
}

func runLoose(ctx context.Context, l *Local, input string) (Result, error) {
	return runAs(ctx, l, loose, input)
}

// runAs is l.Run for verbs that Run does not take.
func runAs(ctx context.Context, l *Local, verb Verb, input string) (Result, error) {
	in, err := sealed.New("selvage-input", []byte(input))
	if err != nil {
		return Result{}, err
	}
	defer in.Close()
	o, err := runChild(ctx, order{exe: self, verb: verb, input: in, uid: 64330, means: l.means, wall: l.wall(verb)})
	if err != nil {
		return Result{}, err
	}
	return o.Result(verb)
}

// hostileWork does what its input says.
func hostileWork(_ Verb, in []byte) ([]byte, error) {
	word, rest, _ := strings.Cut(string(in), " ")
	switch word {
	case "echo":
		return []byte(rest), nil
	case "spin":
		for i := 0; i >= 0; i = (i + 1) % 1000 { // for ever
		}
	case "sleep":
		time.Sleep(time.Hour)
	case "nap":
		return nap()
	case "eat":
		return eat()
	case "panic":
		panic("lost its way\x1b[31m")
	case "exit":
		os.Exit(0)
	case "abort": // as a library does it that found no memory, on a thread of its own
		fmt.Fprintln(os.Stderr, "memory allocation of 4096 bytes failed")
		_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGABRT)
		time.Sleep(time.Hour)
	case "kill":
		_ = unix.Kill(unix.Getpid(), unix.SIGSEGV)
		time.Sleep(time.Hour)
	case "refuse":
		return nil, fmt.Errorf("scan: %w", &Refused{Reason: "no " + rest})
	case "fail":
		return nil, errors.New("an error that is nobody's fault")
	case "enomem":
		return nil, fmt.Errorf("map: %w", syscall.ENOMEM)
	case "much":
		return make([]byte, 1<<20+1), nil
	case "flood":
		flood()
	case "scribble":
		in[0] = 'x'
	case "describe":
		return json.Marshal(describe())
	case "child":
		return orphan()
	case "escape":
		return escape(rest)
	case "foreign":
		return foreign(rest)
	}
	return nil, errors.New("unknown word " + word)
}

func eat() ([]byte, error) {
	var kept [][]byte
	for {
		b := make([]byte, 16<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
		if len(kept) > 1<<10 {
			return nil, errors.New("16 GiB and still alive")
		}
	}
}

// flood writes an output past its bound, up to where the kernel stops it, and
// says that all is well.
func flood() {
	f := os.NewFile(outputFD, "output")
	for {
		if _, err := f.Write(make([]byte, 1<<20)); err != nil {
			_ = sealed.Seal(f)
			os.Exit(exitDone)
		}
	}
}

func nap() ([]byte, error) {
	var from, to unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &from)
	time.Sleep(150 * time.Millisecond)
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &to)
	return json.Marshal([]int64{from.Nano(), to.Nano()})
}

func orphan() ([]byte, error) {
	cmd := exec.Command("/proc/self/exe", "helper", "loose", confined)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	cmd.Stdin = r
	in, err := sealed.New("in", []byte("sleep"))
	if err != nil {
		return nil, err
	}
	cmd.Stdin = in
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return []byte(strconv.Itoa(cmd.Process.Pid)), nil
}

// view is what a helper sees of the world.
type view struct {
	UID, PID, PPID int
	Root           bool
	Env, Args      []string
	Files          []string
	Interfaces     []string
	NoNewPrivs     string
	CapEff, CapPrm string
	Limits         map[string]uint64
	Nice           int
	Dial           string
}

func describe() view {
	v := view{UID: os.Getuid(), PID: os.Getpid(), PPID: os.Getppid(), Env: os.Environ(), Args: os.Args[1:]}
	v.Files = openFDs()
	if ifs, err := net.Interfaces(); err == nil {
		for _, i := range ifs {
			if i.Flags&net.FlagUp != 0 {
				v.Interfaces = append(v.Interfaces, i.Name)
			}
		}
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		k, val, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch k {
		case "NoNewPrivs":
			v.NoNewPrivs = val
		case "CapEff":
			v.CapEff = val
		case "CapPrm":
			v.CapPrm = val
		}
	}
	v.Limits = map[string]uint64{}
	for name, res := range map[string]int{"core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
		"as": unix.RLIMIT_AS, "fsize": unix.RLIMIT_FSIZE, "nofile": unix.RLIMIT_NOFILE} {
		var l unix.Rlimit
		_ = unix.Prlimit(0, res, nil, &l)
		v.Limits[name] = l.Max
	}
	v.Nice, _ = unix.Getpriority(unix.PRIO_PROCESS, 0)
	v.Nice = 20 - v.Nice // the raw call answers 20 - nice
	_, err := net.DialTimeout("tcp", "127.0.0.1:1", time.Second)
	v.Dial = fmt.Sprint(err)
	return v
}

// openFDs lists what is open, without what Go's runtime opens for itself: its
// poller, and the files that tell it how many processors it may use.
func openFDs() []string {
	var fds []string
	for fd := range 64 {
		target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err == nil && !strings.HasPrefix(target, "anon_inode:") && !strings.HasPrefix(target, "/sys/fs/cgroup/") {
			fds = append(fds, fmt.Sprintf("%d %s", fd, target))
		}
	}
	return fds
}

func open(t *testing.T, c Config) *Local {
	t.Helper()
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, m := range l.Missing() {
		t.Logf("missing here: %s", m)
	}
	return l
}

func TestOutcomes(t *testing.T) {
	l := open(t, Config{})
	for _, tc := range []struct {
		input string
		want  error  // nil: any Refused, or success if text is empty
		text  string // in the error
	}{
		{"echo hello", nil, ""},
		{"refuse bananas", nil, "no bananas"},
		{"spin", ErrTime, "limits are 1s of processor time"},
		{"eat", ErrMemory, "limit is 512 MiB"},
		{"enomem", ErrMemory, ""},
		{"abort", ErrMemory, ""},
		{"panic", ErrCrash, "lost its way\ufffd[31m"},
		{"kill", ErrCrash, ""},
		{"exit", ErrCrash, "can still change"},
		{"fail", ErrCrash, "nobody's fault"},
		{"flood", ErrCrash, "too large"},
		{"scribble", ErrCrash, ""},
		{"much", nil, "the limit is 1048576"},
		{strings.Repeat("x", 1<<10+1), nil, "at most 1024 are taken"},
	} {
		t.Run(tc.input[:min(len(tc.input), 8)], func(t *testing.T) {
			r, err := l.Run(t.Context(), Prepare, []byte(tc.input))
			if tc.want == nil && tc.text == "" {
				if err != nil || string(r.Output) != "hello" {
					t.Fatalf("Run = %q, %v", r.Output, err)
				}
				return
			}
			var no *Refused
			if tc.want == nil && !errors.As(err, &no) || tc.want != nil && !errors.Is(err, tc.want) {
				t.Fatalf("err = %v, want %v", err, tc.want)
			}
			if !strings.Contains(err.Error(), tc.text) {
				t.Errorf("err = %v, want it to say %q", err, tc.text)
			}
			if r.Output != nil {
				t.Errorf("an output came with the error: %d bytes", len(r.Output))
			}
		})
	}
}

func TestWallLimit(t *testing.T) {
	l := open(t, Config{MaxWall: 300 * time.Millisecond})
	_, err := l.Run(t.Context(), Prepare, []byte("sleep"))
	if !errors.Is(err, ErrTime) {
		t.Errorf("err = %v, want ErrTime", err)
	}
}

func TestUsageIsReported(t *testing.T) {
	r, err := open(t, Config{}).Run(t.Context(), Prepare, []byte("nap"))
	if err != nil {
		t.Fatal(err)
	}
	if r.Wall < 150*time.Millisecond || r.CPU <= 0 || r.CPU > time.Second {
		t.Errorf("wall %s, cpu %s", r.Wall, r.CPU)
	}
}

func TestConfinement(t *testing.T) {
	l := open(t, Config{})
	t.Setenv("SELVAGE_SECRET", "must not be inherited")
	leak, err := sealed.New("leak", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	if _, err := unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0); err != nil { // as a careless library would leave it
		t.Fatal(err)
	}
	checkConfined(t, run(t, l), l)
}

func run(t *testing.T, l *Local) view {
	t.Helper()
	r, err := runLoose(t.Context(), l, "describe")
	if err != nil {
		t.Fatal(err)
	}
	var v view
	if err := json.Unmarshal(r.Output, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func checkConfined(t *testing.T, v view, l *Local) {
	t.Helper()
	if len(v.Env) != 0 {
		t.Errorf("environment %q", v.Env)
	}
	if !slices.Equal(v.Args, []string{"helper", "loose", "confined"}) {
		t.Errorf("arguments %q", v.Args)
	}
	for _, f := range v.Files {
		if !strings.Contains(f, "/memfd:selvage-") {
			t.Errorf("open file %s", f)
		}
	}
	if v.NoNewPrivs != "1" || strings.Trim(v.CapEff+v.CapPrm, "0") != "" {
		t.Errorf("no_new_privs %s, capabilities %s %s", v.NoNewPrivs, v.CapEff, v.CapPrm)
	}
	want := map[string]uint64{"core": 0, "cpu": 2, "data": 512 << 20, "as": 16 << 30, "fsize": 4 << 20, "nofile": 64}
	for k, max := range want {
		if v.Limits[k] > max {
			t.Errorf("limit %s is %d, want at most %d", k, v.Limits[k], max)
		}
	}
	if v.Nice < 10 {
		t.Errorf("nice %d", v.Nice)
	}
	if l.means.spaces&unix.CLONE_NEWNET != 0 && (len(v.Interfaces) > 0 || !strings.Contains(v.Dial, "unreachable")) {
		t.Errorf("network: %q up, dialling says %s", v.Interfaces, v.Dial)
	}
	if l.means.spaces&unix.CLONE_NEWPID != 0 && v.PID != 1 {
		t.Errorf("process id %d", v.PID)
	}
	if l.means.ownUser && (v.UID == 0 || v.UID == os.Getuid()) {
		t.Errorf("user id %d", v.UID)
	}
}

// Without root there is a user namespace instead; where even that is refused,
// work goes on and Missing says so.
func TestWithoutRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else; TestConfinement runs without root already")
	}
	cmd := exec.Command("/proc/self/exe", "describe")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	var got struct {
		View    view
		Missing []string
		Spaces  uintptr
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if got.Spaces == 0 && len(got.Missing) == 0 {
		t.Error("no namespace, and nothing said")
	}
	t.Logf("missing without root: %q", got.Missing)
	checkConfined(t, got.View, &Local{means: means{spaces: got.Spaces}})
}

// beDescriber runs one helper and prints what it sees.
func beDescriber() int {
	l, err := Open(Config{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer l.Close()
	r, err := runLoose(context.Background(), l, "describe")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	missing := []string{}
	for _, m := range l.Missing() {
		missing = append(missing, m.String())
	}
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"View": json.RawMessage(r.Output), "Missing": missing, "Spaces": l.means.spaces})
	return 0
}

func TestAtMostTwoAtOnce(t *testing.T) {
	l := open(t, Config{})
	var mu sync.Mutex
	var naps [][]int64
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			r, err := l.Run(t.Context(), Prepare, []byte("nap"))
			var nap []int64
			if err == nil {
				err = json.Unmarshal(r.Output, &nap)
			}
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			naps = append(naps, nap)
		})
	}
	wg.Wait()
	for _, a := range naps {
		during := 0
		for _, b := range naps {
			if b[0] <= a[0] && a[0] < b[1] {
				during++
			}
		}
		if during > atOnce {
			t.Errorf("%d helpers ran at once", during)
		}
	}
}

func TestCancel(t *testing.T) {
	l := open(t, Config{})
	left := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := l.Run(ctx, Prepare, []byte("sleep"))
		done <- err
	}()
	waitChildren(t, os.Getpid(), 1)
	cancel(left)
	if err := <-done; !errors.Is(err, left) {
		t.Errorf("err = %v, want the caller's cause", err)
	}
	waitChildren(t, os.Getpid(), 0)
}

func TestCloseKillsAndRefuses(t *testing.T) {
	l := open(t, Config{})
	done := make(chan error, 1)
	go func() {
		_, err := l.Run(t.Context(), Prepare, []byte("sleep"))
		done <- err
	}()
	waitChildren(t, os.Getpid(), 1)
	l.Close()
	if err := <-done; err == nil {
		t.Error("work outlived its runner")
	}
	if _, err := l.Run(t.Context(), Prepare, []byte("echo")); err == nil {
		t.Error("a closed runner took work")
	}
}

// A helper must not leave a process behind, also where there is no process namespace.
func TestGroupDiesWithHelper(t *testing.T) {
	l := open(t, Config{})
	l.means = means{}
	r, err := runLoose(t.Context(), l, "child")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(r.Output))
	if err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return !alive(pid) })
}

func TestRefusesWhatIsNotSealed(t *testing.T) {
	l := open(t, Config{})
	f, err := sealed.Create("open")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := l.RunFile(t.Context(), Prepare, f); !errors.Is(err, sealed.ErrUnsealed) {
		t.Errorf("err = %v, want ErrUnsealed", err)
	}
	for _, v := range []Verb{0, 3, probe} {
		if _, err := l.Run(t.Context(), v, nil); err == nil {
			t.Errorf("verb %d was run", v)
		}
	}
}

func TestMainOutsideAJail(t *testing.T) {
	for _, args := range [][]string{nil, {"rm"}, {"compile", "now"}, {"compile", "confined", "more"}} {
		if code := Main(args, hostileWork); code != exitUsage {
			t.Errorf("Main(%q) = %d", args, code)
		}
	}
}

// The helper dies with its parent, also when that is killed.
func TestParentDeath(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "parent")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if !alive(pid) {
		t.Fatal("no helper")
	}
	_ = cmd.Process.Kill()
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait()
	waitUntil(t, func() bool { return !alive(pid) })
}

// beParent starts a helper that never ends and prints its process id.
func beParent() int {
	l, err := Open(Config{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go l.Run(context.Background(), Prepare, []byte("sleep"))
	for {
		if pids := children(os.Getpid()); len(pids) == 1 {
			fmt.Println(pids[0])
			select {}
		}
		runtime.Gosched()
	}
}

func waitChildren(t *testing.T, of, n int) {
	t.Helper()
	waitUntil(t, func() bool { return len(children(of)) == n })
}

func waitUntil(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to that within 10s")
		}
	}
}

func children(of int) []int {
	var pids []int
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", of))
	for _, task := range tasks {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", of, task.Name()))
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && alive(pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// alive reports whether pid runs; a zombie does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(after, "Z") && !strings.HasPrefix(after, "X")
}
