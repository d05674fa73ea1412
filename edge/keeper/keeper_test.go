package keeper

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/jail"
	"github.com/selvage-edge/selvage/runtime/sealed"
)

// The main thread stays with main. A keeper's is the one that starts servers and
// is replaced; in the tests themselves it must not fall to a keeper by chance.
func init() { runtime.LockOSThread() }

// The test binary is keeper, server and helper, as the product is. Under other
// names it is a program that is not to be had as an upgrade (upgrade_test.go).
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if os.Args[1] == "server" {
			misbehave()
		}
		switch os.Args[1] {
		case "helper":
			os.Exit(jail.Main(os.Args[2:], work))
		case "server":
			os.Exit(beServer(os.Args[2]))
		case "keeper":
			os.Exit(beKeeper(os.Args[2]))
		case "lend":
			signal.Ignore(syscall.SIGTERM) // as the program does, whose main takes it
			os.Exit(beLender())
		}
	}
	os.Exit(m.Run())
}

func work(_ jail.Verb, in []byte) ([]byte, error) {
	switch string(in) {
	case "sleep":
		time.Sleep(time.Hour)
	case "refuse":
		return nil, &jail.Refused{Reason: "no thanks"}
	case "panic":
		panic("fell over")
	}
	return bytes.ToUpper(in), nil
}

// beServer answers each line with "pid line". Lines that start with a verb do more.
func beServer(mode string) int {
	if mode == "misconfigured" {
		return ExitConfig
	}
	if mode == "crash" {
		return 1
	}
	a, err := Attach()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if mode == "unheld" && !a.Held() {
		return 1
	}
	l, err := a.Listener(PublicTCP)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if !a.Has(Admin) || a.Has(Peer) || a.Has(PublicTCP) {
		fmt.Fprintln(os.Stderr, "other sockets than were asked for")
		return 1
	}
	p, err := a.PacketConn(PublicUDP)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go echoUDP(p)
	var conns sync.WaitGroup
	conns.Go(func() { accept(a, l, &conns) }) // also what it took just before the end is answered
	if mode == "unready" {
		<-term
		return 1
	}
	if err := a.Ready(); err != nil {
		return 1
	}
	if mode == "rude" {
		_, _ = a.link.conn.Write([]byte("let me run /bin/sh"))
	}
	select {
	case <-term:
	case <-a.Retire():
		if err := a.Retired(); err != nil {
			return 1
		}
	}
	if mode == "stubborn" {
		select {}
	}
	l.Close()
	conns.Wait()
	a.Close()
	return 0
}

func echoUDP(p net.PacketConn) {
	b := make([]byte, 1500)
	for {
		n, from, err := p.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = p.WriteTo(fmt.Appendf(nil, "%d %s", os.Getpid(), b[:n]), from)
	}
}

func accept(a *Attached, l net.Listener, conns *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		conns.Go(func() { answer(a, c) })
	}
}

func answer(a *Attached, c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	reply := rest
	switch word {
	case "knock": // a server must not get its keeper to do this
		_, err := Ask(context.Background(), rest, nil, func(Stage) {})
		reply = fmt.Sprint(err)
	case "reigns":
		<-a.Reign()
	case "helper":
		reply = runHelper(a, rest)
	case "hold": // until the client says so
		fmt.Fprintln(c, "held")
		reply, _ = r.ReadString('\n')
		reply = strings.TrimSpace(reply)
	}
	fmt.Fprintf(c, "%d %s\n", os.Getpid(), reply)
}

func runHelper(a *Attached, input string) string {
	if input == "cancelled" {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_, err := a.Run(ctx, jail.Compile, []byte("sleep"))
		return fmt.Sprint(err)
	}
	res, err := a.Run(context.Background(), jail.Compile, []byte(input))
	if err != nil {
		kind := "other"
		for name, e := range map[string]error{"crash": jail.ErrCrash, "time": jail.ErrTime, "memory": jail.ErrMemory} {
			if errors.Is(err, e) {
				kind = name
			}
		}
		if no := new(jail.Refused); errors.As(err, &no) {
			kind = "refused"
		}
		text, _, _ := strings.Cut(err.Error(), "\n")
		return kind + ": " + text
	}
	return string(res.Output)
}

// slow is how long a machine may take for what is awaited.
const slow = time.Minute

// kept is a keeper under test and what it told.
type kept struct {
	*Keeper
	events chan Event
	end    chan error
	cancel context.CancelFunc
}

