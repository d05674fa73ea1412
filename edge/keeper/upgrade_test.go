package keeper

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
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// misbehave makes a server of this program, under certain names, a bad upgrade.
func misbehave() {
	exe, _ := os.Executable()
	switch filepath.Base(exe) {
	case "crashes":
		os.Exit(1)
	case "misconfigured":
		os.Exit(ExitConfig)
	case "mute":
		time.Sleep(time.Hour)
	case "once": // serves the first time only
		if _, err := os.OpenFile(exe+".ran", os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			os.Exit(1)
		}
	}
}

// as returns this program under another name.
func as(t *testing.T, name string) *os.File {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.Link(exe, path); err != nil {
		copyFile(t, path, exe) // another file system
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// upgradable keeps a server whose keeper can be asked in dir.
func upgradable(t *testing.T, mode string, change func(*Config)) (k *kept, dir string) {
	t.Helper()
	// A name longer than a socket's address has room for.
	dir = filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	return keepServer(t, mode, func(c *Config) {
		c.State = dir
		if change != nil {
			change(c)
		}
	}), dir
}

func mustAsk(t *testing.T, dir string, program *os.File) (stages []Stage) {
	t.Helper()
	name, err := Ask(t.Context(), dir, program, func(s Stage) { stages = append(stages, s) })
	if err != nil {
		t.Fatal(err)
	}
	if program != nil && name != program.Name() {
		t.Errorf("upgraded to %s, want %s", name, program.Name())
	}
	return stages
}

// Clients notice nothing of an upgrade, nor of the next, which takes the first's socket again.
func TestUpgradeFailsNobody(t *testing.T) {
	k, dir := upgradable(t, "plain", nil)
	pid := k.await(t, Ready).PID
	var asked, failed atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				asked.Add(1)
				if _, reply, err := k.ask("say hello"); err != nil || reply != "hello" {
					failed.Add(1)
					t.Errorf("reply %q, %v", reply, err)
				}
			}
		})
	}
	for i := range 3 {
		before := asked.Load()
		waitUntil(t, func() bool { return asked.Load() > before+100 })
		if got := fmt.Sprint(mustAsk(t, dir, nil)); got != fmt.Sprint([]Stage{Starting, Switched, Finished}) {
			t.Errorf("stages %s", got)
		}
		now, _, err := k.ask("reigns")
		if err != nil || now == pid {
			t.Fatalf("upgrade %d: answered by %d, %v; the old one is %d", i, now, err, pid)
		}
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("server %d is still there", pid)
		}
		pid = now
	}
	close(stop)
	clients.Wait()
	t.Logf("%d asked, %d failed", asked.Load(), failed.Load())
}

