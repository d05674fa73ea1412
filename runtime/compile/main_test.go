package compile

import (
	"bytes"
	"context"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/artifact"
	"github.com/selvage-edge/selvage/runtime/jail"
	wasm "github.com/selvage-edge/selvage/runtime/scan/scantest"
)

// The test binary is its own helper, as the product is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "helper" {
		os.Exit(jail.Main(os.Args[2:], workInLittleMemory))
	}
	os.Exit(m.Run())
}

// narrow marks input that a helper works on with little memory, so that a test
// need not fill gigabytes to see the limit.
var narrow = wasm.Custom("test: little memory", nil)

func workInLittleMemory(v jail.Verb, in []byte) ([]byte, error) {
	if bytes.HasSuffix(in, narrow) {
		const most = 256 << 20
		if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return nil, err
		}
	}
	return Work(v, in)
}

func openJail(t testing.TB, c jail.Config) *counter {
	t.Helper()
	l, err := jail.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &counter{Runner: l}
}

// counter counts the helpers that were run.
type counter struct {
	jail.Runner
	runs atomic.Int32
}

func (c *counter) Run(ctx context.Context, v jail.Verb, in []byte) (jail.Result, error) {
	c.runs.Add(1)
	return c.Runner.Run(ctx, v, in)
}

func openStore(t testing.TB, change func(*artifact.Config)) *artifact.Store {
	t.Helper()
	c := artifact.Config{Dir: t.TempDir(), Key: artifact.Key{1}}
	if change != nil {
		change(&c)
	}
	s, err := artifact.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