func keepServer(t *testing.T, mode string, change func(*Config)) *kept {
	t.Helper()
	h, err := jail.Open(jail.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	k := &kept{events: make(chan Event, 1000), end: make(chan error, 1), cancel: cancel}
	c := Config{Public: "127.0.0.1:0", Admin: "127.0.0.1:0", Args: []string{"server", mode}, Helpers: h,
		Drain: slow, Event: k.note}
	if change != nil {
		change(&c)
	}
	if k.Keeper, err = Open(ctx, c); err != nil {
		t.Fatal(err)
	}
	go func() { k.end <- k.Run(ctx) }()
	t.Cleanup(func() { k.stop(t) })
	return k
}

// note takes an event, on the keeper's own goroutine.
func (k *kept) note(e Event) {
	if e.Kind == Upgrading && filepath.Base(e.Program) == "mute" {
		k.config.Patience = 100 * time.Millisecond // others may be as slow as the machine
	}
	k.events <- e
}

func (k *kept) stop(t *testing.T) {
	k.cancel()
	select {
	case err := <-k.end:
		k.end <- err
	case <-time.After(2 * slow):
		t.Error("the keeper did not end")
	}
}

// drained are the events that came until now and nobody awaited.
func (k *kept) drained() (all []Event) {
	for {
		select {
		case e := <-k.events:
			all = append(all, e)
		default:
			return all
		}
	}
}

// await returns the next event of that kind.
func (k *kept) await(t *testing.T, want EventKind) Event {
	t.Helper()
	deadline := time.After(slow)
	for {
		select {
		case e := <-k.events:
			if e.Kind == want {
				return e
			}
		case <-deadline:
			t.Fatalf("no server was %s", want)
		}
	}
}

// ask sends one line and returns pid and reply.
func (k *kept) ask(line string) (pid int, reply string, err error) {
	c, err := net.Dial("tcp", k.Addr(PublicTCP).String())
	if err != nil {
		return 0, "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(slow))
	fmt.Fprintln(c, line)
	return readReply(bufio.NewReader(c))
}

func readReply(r *bufio.Reader) (pid int, reply string, err error) {
	s, err := r.ReadString('\n')
	if err != nil {
		return 0, "", err
	}
	first, reply, _ := strings.Cut(strings.TrimSpace(s), " ")
	pid, err = strconv.Atoi(first)
	return pid, reply, err
}

// A server killed again and again refuses nobody: a connection that had been
// accepted may be reset, the next one queues until the new server takes it.
func TestKilledServerRefusesNobody(t *testing.T) {
	k := keepServer(t, "plain", nil)
	pid := k.await(t, Ready).PID
	var asked, refused, reset, answered atomic.Int64
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
				_, reply, err := k.ask("say hello")
				switch {
				case err == nil && reply == "hello":
					answered.Add(1)
				case errors.Is(err, syscall.ECONNREFUSED):
					refused.Add(1)
				case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF):
					reset.Add(1)
				default:
					t.Errorf("reply %q, %v", reply, err)
				}
			}
		})
	}
	for range 3 {
		before := answered.Load()
		waitUntil(t, func() bool { return answered.Load() > before+50 })
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if e := k.await(t, Exited); e.PID != pid || e.Err == nil {
			t.Errorf("exited: %+v, want pid %d", e, pid)
		}
		pid = k.await(t, Ready).PID
	}
	close(stop)
	clients.Wait()
	if refused.Load() != 0 || reset.Load() > 3*4 {
		t.Errorf("%d asked, %d refused, %d reset", asked.Load(), refused.Load(), reset.Load())
	}
	t.Logf("%d asked, %d answered, %d refused, %d reset", asked.Load(), answered.Load(), refused.Load(), reset.Load())
	if now, _, err := k.ask("say"); err != nil || now != pid {
		t.Errorf("answered by %d, %v; want %d", now, err, pid)
	}
}

