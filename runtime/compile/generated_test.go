package compile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/runtime/jail"
	wasm "github.com/selvage-edge/selvage/runtime/scan/scantest"
	"github.com/selvage-edge/selvage/runtime/tooltest"
)

// setting is a number from the environment.
func setting(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// generate has binaryen make modules of random bytes: what is at a place is nil
// if binaryen made nothing valid of its bytes.
func generate(t *testing.T, seed uint64, count int) [][]byte {
	t.Helper()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(seed, 0))
	for n := range count {
		b := make([]byte, 500+rng.IntN(8000))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(n, ".seed")), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script, err := filepath.Abs(filepath.Join("testdata", "generate.js"))
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save", "--prefix", dir, "binaryen@132.0.0"},
		{"node", script, dir, fmt.Sprint(count)},
	} {
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", command, err, out)
		}
	}
	all := make([][]byte, count)
	for n := range all {
		all[n], err = os.ReadFile(filepath.Join(dir, fmt.Sprint(n, ".wasm")))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return all
}

// Modules that a fuzzer made of random bytes go the whole way, from the scan to
// a run in this process. Each ends in an answer, a trap, at its budget or in a
// refusal; and the engine serves an honest guest as before.
// SELVAGE_GENERATED_SEED=N replays; SELVAGE_GENERATED=N is how many.
func TestGeneratedModules(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles two hundred modules")
	}
	for _, tool := range []string{"npm", "node"} {
		tooltest.Path(t, tool, "nodejs npm")
	}
	seed := setting(t, "SELVAGE_GENERATED_SEED", rand.Uint64())
	t.Logf("SELVAGE_GENERATED_SEED=%d replays this", seed)
	r, e := openJail(t, jail.Config{}), guesttest.Engine(t)
	k, _ := newCompiler(t, r, openStore(t, nil))
	hello, empty, err := image.Split(wasm.Handle())
	if err != nil {
		t.Fatal(err)
	}
	honest, err := e.Compile(hello)
	if err != nil {
		t.Fatal(err)
	}
	count, ended := int(setting(t, "SELVAGE_GENERATED", 200)), map[string]int{}
	for n, m := range generate(t, seed, count) {
		how := "not generated"
		if m != nil {
			how = outcome(t, n, r, k, e, m)
		}
		ended[how]++
		handleOnce(t, e, honest, empty)
	}
	t.Logf("%v", ended)
	if ran := ended["done"] + ended["trapped"] + ended["cut"]; ran < count/10 {
		t.Errorf("only %d of %d modules ran: %v", ran, count, ended)
	}
}

// outcome takes one module through everything and says how it ended.
func outcome(t *testing.T, n int, r jail.Runner, k *Compiler, e *engine.Engine, m []byte) string {
	t.Helper()
	var refused *jail.Refused
	p, err := Prepare(t.Context(), r, m, function.SnapshotAuto)
	switch {
	case errors.As(err, &refused):
		return "refused"
	case errors.Is(err, jail.ErrTime), errors.Is(err, jail.ErrMemory):
		return "bomb"
	case err != nil:
		t.Fatalf("module %d: %v", n, err)
	}
	artifact, _, _, err := k.Artifact(t.Context(), function.DigestOf(p.Code), p.Code)
	if err != nil {
		t.Fatalf("module %d was prepared and does not compile: %v", n, err)
	}
	img, err := image.Decode(p.Image, image.MaxSize)
	if err != nil {
		t.Fatalf("module %d: %v", n, err)
	}
	switch end := halves(t, e, artifact, img); {
	case end.cut:
		return "cut"
	case end.failed:
		return "trapped"
	}
	return "done"
}