// A connection of the old server goes on until it is done, and only then has the upgrade ended.
func TestUpgradeLetsRequestsFinish(t *testing.T) {
	k, dir := upgradable(t, "plain", nil)
	old := k.await(t, Ready).PID
	c, err := net.Dial("tcp", k.Addr(PublicTCP).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintln(c, "hold")
	r := bufio.NewReader(c)
	if s, err := r.ReadString('\n'); s != "held\n" {
		t.Fatal(s, err)
	}
	if !Runs(dir) || Runs(t.TempDir()) {
		t.Error("it is not told where a keeper runs")
	}
	switched, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := Ask(t.Context(), dir, nil, func(s Stage) {
			if s == Switched {
				close(switched)
			}
		})
		ended <- err
	}()
	<-switched
	waitUntil(t, func() bool { by, _, err := k.ask("say"); return err == nil && by != old })
	forbidden := filepath.Join(dir, "program") // it would be refused, if it were looked at
	if err := os.WriteFile(forbidden, nil, 0o777); err != nil {
		t.Fatal(err)
	}
	k.drained()
	open := openPrograms(t)
	for range 3 {
		program, err := os.Open(forbidden)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Ask(t.Context(), dir, program, func(Stage) {}); !errors.Is(err, ErrKept) || !errors.Is(err, ErrBusy) ||
			!strings.Contains(err.Error(), "another upgrade is under way, to ") || !strings.Contains(err.Error(), Switched.String()) || !strings.Contains(err.Error(), "Z)") {
			t.Errorf("a second upgrade meanwhile: %v", err)
		}
		program.Close()
	}
	if n := len(slices.DeleteFunc(k.drained(), func(e Event) bool { return e.Kind != Kept })); n != 1 {
		t.Errorf("the log heard of it %d times", n)
	}
	if now := openPrograms(t); now != open {
		t.Errorf("%d programs are open, before it were %d", now, open)
	}
	select {
	case err := <-ended:
		t.Errorf("it ended before the old server: %v", err)
	default:
	}
	fmt.Fprintln(c, "finished")
	if by, s, err := readReply(r); err != nil || by != old || s != "finished" {
		t.Errorf("%d %q %v", by, s, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Programs that nothing will be started of any more do not stay open.
func TestProgramsDoNotStayOpen(t *testing.T) {
	before := openPrograms(t)
	k, dir := upgradable(t, "plain", nil)
	k.await(t, Ready)
	for range 3 {
		mustAsk(t, dir, as(t, "next"))
	}
	waitUntil(t, func() bool { return openPrograms(t) == before+2 }) // the current and the previous
	if _, err := Ask(t.Context(), dir, as(t, "crashes"), func(Stage) {}); !errors.Is(err, ErrKept) {
		t.Errorf("err = %v", err)
	}
	waitUntil(t, func() bool { return openPrograms(t) == before+2 })
	mustAsk(t, dir, as(t, "once"))
	e := k.await(t, Ready)
	for filepath.Base(e.Program) != "once" {
		e = k.await(t, Ready)
	}
	_ = syscall.Kill(e.PID, syscall.SIGKILL)
	k.await(t, FellBack)
	waitUntil(t, func() bool { return openPrograms(t) == before+1 })
	k.stop(t)
	if n := openPrograms(t); n != before {
		t.Errorf("%d programs are open after the keeper's end, %d before", n, before)
	}
}

// openPrograms counts the descriptors that keepers in this process have of programs.
func openPrograms(t *testing.T) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if number, err := strconv.Atoi(fd.Name()); err == nil && number >= firstProgramFD {
			n++
		}
	}
	return n
}

// A program that does not come to serve leaves everything as it was, and says why.
func TestBadUpgradesKeepTheOld(t *testing.T) {
	k, dir := upgradable(t, "plain", nil)
	pid := k.await(t, Ready).PID
	inside := filepath.Join(dir, "inside")
	copyFile(t, inside, "/proc/self/exe")
	for _, tc := range []struct{ name, says string }{
		{"crashes", "exit status 1"},
		{"inside", "state folder"},
		{"writable", "written by others"},
		{"text", "exec format error"},
		{"no program", "not an executable file"},
		{"mute", "did not say in time"},
	} {
		program := as(t, tc.name)
		switch tc.name {
		case "inside":
			program = open(t, inside)
		case "writable":
			path := filepath.Join(t.TempDir(), "writable")
			copyFile(t, path, "/proc/self/exe")
			if err := os.Chmod(path, 0o777); err != nil {
				t.Fatal(err)
			}
			program = open(t, path)
		case "text", "no program":
			path := filepath.Join(t.TempDir(), "text")
			mode := map[string]os.FileMode{"text": 0o755, "no program": 0o644}[tc.name]
			if err := os.WriteFile(path, []byte("no program"), mode); err != nil {
				t.Fatal(err)
			}
			program = open(t, path)
		}
		_, err := Ask(t.Context(), dir, program, func(Stage) {})
		if !errors.Is(err, ErrKept) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want it to say %q", tc.name, err, tc.says)
		}
		if e := k.await(t, Kept); e.Err == nil {
			t.Errorf("%s: %+v", tc.name, e)
		}
		if by, _, err := k.ask("say"); err != nil || by != pid {
			t.Errorf("%s: answered by %d, %v; want %d", tc.name, by, err, pid)
		}
	}
}