// A packet sent while there is no server is answered by the next one.
func TestUDPSocketStays(t *testing.T) {
	k := keepServer(t, "plain", nil)
	pid := k.await(t, Ready).PID
	if k.Addr(PublicTCP).(*net.TCPAddr).Port != k.Addr(PublicUDP).(*net.UDPAddr).Port {
		t.Errorf("TCP on %s, UDP on %s", k.Addr(PublicTCP), k.Addr(PublicUDP))
	}
	c, err := net.Dial("udp", k.Addr(PublicUDP).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = syscall.Kill(pid, syscall.SIGKILL)
	k.await(t, Exited)
	if _, err := c.Write([]byte("anybody?")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(slow))
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil || !strings.HasSuffix(string(b[:n]), " anybody?") {
		t.Errorf("read %q, %v", b[:n], err)
	}
}

func TestHelpers(t *testing.T) {
	k := keepServer(t, "plain", nil)
	k.await(t, Ready)
	for _, tc := range []struct{ input, want string }{
		{"make me loud", "MAKE ME LOUD"},
		{"refuse", "refused: no thanks"},
		{"panic", "crash: jail: the helper crashed (compile): panic: fell over"},
		{"cancelled", "context deadline exceeded"},
		{"again", "AGAIN"},
	} {
		if _, got, err := k.ask("helper " + tc.input); err != nil || got != tc.want {
			t.Errorf("%s: %q, %v; want %q", tc.input, got, err, tc.want)
		}
	}
}

// The helpers of a server that died are of no use to anybody.
func TestHelpersDieWithServer(t *testing.T) {
	k := keepServer(t, "plain", nil)
	pid := k.await(t, Ready).PID
	go k.ask("helper sleep")
	waitUntil(t, func() bool { return helpers() == 1 })
	_ = syscall.Kill(pid, syscall.SIGKILL)
	k.await(t, Exited)
	if n := helpers(); n != 0 {
		t.Errorf("%d helpers after their server", n)
	}
}

// helpers counts the children of this process that are helpers.
func helpers() int {
	n := 0
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		b, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		for _, pid := range strings.Fields(string(b)) {
			line, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			if bytes.Contains(line, []byte("\x00helper\x00")) {
				n++
			}
		}
	}
	return n
}

