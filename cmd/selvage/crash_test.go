package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/up"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/tooltest"
)

// children lists the processes that pid started whose command line has word.
func children(pid int, word string) (found []int) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue // ended meanwhile
		}
		// pid (comm) state ppid; comm may hold anything, also brackets.
		rest := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		line, err := os.ReadFile(dir + "/cmdline")
		if err != nil || len(rest) < 2 || rest[0] == "Z" || rest[1] != strconv.Itoa(pid) {
			continue
		}
		for _, arg := range strings.Split(string(line), "\x00")[1:] {
			if arg == word {
				child, _ := strconv.Atoi(filepath.Base(dir))
				found = append(found, child)
				break
			}
		}
	}
	return found
}

func kill9(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// load asks a function again and again from some clients until stop, which
// reports how many answers were right, broke off, and were refused a connection.
func (w *world) load(t *testing.T, n up.Node, name, want string) (stop func() (good, broken, refused, wrong int64)) {
	t.Helper()
	var good, broken, refused, wrong atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	one := func() {
		c, err := request.New(request.Config{Version: request.HTTP2, Connect: n.Public, CAFile: w.EdgeCA})
		if err != nil {
			return
		}
		defer c.Close()
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+name+".edge.localhost:8443/", nil)
		a, err := c.Do(r)
		var body []byte
		if err == nil {
			body, err = io.ReadAll(a.Body)
			a.Body.Close()
		}
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, syscall.ECONNREFUSED):
			refused.Add(1)
		case err != nil:
			broken.Add(1)
		case a.Status == 200 && string(body) == want:
			good.Add(1)
		default:
			wrong.Add(1)
			t.Errorf("%s answered %d %q", name, a.Status, body)
		}
	}
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				one()
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	return func() (int64, int64, int64, int64) {
		cancel()
		clients.Wait()
		return good.Load(), broken.Load(), refused.Load(), wrong.Load()
	}
}

// slow is a module that takes a compiler a good while, different for each seed.
func slow(t *testing.T, seed int) []byte {
	var b strings.Builder
	for f := range 400 {
		fmt.Fprintf(&b, "(func $f%d (param i64) (result i64) (local i64 i64)\n", f)
		for i := range 60 {
			fmt.Fprintf(&b, `(if (i64.lt_u (local.get 0) (i64.const %d)) (then (local.set 1 (i64.mul (i64.add (local.get 1) (local.get 0)) (i64.const %d)))) (else (local.set 2 (i64.xor (local.get 1) (i64.rotl (local.get 2) (i64.const %d))))))`+"\n", i*7+f, i+seed+f, i%63)
		}
		b.WriteString("(i64.add (local.get 1) (local.get 2)))\n")
	}
	b.WriteString(`(data (i32.const 64) "slow") (func (export "handle") (drop (call $f0 (i64.const 3))) (drop (call $response_write (i32.const 64) (i32.const 4))))`)
	return guesttest.Guest(t, b.String())
}