// Where no server serves yet, an upgrade that fails leaves the program before to be tried again.
func TestBadUpgradesWhileNothingServes(t *testing.T) {
	k, dir := upgradable(t, "unready", func(c *Config) { c.Patience = time.Hour })
	k.await(t, Started)
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, says string
		program    *os.File
	}{
		{"text", "exec format error", open(t, text)},
		{"misconfigured", "misconfigured is not used", as(t, "misconfigured")},
		{"text again", "exec format error", open(t, text)},
	} {
		if _, err := Ask(t.Context(), dir, tc.program, func(Stage) {}); !errors.Is(err, ErrKept) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want it to say %q", tc.name, err, tc.says)
		}
		k.await(t, Started) // of the program before
	}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A program that served once, and then crashes at every start, gives way to the one before it.
func TestFallsBackToTheProgramBefore(t *testing.T) {
	k, dir := upgradable(t, "plain", nil)
	first := k.await(t, Ready)
	program := as(t, "once")
	mustAsk(t, dir, program)
	second := k.await(t, Ready)
	if second.Program != program.Name() {
		t.Errorf("%+v", second)
	}
	_ = syscall.Kill(second.PID, syscall.SIGKILL)
	if e := k.await(t, FellBack); e.Program != first.Program {
		t.Errorf("%+v, want %s", e, first.Program)
	}
	if e := k.await(t, Ready); e.Program != first.Program {
		t.Errorf("%+v, want %s", e, first.Program)
	}
	if _, reply, err := k.ask("say hello"); err != nil || reply != "hello" {
		t.Errorf("%q, %v", reply, err)
	}
}

// Servers that die of what they are told to serve get what served well before.
func TestHeldAfterDeaths(t *testing.T) {
	k := keepServer(t, "unheld", nil)
	k.await(t, Held)
	k.await(t, Ready)
}

// Deaths that somebody may have brought about weigh less than those of a start.
func TestLadder(t *testing.T) {
	for name, tc := range map[string]struct {
		lived  time.Duration
		served bool
		want   int // deaths until something else is tried; 0: never
	}{
		"at the start": {0, false, 3}, "while it served": {time.Second, true, 9}, "after a long time": {calm, true, 0},
	} {
		var l ladder
		got := 0
		for i := 1; i <= 20 && got == 0; i++ {
			if wait, other := l.fell(tc.lived, tc.served); other {
				got = i
			} else if wait > maxWait || (wait == 0) != (i == 1 || tc.served && i <= 3 || tc.lived >= calm) {
				t.Errorf("%s: death %d: wait %s", name, i, wait)
			}
		}
		if got != tc.want {
			t.Errorf("%s: after %d deaths, want %d", name, got, tc.want)
		}
	}
}

// What does not serve is replaced without care.
func TestUpgradeWhereNothingServes(t *testing.T) {
	k, dir := upgradable(t, "unheld", nil)
	k.await(t, Exited)
	_, err := Ask(t.Context(), dir, as(t, "crashes"), func(Stage) {})
	if !errors.Is(err, ErrKept) {
		t.Errorf("err = %v", err)
	}
	k.await(t, Ready)
}

