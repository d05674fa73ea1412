package sdktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// build compiles the module in dir as a guest and returns the file. It is built
// once per test run.
func build(t testing.TB, dir string) string {
	t.Helper()
	b, _ := built.LoadOrStore(dir, sync.OnceValues(func() (string, error) { return compile(dir) }))
	file, err := b.(func() (string, error))()
	if err != nil {
		t.Fatalf("build %s: %v", dir, err)
	}
	return file
}

var (
	built   sync.Map // by folder
	scratch string   // removed at the end of the run
)

func compile(dir string) (string, error) {
	out := filepath.Join(scratch, filepath.Base(dir)+".wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOWORK=off", "GOFLAGS=")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", &buildError{err, msg}
	}
	return out, nil
}

type buildError struct {
	err error
	msg []byte
}

func (e *buildError) Error() string { return e.err.Error() + "\n" + string(e.msg) }

func TestMain(m *testing.M) {
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sdktest")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	scratch = dir
	return m.Run()
}
