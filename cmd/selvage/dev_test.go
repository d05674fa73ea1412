package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

// devServer is `selvage dev` under way.
type devServer struct {
	t        *testing.T
	dir, url string
	said     chan string
}

func startDev(t *testing.T, dir string) *devServer {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.Command(exe, "dev", "--listen", addr, dir)
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &devServer{t, dir, "https://" + addr, make(chan string, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for in := bufio.NewScanner(r); in.Scan(); {
			d.said <- in.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("it ended with %v", err)
		}
		w.Close()
		<-done
	})
	return d
}

// until waits until it has said what.
func (d *devServer) until(what string) string {
	d.t.Helper()
	limit := time.After(2 * time.Minute)
	var all []string
	for {
		select {
		case line := <-d.said:
			if strings.Contains(line, what) {
				return line
			}
			all = append(all, line)
		case <-limit:
			d.t.Fatalf("it never said %q, but:\n%s", what, strings.Join(all, "\n"))
		}
	}
}

func (d *devServer) get(v request.Version, path string) (int, string) {
	d.t.Helper()
	c, err := request.New(request.Config{Version: v, CAFile: filepath.Join(d.dir, ".selvage", "dev", "edge-ca", "ca.pem")})
	if err != nil {
		d.t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	a, err := c.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return a.Status, string(text)
}

func (d *devServer) save(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

func TestDev(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	selvage(t, nil, "dev", t.TempDir()).expect(t, exitUsage, "selvage init")
	dir := t.TempDir()
	manifest := "name = \"good\"\nroutes = [\"good.example.com/*\"]\n"
	for name, text := range map[string]string{"selvage.toml": manifest, "good.wasm": string(guesttest.Guest(t, greet))} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d := startDev(t, dir)
	d.until("compiling good")
	d.until("live: ")
	for _, v := range []request.Version{request.HTTP1, request.HTTP2, request.HTTP3} {
		if status, body := d.get(v, "/a"); status != 200 || body != "woven\n" {
			t.Errorf("h%s: %d %q", v, status, body)
		}
		d.until("/a 200")
	}
	d.save("good.wasm", string(guesttest.Guest(t, talks)))
	d.until("live: ")
	if _, body := d.get(request.HTTP2, "/"); body != "I was asked\n" {
		t.Errorf("saved, it answers %q", body)
	}
	d.until("WARN I was asked")
	d.save("good.wasm", "not wasm at all")
	d.until("the version before goes on serving")
	d.save("selvage.toml", manifest+"colour = 3\n")
	d.until("selvage.toml:3:")
	if status, body := d.get(request.HTTP2, "/"); status != 200 || body != "I was asked\n" {
		t.Errorf("with a broken build it answers %d %q", status, body)
	}
	d.save("selvage.toml", manifest+"[build]\ncommand = \"echo main.c:7: oops >&2; exit 3\"\n")
	d.until("main.c:7: oops")
	d.save("selvage.toml", manifest)
	d.save("good.wasm", string(guesttest.Guest(t, `(func $deep (export "handle") unreachable)`)))
	d.until("live: ")
	if status, _ := d.get(request.HTTP2, "/"); status != 500 {
		t.Errorf("a trap is answered %d", status)
	}
	d.until("0: deep (function ")
	d.until("FAULT")
}

// A function that binds KV has a store of its own folder.
func TestDevHasKV(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"selvage.toml": "name = \"good\"\n[[kv]]\nname = \"count\"\naccess = \"write\"\n", "good.wasm": string(guesttest.Guest(t, greet))} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d := startDev(t, dir)
	d.until("live: ")
	if _, err := os.Stat(filepath.Join(dir, ".selvage", "dev", "kv")); err != nil {
		t.Error(err)
	}
	if status, _ := d.get(request.HTTP2, "/"); status != 200 {
		t.Errorf("it answers %d", status)
	}
}

const fails = `package main

import "os"

var status = len(os.Args) + 2

//go:wasmexport handle
func handle() {
	os.Exit(status)
}

//go:noinline
func spin() {
	for status > 0 {
	}
}

func main() {}
`

// A fault of a function that was built without names and debug information is shown with the
// function and the line of its source, and that of the next save with its own.
func TestDevNamesLines(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and compiles a Go guest")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module good\n\ngo 1.26\n", "main.go": fails,
		"selvage.toml": "name = \"good\"\nlimits.cpu = \"100ms\"\n[build]\ncommand = \"GOOS=wasip1 GOARCH=wasm CGO_ENABLED=0 GOWORK=off go build -buildmode=c-shared -ldflags='-s -w' -o good.wasm .\"\noutput = \"good.wasm\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d := startDev(t, dir)
	for _, place := range []string{"main.go:9", "main.go:10"} {
		d.until("live: ")
		if status, _ := d.get(request.HTTP2, "/"); status != 500 {
			t.Errorf("an exit is answered %d", status)
		}
		if line := d.until("main.handle (function "); !strings.HasSuffix(line, place) {
			t.Errorf("want %s: %q", place, line)
		}
		d.save("main.go", strings.Replace(fails, "var status", "\nvar status", 1))
	}
	d.until("live: ")
	d.save("main.go", strings.Replace(fails, "os.Exit(status)", "spin()", 1)+"var _ = os.Args\n")
	d.until("live: ")
	if status, _ := d.get(request.HTTP2, "/"); status != 504 {
		t.Errorf("a loop is answered %d", status)
	}
	for _, frame := range [][2]string{{"main.spin (function ", "main.go:13"}, {"main.handle (function ", "main.go:9"}} {
		if line := d.until(frame[0]); !strings.HasSuffix(line, frame[1]) {
			t.Errorf("want %s: %q", frame[1], line)
		}
	}
}
