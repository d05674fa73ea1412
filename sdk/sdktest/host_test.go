package sdktest

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/edge/fetch"
	"github.com/selvage-edge/selvage/edge/invoke"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// host serves one guest over HTTP, with the rooms that do so on a node: engine,
// pool, invoke, fetch. Its KV is in memory.
type host struct {
	target *invoke.Target
	kv     *memoryKV
	log    *lines
	mu     struct {
		sync.Mutex
		usage telemetry.Usage // the latest
	}
}

// bindings are what the guest may use.
var bindings = function.Bindings{
	KV:        []function.KVBinding{{Name: "store", Namespace: "store", Write: true}, {Name: "links", Namespace: "links", Write: true}},
	Variables: map[string]string{"GREETING": "hello", "EMPTY": ""},
}

// newHost loads the module, from a snapshot as a deployed one is, or not.
func newHost(t testing.TB, wasm string, snapshot bool, backends ...string) *host {
	t.Helper()
	b := bindings
	for _, url := range backends {
		b.Backends = append(b.Backends, function.Backend{Name: url, URL: url, Private: true})
	}
	return newHostOf(t, wasm, snapshot, b)
}

func newHostOf(t testing.TB, wasm string, snapshot bool, b function.Bindings) *host {
	t.Helper()
	module, err := os.ReadFile(wasm)
	if err != nil {
		t.Fatal(err)
	}
	code, img := guesttest.Split(t, module)
	if snapshot {
		img = started(t, module)
	}
	v := function.Version{ID: function.ID{Project: "default", Name: "guest"}, Digest: function.DigestOf(module), Started: snapshot, Bindings: b}
	v.Limits.CPU, v.Limits.SubrequestsNow = 5*time.Second, 16
	f := load(t, v, code, img.Encode())
	out, err := fetch.New(fetch.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(out.Close)
	h := &host{kv: newMemoryKV(), log: new(lines)}
	h.target = invoke.New(f, guest.Ports{KV: h.kv, Fetch: out, Log: h.log})
	return h
}

func load(t testing.TB, v function.Version, code, img []byte) *pool.Function {
	t.Helper()
	v.Code, v.Image = function.DigestOf(code), function.DigestOf(img)
	f, _, err := guests(t).Prepare(t.Context(), v, pool.Bytes(code, img))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Release)
	return f
}

// guests is the one pool of the test's process; nobody closes it.
func guests(t testing.TB) *pool.Pool {
	t.Helper()
	p, err := opened(guesttest.Engine(t))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var thePool struct {
	sync.Once
	*pool.Pool
	err error
}

func opened(e *engine.Engine) (*pool.Pool, error) {
	thePool.Do(func() { thePool.Pool, thePool.err = pool.Open(pool.Config{Engine: e, Compiler: inProcess{e}}) })
	return thePool.Pool, thePool.err
}

// inProcess compiles here, where a node has a helper do it: the test built the
// guest itself.
type inProcess struct{ engine *engine.Engine }

func (c inProcess) Artifact(_ context.Context, _ function.Digest, code []byte) ([]byte, bool, time.Duration, error) {
	begin := time.Now()
	artifact, err := compiled(c.engine, code)
	return artifact, false, time.Since(begin), err
}

// artifacts keeps what was compiled, by the code's digest.
var artifacts sync.Map

func compiled(e *engine.Engine, code []byte) ([]byte, error) {
	once, _ := artifacts.LoadOrStore(function.DigestOf(code), sync.OnceValues(func() ([]byte, error) { return e.Compile(code) }))
	return once.(func() ([]byte, error))()
}

func (h *host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	client, _ := netip.ParseAddrPort(r.RemoteAddr)
	begun := &began{ResponseWriter: w}
	usage, err := h.target.Invoke(r.Context(), begun, r, telemetry.Meta{
		RequestID: "req-1", Scheme: cmp.Or(r.Header.Get("X-Scheme"), "http"), Authority: r.Host, Target: r.RequestURI, Protocol: r.Proto,
		Client: client, Place: telemetry.Place{PoP: "fra", Node: "fra-1", Region: "eu"},
	})
	h.mu.Lock()
	h.mu.usage = usage
	h.mu.Unlock()
	switch {
	case err == nil:
		return
	case begun.yes:
		panic(http.ErrAbortHandler)
	}
	http.Error(w, err.Error(), fault.Of(err).Kind.Status())
}

// began notes whether an answer was begun.
type began struct {
	http.ResponseWriter
	yes bool
}

func (b *began) WriteHeader(status int) {
	b.yes = b.yes || status >= 200
	b.ResponseWriter.WriteHeader(status)
}

func (b *began) Unwrap() http.ResponseWriter { return b.ResponseWriter }
