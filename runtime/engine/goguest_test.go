package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/image"
)

// goGuest builds the standard Go guest, once.
var goGuest = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "selvage-goguest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", out, "./testdata/goguest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, &exec.Error{Name: string(text), Err: err}
	}
	return os.ReadFile(out)
})

// goProgram is the Go guest, snapshotted after start-up, and its image.
func goProgram(t testing.TB) (*Program, *Image) {
	t.Helper()
	wasm, err := goGuest()
	if err != nil {
		t.Fatal(err)
	}
	code, img, err := image.Split(wasm)
	if err != nil {
		t.Fatal(err)
	}
	if err := image.CheckSnapshot(code); err != nil {
		t.Fatal(err)
	}
	c := ProgramConfig{Entries: []string{"_initialize"}, Args: []string{"guest"}, Environ: []string{"NAME=before"}}
	p, _ := buildSplit(t, code, img, c)
	in := start(t, p, StartConfig{NoHostCalls: true})
	defer in.Close()
	if e := run(in); e.Kind != Done {
		t.Fatalf("start-up: %v\n%s", e.Trap, e.Trap.Backtrace)
	}
	taken, err := in.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	taken, err = image.Decode(taken.Encode(), memoryLimit)
	if err != nil {
		t.Fatal(err)
	}
	c.Entries = []string{"handle"}
	return buildSplit(t, code, taken, c)
}

// serve runs one request, waiting for real where the guest does.
func serve(t testing.TB, p *Program, head string) (body string, e Event, log string) {
	t.Helper()
	in := start(t, p, StartConfig{Head: []byte(head)})
	defer in.Close()
	for {
		switch e = run(in); {
		case e.Kind == Call && e.Op == opPoll:
			time.Sleep(time.Duration(e.Args[0]))
			in.Resume(0)
			continue
		case e.Kind == Call && e.Op == opWait:
			in.Resume(int64(e.Args[0]) * 6)
			continue
		}
		records, _ := in.TakeLog()
		for _, r := range records {
			log += string(r.Text)
		}
		return string(in.Response().Body), e, log
	}
}

func TestGoGuest(t *testing.T) {
	p, img := goProgram(t)
	for _, c := range []struct{ head, body string }{
		{"plain text", "text 1000"}, {"sleep", "true 1000"}, {"wait", "42 1000"},
	} {
		body, e, log := serve(t, p, c.head)
		if e.Kind != Done || body != c.body {
			t.Errorf("%s: event %d, trap %v, body %q, log %q", c.head, e.Kind, e.Trap, body, log)
		}
		if log != "args [guest] before\n" {
			t.Errorf("%s: log %q", c.head, log)
		}
	}
	if n, err := img.Audit(); err != nil || n == 0 {
		t.Errorf("audit of %d slots: %v", n, err)
	}
}

func TestGoGuestFailures(t *testing.T) {
	p, img := goProgram(t)
	for _, c := range []struct {
		head string
		code TrapCode
		exit int
		log  string
		grow bool
	}{
		{"panic boom", TrapUnreachable, 0, "panic: boom", false},
		{"exit", TrapExit, 3, "", false},
		{"alloc", TrapUnreachable, 0, "out of memory", true},
		{"deep", TrapStack, 0, "", false},
	} {
		_, e, log := serve(t, p, c.head)
		if e.Kind != Failed || e.Trap.Code != c.code || e.Trap.ExitStatus != c.exit {
			t.Errorf("%s: event %d, trap %#v, log %.200q", c.head, e.Kind, e.Trap, log)
			continue
		}
		if !strings.Contains(log, c.log) || e.Trap.GrowRefused != c.grow {
			t.Errorf("%s: grow refused %v, log %.200q", c.head, e.Trap.GrowRefused, log)
		}
	}
	if n, err := img.Audit(); err != nil || n == 0 {
		t.Errorf("audit of %d slots: %v", n, err)
	}
}

func BenchmarkStartGo(b *testing.B) {
	p, _ := goProgram(b)
	for b.Loop() {
		in := start(b, p, StartConfig{Head: []byte("plain text")})
		if e := run(in); e.Kind != Done {
			b.Fatal(e.Trap)
		}
		in.Close()
	}
}