// A server that was taken over must not have its keeper execute something.
func TestServersMayNotAsk(t *testing.T) {
	k, dir := upgradable(t, "plain", nil)
	k.await(t, Ready)
	if _, reply, err := k.ask("knock " + dir); err != nil || !strings.Contains(reply, "one that the node runs") {
		t.Errorf("%q, %v", reply, err)
	}
	cmd := exec.Command("setpriv", "--no-new-privs", "true")
	if _, err := cmd.CombinedOutput(); err != nil {
		t.Logf("without setpriv the no_new_privs half is not tried: %v", err)
		return
	}
	jailed, err := isJailed(os.Getpid())
	if err != nil || jailed {
		t.Errorf("this process itself: %v, %v", jailed, err)
	}
	sleeper := exec.Command("setpriv", "--no-new-privs", "sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() }()
	if parent, _ := statusOf(readStatus(t, sleeper.Process.Pid)); parent != os.Getpid() {
		t.Errorf("parent %d", parent)
	}
	waitUntil(t, func() bool { _, noPrivs := statusOf(readStatus(t, sleeper.Process.Pid)); return noPrivs })
}

func readStatus(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What is in the place of the socket is not the node's to take away.
func TestDoorIsInUse(t *testing.T) {
	for name, fill := range map[string]func(path string) error{
		"a folder":         func(path string) error { return os.Mkdir(path, 0o700) },
		"a folder in use":  func(path string) error { return os.MkdirAll(filepath.Join(path, "sub"), 0o700) },
		"somebody's notes": func(path string) error { return os.WriteFile(path, []byte("notes"), 0o600) },
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, doorName)
		if err := fill(path); err != nil {
			t.Fatal(err)
		}
		if _, err := openDoor(dir, nil); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move it") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDoorTakesNothingElse(t *testing.T) {
	k, dir := upgradable(t, "plain", nil)
	k.await(t, Ready)
	if fi, err := os.Stat(filepath.Join(dir, doorName)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	for name, b := range map[string][]byte{"a server's": message{kind: ready}.encode(), "noise": []byte("open"), "nothing": nil} {
		err := within(dir, func(short string) error {
			c, err := net.Dial("unixpacket", short)
			if err != nil {
				return err
			}
			defer c.Close()
			if b != nil {
				_, err = c.Write(b)
			} else {
				err = c.(*net.UnixConn).CloseWrite()
			}
			if err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(slow))
			if n, err := c.Read(make([]byte, 100)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && n != 0 {
				t.Errorf("%s: answered by %d bytes, %v", name, n, err)
			}
			return nil
		})
		if err != nil {
			t.Error(name, err)
		}
	}
	mustAsk(t, dir, nil)
	if _, err := Ask(t.Context(), t.TempDir(), nil, nil); !errors.Is(err, ErrNobody) {
		t.Errorf("without a keeper: %v", err)
	}
}

// The keeper becomes another program in place: the same process and sockets, and
// its server does not notice.
func TestKeeperBecomesAnother(t *testing.T) {
	dir := t.TempDir()
	k := startKeeper(t, dir)
	addr := k.addr
	for _, name := range []string{"second", "third"} {
		program := as(t, name)
		stages := mustAsk(t, dir, program)
		if len(stages) == 0 || stages[len(stages)-1] != Replacing {
			t.Errorf("stages %v", stages)
		}
		if !isOf(k.cmd.Process.Pid, program.Name()) {
			t.Errorf("the keeper is not of %s", program.Name())
		}
		old := k.server
		if k.next(t); k.addr != addr || k.server == old {
			t.Fatalf("server %d on %s; before %d on %s", k.server, k.addr, old, addr)
		}
		by := dialAsk(t, addr, "helper loud")
		if by != fmt.Sprintf("%d LOUD", k.server) {
			t.Errorf("a helper for the server that stayed: %q", by)
		}
	}
	// The next keeper replaces servers as the first did.
	old := k.server
	_ = syscall.Kill(old, syscall.SIGKILL)
	if k.next(t); k.server == old {
		t.Fatal(old)
	}
	// One that would not take over is not executed.
	if _, err := Ask(t.Context(), dir, as(t, "crashes-as-keeper"), func(Stage) {}); !errors.Is(err, ErrHalf) {
		t.Errorf("err = %v", err)
	}
	old = k.server
	if k.next(t); k.server == old {
		t.Fatal(old)
	}
	// And a keeper that is killed takes the server with it, also one it did not start.
	_ = k.cmd.Process.Kill()
	waitUntil(t, func() bool { return syscall.Kill(k.server, 0) != nil })
}

func dialAsk(t *testing.T, addr, line string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(slow))
	fmt.Fprintln(c, line)
	s, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(s)
}

// The kernel hands packets to the sockets that the programs name.
func TestSteer(t *testing.T) {
	pair, err := openPublic(t.Context(), "127.0.0.1:0", udp)
	if err != nil {
		t.Fatal(err)
	}
	defer closeSockets(pair)
	both := prefixes([4]byte{0xfe, 2, 3, 4})
	if both[0] == both[1] || both[0][1] != 2 {
		t.Fatalf("%x", both)
	}
	short := func(prefix [4]byte) []byte { return append(append([]byte{0x40}, prefix[:]...), make([]byte, 20)...) }
	long := func(prefix [4]byte) []byte {
		return append(append([]byte{0xc0, 0, 0, 0, 1, 12}, prefix[:]...), make([]byte, 20)...)
	}
	for _, tc := range []struct {
		name    string
		program []unix.SockFilter
		packet  []byte
		want    int
	}{
		{"one: 0", toOne(0), short(both[1]), 0},
		{"one: 1", toOne(1), short(both[0]), 1},
		{"old's, short", toBoth(1, 0, both[0]), short(both[0]), 0},
		{"old's, long", toBoth(1, 0, both[0]), long(both[0]), 0},
		{"new's, short", toBoth(1, 0, both[0]), short(both[1]), 1},
		{"new's, long", toBoth(1, 0, both[0]), long(both[1]), 1},
		{"client's own", toBoth(1, 0, both[0]), long([4]byte{9, 9, 9, 9}), 1},
		{"too short", toBoth(1, 0, both[0]), []byte{0x40, both[0][0]}, 1},
		{"other way", toBoth(0, 1, both[1]), long(both[1]), 1},
		{"other way, client's", toBoth(0, 1, both[1]), long([4]byte{9, 9, 9, 9}), 0},
	} {
		if err := steer(pair[1].fd, tc.program); err != nil {
			t.Fatal(err)
		}
		// From several ports: it must not be the address that decides.
		for range 8 {
			c, err := net.Dial("udp", pair[1].addr.String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(tc.packet); err != nil {
				t.Fatal(err)
			}
			c.Close()
			b := make([]byte, 100)
			n, _, err := unix.Recvfrom(pair[1+tc.want].fd, b, unix.MSG_DONTWAIT)
			if err != nil || !bytes.Equal(b[:n], tc.packet) {
				t.Errorf("%s: socket %d has %x, %v", tc.name, tc.want, b[:max(n, 0)], err)
			}
		}
	}
}

// A peer of a newer version may say what is not known here; the answer tells it.
func TestUnknownKindIsAnswered(t *testing.T) {
	a, b := pair(t)
	newer := message{kind: 0xf0}.encode()
	newer[6], newer[20] = 1, 7
	for _, m := range [][]byte{newer, message{kind: ready}.encode()} {
		if _, _, err := a.conn.WriteMsgUnix(m, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if m, _, err := b.receive(); err != nil || m.kind != ready {
		t.Errorf("%+v, %v", m, err)
	}
	if m, _, err := a.receive(); err != nil || m != (message{kind: unknown, number: 0xf0}) {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestRole(t *testing.T) {
	for _, r := range []role{{}, {prefix: [4]byte{1, 2, 3, 255}, beside: true, held: true}} {
		if got, err := parseRole(r.String()); err != nil || got != r {
			t.Errorf("%+v: %+v, %v", r, got, err)
		}
	}
	if r, err := parseRole("of-a-later-version beside"); err != nil || !r.beside {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := parseRole("prefix=12"); err == nil {
		t.Error("a short prefix was taken")
	}
}

func FuzzDescription(f *testing.F) {
	good := description{Version: descriptionVersion, Sockets: []inSocket{{Name: PublicTCP, FD: 3}}, Server: inServer{PID: 9, Control: 4, Program: inProgram{FD: 5}}}
	b, err := json.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1,"more":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeDescription(b)
		if err != nil {
			return
		}
		if len(d.Sockets) == 0 || d.Server.PID < 2 || d.Server.Number != 0 && d.Server.Number != 1 {
			t.Errorf("%+v was taken", d)
		}
		d.inheritance(true)
	})
}

// A keeper that is not on its main thread must not be replaced: its servers would be killed.
func TestOnlyTheMainThreadIsReplaced(t *testing.T) {
	k, dir := upgradable(t, "plain", func(c *Config) { c.Become = true }) // the main thread is main's (init)
	k.await(t, Ready)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := Ask(ctx, dir, nil, func(Stage) {}); !errors.Is(err, ErrHalf) || !strings.Contains(err.Error(), "main thread") {
		t.Errorf("err = %v", err)
	}
	if e := k.await(t, Upgraded); e.Err == nil {
		t.Errorf("%+v", e)
	}
}
