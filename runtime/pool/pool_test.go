package pool_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// compiler compiles here and now, and counts.
type compiler struct {
	engine *engine.Engine
	calls  atomic.Int32
	err    error
}

func (c *compiler) Artifact(_ context.Context, _ function.Digest, code []byte) ([]byte, bool, time.Duration, error) {
	c.calls.Add(1)
	if c.err != nil {
		return nil, false, 0, c.err
	}
	artifact, err := c.engine.Compile(code)
	return artifact, false, time.Millisecond, err
}

func open(t *testing.T, linger time.Duration) (*pool.Pool, *compiler) {
	t.Helper()
	c := &compiler{engine: guesttest.Engine(t)}
	p, err := pool.Open(pool.Config{Engine: c.engine, Compiler: c, Linger: linger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if s := gauges(p); s != (pool.Stats{}) {
			t.Errorf("left after Close: %+v", s)
		}
	})
	return p, c
}

// gauges are a pool's, but for what depends on compiler and engine.
func gauges(p *pool.Pool) pool.Stats {
	s := p.Stats()
	if (s.Codes > 0) != (s.Bytes > 0) {
		s.Codes = -1 // found by who compares
	}
	s.Loaded, s.Bytes = 0, 0
	return s
}

// deployed is a module as control stores it.
type deployed struct {
	version     function.Version
	code, image []byte
}

func deploy(t *testing.T, module []byte) deployed {
	t.Helper()
	code, img := guesttest.Split(t, module)
	d := deployed{code: code, image: img.Encode()}
	d.version = function.Version{
		ID: function.ID{Project: "p", Name: "f"}, Digest: function.DigestOf(module),
		Code: function.DigestOf(code), Image: function.DigestOf(d.image),
	}
	return d
}

// says is a guest that answers with text, which is data: all of these share their code.
func says(t *testing.T, text string) deployed {
	return deploy(t, guesttest.Guest(t, fmt.Sprintf(`(data (i32.const 8) %q)
		(func (export "handle") (drop (call $response_write (i32.const 8) (i32.const 3))))`, text)))
}

func prepare(t *testing.T, p *pool.Pool, d deployed) (*pool.Function, pool.Prepared) {
	t.Helper()
	f, prepared, err := p.Prepare(t.Context(), d.version, pool.Bytes(d.code, d.image))
	if err != nil {
		t.Fatal(err)
	}
	return f, prepared
}

// exchange keeps the answer's body.
type exchange struct {
	guest.Exchange
	out []byte
}

func (*exchange) RequestID() string           { return "" }
func (*exchange) StartBy() time.Time          { return time.Time{} }
func (*exchange) AppendHead(b []byte) []byte  { return (&native.Head{}).Append(b) }
func (*exchange) HasBody() bool               { return false }
func (*exchange) WriteHead(int, []byte) error { return nil }
func (*exchange) Interrupt()                  {}

func (x *exchange) Finish(p []byte) error {
	x.out = append(x.out, p...)
	return nil
}

func invoke(t *testing.T, f *pool.Function) string {
	t.Helper()
	x := &exchange{}
	if _, err := f.Invoke(t.Context(), guest.Ports{}, x); err != nil {
		t.Error(err)
	}
	return string(x.out)
}

func TestFunctionsShareCodeAndImage(t *testing.T) {
	p, c := open(t, time.Millisecond)
	one, first := prepare(t, p, says(t, "one"))
	two, second := prepare(t, p, says(t, "two"))
	again, _ := prepare(t, p, says(t, "one"))
	if got := gauges(p); got != (pool.Stats{Functions: 3, Codes: 1, Images: 2}) {
		t.Errorf("got %+v", got)
	}
	if c.calls.Load() != 1 || first.FromCache || first.CompileTime == 0 || !second.FromCache || second.CompileTime != 0 {
		t.Errorf("%d compilations; %+v, then %+v", c.calls.Load(), first, second)
	}
	if got := invoke(t, one) + invoke(t, two) + invoke(t, again); got != "onetwoone" {
		t.Errorf("got %q", got)
	}
	one.Release()
	until(t, func() bool { return gauges(p) == pool.Stats{Functions: 2, Codes: 1, Images: 2} })
	two.Release()
	until(t, func() bool { return gauges(p) == pool.Stats{Functions: 1, Codes: 1, Images: 1} })
	if got := invoke(t, again); got != "one" {
		t.Errorf("got %q", got)
	}
}

// until waits for a condition that another goroutine brings about.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came to be")
		}
	}
}

// gate lets a test hold an invocation inside a host call.
type gate struct {
	exchange
	entered, leave chan struct{}
}

func (g *gate) WriteHead(int, []byte) error {
	close(g.entered)
	<-g.leave
	return nil
}