// What happens when a process is killed on the spot: at rest, under load, at work.
func TestKilled(t *testing.T) {
	w := openWorld(t, "127.0.7.10")
	n := w.Layout.Edges[0]
	w.selvage(t, "kv", "create", "words").expect(t, exitOK)
	w.selvage(t, "deploy", "--wait", w.function(t, "good", guesttest.Guest(t, greet))).expect(t, exitOK, "live")

	t.Run("server at rest", func(t *testing.T) {
		pid := w.onlyServer(t, n)
		kill9(t, pid)
		w.answers(t, n, "good", "woven\n")
		if now := w.onlyServer(t, n); now == pid {
			t.Errorf("still process %d", pid)
		}
	})
	t.Run("server under load", func(t *testing.T) {
		stop := w.load(t, n, "good", "woven\n")
		for range 3 {
			pid := w.onlyServer(t, n)
			kill9(t, pid)
			eventually(t, "another server", func() bool { return w.onlyServer(t, n) != pid })
			w.answers(t, n, "good", "woven\n")
		}
		good, broken, refused, _ := stop()
		t.Logf("%d answered, %d broke off, %d refused", good, broken, refused)
		if refused != 0 || good == 0 {
			t.Errorf("%d refused, %d answered", refused, good)
		}
	})
	t.Run("helper at work for control", func(t *testing.T) {
		dir := w.function(t, "slow", slow(t, 1))
		done := make(chan result, 1)
		go func() { done <- w.selvage(t, "deploy", dir) }()
		lenders := children(w.Control.PID(), "lend")
		if len(lenders) != 1 {
			t.Fatalf("%d processes run helpers for control", len(lenders))
		}
		w.killHelpers(t, lenders[0], done)
		r := <-done
		if r.code == exitOK {
			t.Skip("the helper was done before it was killed") // it is looked for every millisecond; then there is nothing to see
		}
		r.expect(t, exitFailed, "was killed", "deploy again")
		w.selvage(t, "deploy", "--wait", dir).expect(t, exitOK, "live")
	})
	t.Run("helper at work for a node", func(t *testing.T) {
		dir := w.function(t, "slower", slow(t, 2))
		done := make(chan result, 1)
		go func() { done <- w.selvage(t, "deploy", dir) }()
		if !w.killHelpers(t, w.Edges[n.Name].PID(), nil) {
			t.Error("no helper was seen")
		}
		(<-done).expect(t, exitOK)
		w.answers(t, n, "slower", "slow")
		if text := logOf(t, n); !strings.Contains(text, "agent: failed") {
			t.Error("the node's log does not tell of it")
		}
	})
	t.Run("control at rest", func(t *testing.T) {
		w.selvage(t, "kv", "put", "words", "k", "before").expect(t, exitOK)
		kill9(t, w.Control.PID())
		<-w.Control.Done()
		w.answers(t, n, "good", "woven\n")
		if err := w.StartControl(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.selvage(t, "kv", "get", "words", "k").expect(t, exitOK, "before")
	})
	t.Run("what runs control's helpers", func(t *testing.T) {
		lenders := children(w.Control.PID(), "lend")
		if len(lenders) != 1 {
			t.Fatalf("%d processes run helpers for control", len(lenders))
		}
		kill9(t, lenders[0])
		<-w.Control.Done() // whoever started it starts it again
		if text := logOf(t, w.Layout.Control); !strings.Contains(text, "the process that runs helpers has ended") {
			t.Errorf("it does not say why it ends:\n%s", text)
		}
		if err := w.StartControl(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.selvage(t, "deploy", "--wait", w.function(t, "good", guesttest.Guest(t, greet))).expect(t, exitOK, "live")
	})
	t.Run("control under writes", func(t *testing.T) {
		var acked []string
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for i := 0; ; i++ {
				k := fmt.Sprint("w", i)
				if w.selvage(t, "kv", "put", "words", k, "value of "+k).code != exitOK {
					return
				}
				acked = append(acked, k)
			}
		}()
		time.Sleep(time.Second)
		kill9(t, w.Control.PID())
		<-w.Control.Done()
		<-stopped
		if err := w.StartControl(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d writes were acknowledged", len(acked))
		for _, k := range acked[max(0, len(acked)-10):] {
			w.selvage(t, "kv", "get", "words", k).expect(t, exitOK, "value of "+k)
		}
	})
	t.Run("keeper, control away", func(t *testing.T) {
		server, keeper := w.onlyServer(t, n), w.Edges[n.Name]
		kill9(t, w.Control.PID())
		<-w.Control.Done()
		kill9(t, keeper.PID())
		<-keeper.Done()
		eventually(t, "the server goes with its keeper", func() bool { return gone(server) })
		if err := w.StartEdge(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		w.answers(t, n, "good", "woven\n")
		w.answers(t, n, "slower", "slow")
		if err := w.StartControl(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.selvage(t, "deploy", "--wait", w.function(t, "after", says(t, "after"))).expect(t, exitOK, "live")
	})
}

// killHelpers kills the next helper that parent starts, and reports whether it saw one before done.
func (w *world) killHelpers(t *testing.T, parent int, done chan result) bool {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && len(done) == 0; time.Sleep(time.Millisecond) {
		for _, pid := range children(parent, "helper") {
			kill9(t, pid)
			return true
		}
	}
	return false
}

func logOf(t *testing.T, n up.Node) string {
	t.Helper()
	text, err := os.ReadFile(n.Log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// rewrite changes a file's bytes and keeps its mode.
func rewrite(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func flipMiddle(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/2] ^= 0x20
	return b
}

// Each file that a node keeps, spoilt while it is down: it says so, and serves what
// is right or nothing. Where control is away it helps itself with what it has.
func TestSpoiltFiles(t *testing.T) {
	w := openWorld(t, "127.0.7.20")
	n := w.Layout.Edges[0]
	w.selvage(t, "deploy", "--wait", w.function(t, "good", guesttest.Guest(t, greet))).expect(t, exitOK, "live")
	each := func(pattern string, change func([]byte) []byte) func(t *testing.T) {
		return func(t *testing.T) {
			files, err := filepath.Glob(filepath.Join(n.State, pattern))
			if err != nil || len(files) == 0 {
				t.Fatalf("no file is %s (%v)", pattern, err)
			}
			for _, f := range files {
				rewrite(t, f, change)
			}
		}
	}
	half := func(b []byte) []byte { return b[:len(b)/2] }
	none := func([]byte) []byte { return nil }
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T)
		alone bool   // control is away
		said  string // in the node's log
		ends  bool   // the node does not start, and says why
	}{
		{"artifact", each("artifacts/*.artifact", flipMiddle), true, "artifact: not what this node wrote", false},
		{"artifact cut short", each("artifacts/*.artifact", half), true, "artifact: not what this node wrote", false},
		{"code and image", each("agent/blobs/*", flipMiddle), false, "agent: rotten", false},
		{"code and image, empty", each("agent/blobs/*", none), false, "agent: rotten", false},
		{"catalog", each("agent/catalog", flipMiddle), false, "agent: catalog-unread", false},
		{"catalog cut short", each("agent/catalog", half), false, "agent: catalog-unread", false},
		{"seeds", each("seeds.json", half), false, "remembered seeds cannot be read", false},
		{"the node's secret, another", each("secret/node.key", flipMiddle), true, "artifact: not what this node wrote", false},
		{"the node's secret cut short", each("secret/node.key", half), false, "node.key", true},
		{"the node's certificate", each("identity/node.pem", half), false, "node.pem", true},
		{"the node's trust", each("identity/trust.json", half), false, "trust.json", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.end(n)
			if c.alone {
				kill9(t, w.Control.PID())
				<-w.Control.Done()
			}
			was := keep(t, n.State)
			c.spoil(t)
			before := len(logOf(t, n))
			if err := w.StartEdge(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			if c.ends {
				eventually(t, "the log names the file", func() bool { return strings.Contains(logOf(t, n)[before:], c.said) })
				w.end(n)
				was(t)
				if err := w.StartEdge(t.Context(), n); err != nil {
					t.Fatal(err)
				}
			}
			w.answers(t, n, "good", "woven\n")
			eventually(t, "the log says it", func() bool { return strings.Contains(logOf(t, n)[before:], c.said) })
			if !c.alone {
				eventually(t, "every blob is sound again", func() bool { return blobsSound(t, n.State) })
			}
			if c.alone {
				if err := w.StartControl(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// blobsSound reports whether each blob that a node keeps has the bytes of its name.
func blobsSound(t *testing.T, state string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(state, "agent/blobs/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || function.DigestOf(b).Hex() != filepath.Base(f) {
			return false
		}
	}
	return len(files) > 0
}

// One byte, anywhere, of each file that a node keeps of code and catalog is another, again
// and again: it says so of each, and serves what is right.
func TestRottenBytes(t *testing.T) {
	w := openWorld(t, "127.0.7.80")
	n := w.Layout.Edges[0]
	for _, name := range []string{"one", "two"} {
		w.selvage(t, "deploy", "--wait", w.function(t, name, says(t, name))).expect(t, exitOK, "live")
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	rot := func(b []byte) []byte {
		b[r.IntN(len(b))] ^= byte(1 + r.IntN(255))
		return b
	}
	for round := range 6 {
		w.end(n)
		hit := 0
		for _, pattern := range []string{"artifacts/*.artifact", "agent/blobs/*", "agent/catalog", "agent/catalog.served"} {
			files, err := filepath.Glob(filepath.Join(n.State, pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				rewrite(t, f, rot)
				hit++
			}
		}
		before := len(logOf(t, n))
		if err := w.StartEdge(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"one", "two"} {
			eventually(t, name+" is answered", func() bool {
				status, body := w.getFrom(t, n, request.HTTP2, name, "/")
				if status == 200 && body != name {
					t.Fatalf("round %d: %s answers %q", round, name, body)
				}
				return status == 200
			})
		}
		text := logOf(t, n)[before:]
		for _, said := range []string{"agent: catalog-unread", "agent: rotten", "artifact: not what this node wrote"} {
			if !strings.Contains(text, said) {
				t.Errorf("round %d, %d files: %q is not in the log:\n%s", round, hit, said, text)
			}
		}
	}
}

// One byte of one of the files that say who a node is: it serves what is right, or tells
// where something is wrong; and with the file back all is well.
func TestRottenIdentity(t *testing.T) {
	w := openWorld(t, "127.0.7.90")
	n := w.Layout.Edges[0]
	w.selvage(t, "deploy", "--wait", w.function(t, "good", guesttest.Guest(t, greet))).expect(t, exitOK, "live")
	w.end(n)
	back := keep(t, n.State)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	var files []string
	for _, sub := range []string{"identity", "secret"} {
		found, err := filepath.Glob(filepath.Join(n.State, sub, "*"))
		if err != nil || len(found) == 0 {
			t.Fatalf("no files in %s: %v", sub, err)
		}
		files = append(files, found...)
	}
	for range 2 {
		for _, f := range files {
			at, before := 0, len(logOf(t, n))
			rewrite(t, f, func(b []byte) []byte {
				at = r.IntN(len(b))
				b[at] ^= byte(1 + r.IntN(255))
				return b
			})
			if err := w.StartEdge(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			how := ""
			eventually(t, fmt.Sprintf("%s, byte %d (seed %d): it serves or tells", f, at, seed), func() bool {
				if strings.Contains(logOf(t, n)[before:], filepath.Dir(f)) {
					how = "told"
				} else if isReady(n) {
					how = "served"
				}
				return how != ""
			})
			if how == "served" {
				w.answers(t, n, "good", "woven\n")
			}
			t.Logf("%s, byte %d: %s", filepath.Base(f), at, how)
			w.end(n)
			back(t)
		}
	}
	if err := w.StartEdge(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	w.answers(t, n, "good", "woven\n")
}

// isReady asks a node; who does not answer soon is not.
func isReady(n up.Node) bool {
	c := http.Client{Timeout: 500 * time.Millisecond}
	defer c.CloseIdleConnections()
	resp, err := c.Get("http://" + n.Admin + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// end kills all of a node on the spot.
func (w *world) end(n up.Node) {
	_ = syscall.Kill(-w.Edges[n.Name].PID(), syscall.SIGKILL) // it may have ended already
	<-w.Edges[n.Name].Done()
}

// keep remembers the files of a folder and returns what puts them back.
func keep(t *testing.T, dir string) (restore func(t *testing.T)) {
	t.Helper()
	saved := t.TempDir()
	for _, sub := range []string{"secret", "identity"} { // the rest the node makes anew
		if err := os.CopyFS(filepath.Join(saved, sub), os.DirFS(filepath.Join(dir, sub))); err != nil {
			t.Fatal(err)
		}
	}
	return func(t *testing.T) {
		t.Helper()
		for _, sub := range []string{"secret", "identity"} {
			files, _ := filepath.Glob(filepath.Join(saved, sub, "*"))
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, sub, filepath.Base(f)), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// volume mounts a small file system of its own at dir. It needs root: without it the test is skipped, but not in CI.
func volume(t *testing.T, dir string, bytes int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", bytes)); err != nil {
		tooltest.Need(t, fmt.Sprintf("mount a small volume: %v: run it as root", err))
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// fill leaves no room on the volume of dir; the returned func makes room again.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for len(block) > 0 {
		if n, err := f.Write(block); err != nil && n == 0 {
			block = block[:len(block)/2]
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// A full disk, on control and on a node: what would have to be written is refused
// and said, what is there is read and served, and with room again all goes on.
func TestFullDisk(t *testing.T) {
	w := openWorldOf(t, "127.0.7.30", 1, func(l *up.Layout) {
		if testing.Short() {
			return
		}
		volume(t, l.Control.State, 300<<20) // a reserve of 256 MiB is written down for it
		volume(t, l.Edges[0].State, 48<<20)
	})
	n := w.Layout.Edges[0]
	w.selvage(t, "kv", "create", "words").expect(t, exitOK)
	w.selvage(t, "kv", "put", "words", "k", "v").expect(t, exitOK)
	w.selvage(t, "deploy", "--wait", w.function(t, "good", guesttest.Guest(t, greet))).expect(t, exitOK, "live")
	t.Run("control", func(t *testing.T) {
		empty := fill(t, w.Layout.Control.State)
		w.selvage(t, "kv", "put", "words", "k", "w").expect(t, exitFailed, "full", "free space", "reads still work")
		w.selvage(t, "deploy", w.function(t, "more", says(t, "more"))).expect(t, exitFailed, "full")
		w.selvage(t, "kv", "get", "words", "k").expect(t, exitOK, "v")
		w.selvage(t, "status").expect(t, exitOK)
		w.answers(t, n, "good", "woven\n")
		empty()
		w.selvage(t, "kv", "put", "words", "k", "w").expect(t, exitOK)
		w.selvage(t, "kv", "get", "words", "k").expect(t, exitOK, "w")
		w.selvage(t, "deploy", "--wait", w.function(t, "more", says(t, "more"))).expect(t, exitOK, "live")
	})
	t.Run("node", func(t *testing.T) {
		empty := fill(t, n.State)
		w.selvage(t, "deploy", w.function(t, "late", says(t, "late"))).expect(t, exitOK)
		eventually(t, "the node tells why it waits", func() bool {
			return strings.Contains(w.selvage(t, "status", "--json").out+logOf(t, n), "no space left on device")
		})
		w.answers(t, n, "good", "woven\n")
		w.answers(t, n, "more", "more")
		empty()
		w.answers(t, n, "late", "late")
		w.Edges[n.Name].Stop(30 * time.Second)
		if err := w.StartEdge(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		w.answers(t, n, "late", "late")
	})
}

// A server that runs out of file descriptors serves on with those it has, and all comes back
// once they do.
func TestFewDescriptors(t *testing.T) {
	w := openWorld(t, "127.0.7.40")
	n := w.Layout.Edges[0]
	w.selvage(t, "deploy", "--wait", w.function(t, "good", guesttest.Guest(t, greet))).expect(t, exitOK, "live")
	pid := w.onlyServer(t, n)
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	limit := syscall.Rlimit{Cur: uint64(len(open) + 20), Max: uint64(len(open) + 20)}
	if err := prlimit(pid, syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	var held []net.Conn
	for range 100 { // the kernel completes them, whether the server takes them or not
		c, err := net.DialTimeout("tcp", n.Public, 5*time.Second)
		if err != nil {
			break
		}
		held = append(held, c)
	}
	if len(held) < 40 {
		t.Fatalf("only %d connections", len(held))
	}
	time.Sleep(300 * time.Millisecond)
	for _, c := range held {
		c.Close()
	}
	w.answers(t, n, "good", "woven\n")
	if now := w.onlyServer(t, n); now != pid {
		t.Errorf("the server was replaced: it did not survive")
	}
}

// A server that gets no address space for another guest's memory answers 503 and serves on with
// what it has; with room again all is answered.
func TestLittleAddressSpace(t *testing.T) {
	w := openWorld(t, "127.0.7.70")
	n := w.Layout.Edges[0]
	w.selvage(t, "deploy", "--wait", w.function(t, "waits", guesttest.Guest(t, `(data (i32.const 64) "waited")
(func (export "handle") (drop (call $sleep (i64.const 700000000))) (drop (call $response_write (i32.const 64) (i32.const 6))))`))).expect(t, exitOK, "live")
	w.answers(t, n, "waits", "waited")
	pid := w.onlyServer(t, n)
	const gib = 1 << 30
	limit := syscall.Rlimit{Cur: addressSpace(t, pid) + 14*gib, Max: ^uint64(0)}
	if err := prlimit(pid, syscall.RLIMIT_AS, &limit); err != nil {
		t.Fatal(err)
	}
	good, full := w.crowd(t, n, "waits", 40)
	if good == 0 || full == 0 || good+full != 40 {
		t.Errorf("of 40 at once %d are answered and %d get 503", good, full)
	}
	w.answers(t, n, "waits", "waited")
	limit.Cur = limit.Max
	if err := prlimit(pid, syscall.RLIMIT_AS, &limit); err != nil {
		t.Fatal(err)
	}
	if good, full := w.crowd(t, n, "waits", 40); good != 40 {
		t.Errorf("with room again %d of 40 are answered, %d get 503", good, full)
	}
	if now := w.onlyServer(t, n); now != pid {
		t.Error("the server was replaced: it did not survive")
	}
}

// crowd asks so many times at once, and counts right answers and 503.
func (w *world) crowd(t *testing.T, n up.Node, name string, times int) (good, full int64) {
	var g, f atomic.Int64
	var all sync.WaitGroup
	for range times {
		all.Go(func() {
			switch status, _ := w.getFrom(t, n, request.HTTP2, name, "/"); status {
			case 200:
				g.Add(1)
			case 503:
				f.Add(1)
			}
		})
	}
	all.Wait()
	return g.Load(), f.Load()
}

// addressSpace is a process's, in bytes.
func addressSpace(t *testing.T, pid int) uint64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseUint(strings.Fields(string(b))[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * uint64(os.Getpagesize())
}