func TestDrainLetsRequestsFinish(t *testing.T) {
	k := keepServer(t, "plain", nil)
	pid := k.await(t, Ready).PID
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
	k.cancel()
	k.await(t, Draining)
	waitUntil(t, func() bool { // the port is closed for new ones while the old one goes on
		n, err := net.Dial("tcp", k.Addr(PublicTCP).String())
		if err == nil {
			n.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	fmt.Fprintln(c, "finished")
	if by, s, err := readReply(r); err != nil || by != pid || s != "finished" {
		t.Errorf("%d %q %v", by, s, err)
	}
	if err := <-k.end; err != nil {
		t.Errorf("Run = %v", err)
	}
	k.end <- nil
}

func TestDrainHasAnEnd(t *testing.T) {
	k := keepServer(t, "stubborn", func(c *Config) { c.Drain = 100 * time.Millisecond })
	pid := k.await(t, Ready).PID
	k.cancel()
	err := <-k.end
	k.end <- err
	if !errors.Is(err, errKilled) {
		t.Errorf("Run = %v", err)
	}
	if syscall.Kill(pid, 0) == nil {
		t.Error("the server is still there")
	}
}

func TestMisconfiguredServerIsNotRepeated(t *testing.T) {
	k := keepServer(t, "misconfigured", nil)
	err := <-k.end
	k.end <- err
	if !errors.Is(err, ErrConfig) {
		t.Errorf("Run = %v", err)
	}
}

func TestCrashingServerIsSlowedDown(t *testing.T) {
	k := keepServer(t, "crash", nil)
	for _, want := range []time.Duration{0, firstWait, 2 * firstWait} {
		if e := k.await(t, Exited); e.Wait != want {
			t.Errorf("the next start is after %s, want %s", e.Wait, want)
		}
	}
}

// A server that breaks the protocol has been taken over, or is broken: it is replaced.
func TestRudeServerIsReplaced(t *testing.T) {
	k := keepServer(t, "rude", nil)
	first := k.await(t, Exited)
	if !errors.Is(first.Err, errMessage) {
		t.Errorf("exited: %v", first.Err)
	}
	if second := k.await(t, Started); second.PID == first.PID {
		t.Error("it was not replaced")
	}
}

// When the keeper is killed, its server goes with it, and the sockets.
func TestServerDiesWithKeeper(t *testing.T) {
	k := startKeeper(t, t.TempDir())
	_ = k.cmd.Process.Kill()
	k.end()
	waitUntil(t, func() bool { return syscall.Kill(k.server, 0) != nil })
	if c, err := net.Dial("tcp", k.addr); err == nil {
		c.Close()
		t.Error("somebody still listens")
	}
}

// keeperProcess is a keeper in a process of its own.
type keeperProcess struct {
	cmd    *exec.Cmd
	out    io.Reader
	addr   string
	server int // that was ready last
}

// startKeeper waits until a server is ready.
func startKeeper(t *testing.T, dir string, env ...string) *keeperProcess {
	t.Helper()
	k := &keeperProcess{cmd: exec.Command("/proc/self/exe", "keeper", dir)}
	k.cmd.Env = append(os.Environ(), env...)
	k.cmd.Stderr = os.Stderr
	var err error
	if k.out, err = k.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.cmd.Process.Kill(); k.end() })
	k.next(t)
	return k
}

// next waits until another server is ready.
func (k *keeperProcess) next(t *testing.T) {
	t.Helper()
	if _, err := fmt.Fscan(k.out, &k.server, &k.addr); err != nil {
		t.Fatal(err)
	}
}

// end waits for the keeper's end and says how it was.
func (k *keeperProcess) end() string {
	_ = k.cmd.Wait()
	return k.cmd.ProcessState.String()
}

// publicVariable is the address of a keeperProcess; otherwise it takes any.
const publicVariable = "KEEPER_TEST_PUBLIC"

// beKeeper prints each ready server's process id and the address, and keeps it.
func beKeeper(dir string) int {
	left, err := Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if exe, _ := os.Executable(); filepath.Base(exe) == "crashes-as-keeper" {
		return 1
	}
	killAsKeeper(left)
	if left.Trial() {
		return 0
	}
	h, err := jail.Open(jail.Config{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var k *Keeper
	killed := killedAt()
	k, err = Open(context.Background(), Config{Public: cmp.Or(os.Getenv(publicVariable), "127.0.0.1:0"), Admin: "127.0.0.1:0", Args: []string{"server", "plain"}, Helpers: h,
		State: dir, Become: true, Inherited: left,
		Event: func(e Event) {
			if e.Kind == Ready {
				fmt.Println(e.PID, k.Addr(PublicTCP))
			}
			killed(e)
		}})
	if err == nil {
		err = k.Run(context.Background())
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	err := Config{Public: "nowhere", Peer: "9", Drain: -1}.Validate()
	for _, want := range []string{`public address "nowhere"`, `peer address "9"`, "no command", "helpers", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate = %v, want it to say %q", err, want)
		}
	}
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = openPublic(t.Context(), taken.LocalAddr().String(), udp)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "public-udp") {
		t.Errorf("err = %v", err)
	}
	// The TCP half was given back.
	l, err := net.Listen("tcp", taken.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestPublicPortIsSoughtForBoth(t *testing.T) {
	tries := 0
	half := func(ctx context.Context, name, addr string) (socket, error) {
		if tries++; tries < 4 {
			return socket{}, openError(name, addr, syscall.EADDRINUSE)
		}
		return udp(ctx, name, addr)
	}
	both, err := openPublic(t.Context(), "127.0.0.1:0", half)
	if err != nil || tries != 4 {
		t.Fatal(tries, err)
	}
	closeSockets(both)
	tries = -1 << 20
	if _, err := openPublic(t.Context(), "127.0.0.1:0", half); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("err = %v after %d tries", err, portTries)
	}
}

func TestAttachAlone(t *testing.T) {
	if _, err := Attach(); !errors.Is(err, ErrAlone) {
		t.Errorf("err = %v", err)
	}
}

// pair is the two ends of a control socket, without processes.
func pair(t testing.TB) (*link, *link) {
	t.Helper()
	a, b, err := controlPair()
	if err != nil {
		t.Fatal(err)
	}
	la, err := newLink(a)
	if err != nil {
		t.Fatal(err)
	}
	lb, err := newLink(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { la.close(); lb.close() })
	return la, lb
}

func TestLinkRefuses(t *testing.T) {
	f, err := sealed.New("f", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	good := message{kind: run, verb: jail.Compile, number: 7}.encode()
	for name, tc := range map[string]struct {
		b      []byte
		rights []byte
	}{
		"no file":         {good, nil},
		"two files":       {good, unix.UnixRights(fd, fd)},
		"too many files":  {good, unix.UnixRights(fd, fd, fd, fd, fd, fd, fd)},
		"short":           {good[:31], unix.UnixRights(fd)},
		"long":            {append(bytes.Clone(good), 0), unix.UnixRights(fd)},
		"very long":       {make([]byte, 4096), nil},
		"file with ready": {message{kind: ready}.encode(), unix.UnixRights(fd)},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			before := countFiles(t)
			if _, _, err := a.conn.WriteMsgUnix(tc.b, tc.rights, nil); err != nil {
				t.Fatal(err)
			}
			if _, _, err := b.receive(); !errors.Is(err, errMessage) {
				t.Errorf("err = %v", err)
			}
			if after := countFiles(t); after != before {
				t.Errorf("%d files open, %d before", after, before)
			}
		})
	}
}

func countFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// fakeRunner answers at once, or when its context ends.
type fakeRunner struct{}

func (fakeRunner) RunFileOf(ctx context.Context, _ string, v jail.Verb, in *os.File) (jail.Outcome, error) {
	b, err := sealed.Read(in, 1<<20)
	if err != nil {
		return jail.Outcome{}, err
	}
	if string(b) == "wait" {
		<-ctx.Done()
		return jail.Outcome{}, ctx.Err()
	}
	f, err := sealed.New("out", b)
	return jail.Outcome{Status: jail.Done, File: f}, err
}

func TestBrokerRefusesTooMuch(t *testing.T) {
	f, err := sealed.New("f", []byte("wait"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, numbers := range map[string][]uint64{
		"twice":    {1, 1},
		"too many": upTo(maxPending + 1),
	} {
		ours, theirs := pair(t)
		broken := make(chan error, 1)
		b := newBroker(ours, fakeRunner{}, "", func(f fact, err error) {
			if f == broke {
				broken <- err
			}
		})
		go b.serve()
		for _, n := range numbers {
			if err := theirs.send(message{kind: run, verb: jail.Compile, number: n}, f); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-broken; !errors.Is(err, errMessage) {
			t.Errorf("%s: %v", name, err)
		}
		b.close()
	}
}

func upTo(n int) (all []uint64) {
	for i := range n {
		all = append(all, uint64(i))
	}
	return all
}

// More requests than the keeper takes wait on the server's side, also when
// many are given up.
func TestClientKeepsWithinBounds(t *testing.T) {
	ours, theirs := pair(t)
	broken := make(chan error, 1)
	b := newBroker(ours, fakeRunner{}, "", func(f fact, err error) { broken <- err })
	go b.serve()
	a := attach(nil, theirs)
	var all sync.WaitGroup
	for i := range 3 * maxPending {
		all.Go(func() {
			if i%2 == 0 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				defer cancel()
				if _, err := a.Run(ctx, jail.Compile, []byte("wait")); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("err = %v", err)
				}
				return
			}
			want := strconv.Itoa(i)
			if r, err := a.Run(t.Context(), jail.Compile, []byte(want)); err != nil || string(r.Output) != want {
				t.Errorf("%d: %q, %v", i, r.Output, err)
			}
		})
	}
	all.Wait()
	select {
	case err := <-broken:
		t.Error(err)
	default:
	}
	b.close()
	if _, err := a.Run(t.Context(), jail.Compile, nil); !errors.Is(err, errLost) && err == nil {
		t.Errorf("err = %v without a keeper", err)
	}
	a.Close()
}

func waitUntil(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(slow); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to that within %v", slow)
		}
	}
}

func TestMessageRoundTrip(t *testing.T) {
	for _, tc := range []struct {
		m     message
		files int
	}{
		{message{kind: ready}, 0},
		{message{kind: run, verb: jail.Prepare, number: 1<<64 - 1}, 1},
		{message{kind: cancel, number: 3}, 0},
		{message{kind: done, status: jail.TimedOut, number: 9, wall: time.Hour, cpu: time.Second}, 1},
		{message{kind: done, status: jail.Crashed, number: 9}, 0},
		{message{kind: hello, number: speaks}, 0},
		{message{kind: unknown, number: 0xff}, 0},
		{message{kind: reign}, 0},
		{message{kind: retire}, 0},
		{message{kind: retired}, 0},
		{message{kind: upgrade}, 1},
		{message{kind: upgrade}, 0},
		{message{kind: stage, number: uint64(Switched)}, 0},
		{message{kind: verdict, number: wentWell}, 1},
	} {
		if got, err := decode(tc.m.encode(), tc.files); err != nil || got != tc.m {
			t.Errorf("%+v: %+v, %v", tc.m, got, err)
		}
	}
}

// FuzzDecode: what is taken is exactly what would have been sent.
func FuzzDecode(f *testing.F) {
	f.Add(message{kind: ready}.encode(), 0)
	f.Add(message{kind: run, verb: jail.Compile, number: 1}.encode(), 1)
	f.Add(message{kind: cancel, number: 1}.encode(), 0)
	for k := hello; k <= verdict+1; k++ {
		f.Add(message{kind: k, number: 1}.encode(), 0)
		f.Add(message{kind: k}.encode(), 1)
	}
	f.Add(message{kind: done, status: jail.Done, number: 1, wall: 5, cpu: 4}.encode(), 1)
	f.Fuzz(func(t *testing.T, b []byte, files int) {
		m, err := decode(b, files)
		if err != nil {
			return
		}
		if !m.kind.known() {
			if m.kind&optional == 0 || m != (message{kind: m.kind}) {
				t.Errorf("%x was taken for %+v", b, m)
			}
			return
		}
		if !bytes.Equal(m.encode(), b) {
			t.Errorf("%x was taken for %+v", b, m)
		}
		if files < 0 || files > 1 {
			t.Errorf("%d files were taken", files)
		}
	})
}