func TestReleasedVersionServesItsLastInvocation(t *testing.T) {
	p, _ := open(t, time.Millisecond)
	f, _ := prepare(t, p, says(t, "old"))
	g := &gate{entered: make(chan struct{}), leave: make(chan struct{})}
	done := make(chan error)
	go func() {
		_, err := f.Invoke(t.Context(), guest.Ports{}, g)
		done <- err
	}()
	<-g.entered
	f.Release()
	f.Release() // once too often does no harm
	time.Sleep(5 * time.Millisecond)
	if got := gauges(p); got.Codes != 1 || got.Images != 1 {
		t.Errorf("given back under an invocation: %+v", got)
	}
	close(g.leave)
	if err := <-done; err != nil || string(g.out) != "old" {
		t.Errorf("got %q, %v", g.out, err)
	}
	until(t, func() bool { return gauges(p) == pool.Stats{} })
	if _, err := f.Invoke(t.Context(), guest.Ports{}, &exchange{}); !errors.Is(err, pool.ErrReleased) {
		t.Errorf("after the end: %v", err)
	}
}

func TestReleasedVersionLingers(t *testing.T) {
	p, _ := open(t, time.Hour)
	f, _ := prepare(t, p, says(t, "old"))
	f.Release()
	time.Sleep(20 * time.Millisecond) // nothing is to happen, so there is nothing to wait for
	if got := invoke(t, f); got != "old" {
		t.Errorf("a request that had found it before: %q", got)
	}
}

func TestPrepareRefuses(t *testing.T) {
	p, c := open(t, time.Millisecond)
	good := says(t, "one")
	noHandle := deploy(t, guesttest.Guest(t, ``))
	badImage := good
	badImage.image, badImage.version.Image = []byte("no image"), function.DigestOf([]byte("no image"))
	tooLarge := good
	tooLarge.version.Limits.MemoryBytes = 64 << 10
	for want, d := range map[string]deployed{"handle": noHandle, "image": badImage, "memory": tooLarge} {
		f, _, err := p.Prepare(t.Context(), d.version, pool.Bytes(d.code, d.image))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error about %s, got %v, %v", want, f, err)
		}
	}
	c.err = errors.New("the helper crashed")
	other := deploy(t, guesttest.Guest(t, `(func (export "handle"))`))
	if _, _, err := p.Prepare(t.Context(), other.version, pool.Bytes(other.code, other.image)); !errors.Is(err, c.err) {
		t.Errorf("got %v", err)
	}
	if got := gauges(p); got != (pool.Stats{}) {
		t.Errorf("left over: %+v", got)
	}
}

func TestVariablesReachTheGuest(t *testing.T) {
	p, _ := open(t, time.Millisecond)
	d := deploy(t, guesttest.Guest(t, `(func (export "handle")
		(drop (call $response_write (i32.const 0) (call $environment (i32.const 0) (i32.const 1000)))))`))
	d.version.Bindings.Variables = map[string]string{"B": "2", "A": "1"}
	f, _ := prepare(t, p, d)
	got, err := native.DecodePairs([]byte(invoke(t, f)))
	if err != nil || fmt.Sprint(got) != "[{A 1} {B 2}]" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestStartedVersionsRunHandleOnly(t *testing.T) {
	p, _ := open(t, time.Millisecond)
	d := deploy(t, guesttest.Guest(t, `(data (i32.const 0) "abc")
		(func (export "_initialize") (i32.store8 (i32.const 0) (i32.const 0x49)))
		(func (export "selvage_start") (i32.store8 (i32.const 1) (i32.const 0x53)))
		(func (export "handle") (drop (call $response_write (i32.const 0) (i32.const 3))))`))
	fresh, _ := prepare(t, p, d)
	d.version.Started = true
	started, _ := prepare(t, p, d)
	if got := invoke(t, fresh) + invoke(t, started); got != "IScabc" {
		t.Errorf("got %q", got)
	}
}

func TestVersionsComeAndGoUnderLoad(t *testing.T) {
	p, _ := open(t, 50*time.Millisecond)
	versions := []deployed{says(t, "one"), says(t, "two")}
	var current atomic.Pointer[pool.Function]
	f, _ := prepare(t, p, versions[0])
	current.Store(f)
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				x := &exchange{}
				if _, err := current.Load().Invoke(t.Context(), guest.Ports{}, x); err != nil || len(x.out) != 3 {
					t.Errorf("got %q, %v", x.out, err)
					return
				}
			}
		})
	}
	for i := range 20 {
		next, _ := prepare(t, p, versions[i%2])
		current.Swap(next).Release()
		time.Sleep(2 * time.Millisecond)
	}
	stop()
	all.Wait()
}
