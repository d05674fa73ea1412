package guest_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// exchange is a request and what was answered to it.
type exchange struct {
	target    string
	body      io.Reader // nil: none
	status    int
	headers   []native.Pair
	out       bytes.Buffer
	informed  []int
	flushes   int
	trailers  []byte
	finished  bool
	startBy   time.Time
	interrupt func()
	hold      func() // nil, or called before the body is written
}

var _ guest.Exchange = (*exchange)(nil)

func (x *exchange) RequestID() string { return "r1" }

func (x *exchange) StartBy() time.Time { return x.startBy }

func (x *exchange) AppendHead(b []byte) []byte {
	h := native.Head{Method: "GET", Scheme: "https", Authority: "a.test", Target: x.target, Protocol: "HTTP/2.0", Body: x.body != nil}
	return h.Append(b)
}

func (x *exchange) HasBody() bool { return x.body != nil }

func (x *exchange) ReadBody(p []byte) (int, error) {
	if x.body == nil {
		return 0, io.EOF
	}
	return x.body.Read(p)
}

func (x *exchange) WriteHead(status int, headers []byte) error {
	if status < 200 {
		x.informed = append(x.informed, status)
		return nil
	}
	x.status = status
	if len(headers) == 0 {
		return nil
	}
	var err error
	if x.headers, err = native.DecodePairs(headers); err != nil {
		return fault.New(fault.BadResponse, "", err)
	}
	return nil
}

func (x *exchange) WriteBody(p []byte) error {
	if x.hold != nil && len(p) > 0 {
		x.hold()
	}
	x.out.Write(p)
	return nil
}

func (x *exchange) Flush() error { x.flushes++; return nil }

func (x *exchange) Finish(p []byte) error {
	x.out.Write(p)
	x.finished = true
	return nil
}

func (x *exchange) RequestTrailers() ([]byte, bool) { return nil, true }

func (x *exchange) SetTrailers(list []byte) error {
	x.trailers = append([]byte(nil), list...)
	return nil
}

func (x *exchange) Interrupt() {
	if x.interrupt != nil {
		x.interrupt()
	}
}

// lines is a log that is kept.
type lines struct {
	mu struct {
		sync.Mutex
		all []hostcall.Line
	}
}

func (l *lines) Log(line hostcall.Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.all = append(l.mu.all, line)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, line := range l.mu.all {
		b.WriteString(line.Text + "\n")
	}
	return b.String()
}

// store is a KV in memory: the port's contract without a network.
type store struct {
	mu struct {
		sync.Mutex
		revision uint64
		entries  map[string]hostcall.Entry
	}
	wait func(ctx context.Context) error // nil: no waiting
}

func key(ns hostcall.Namespace, key string) string { return ns.Project + "/" + ns.Name + "/" + key }

func (s *store) begin(ctx context.Context) error {
	if s.wait != nil {
		return s.wait(ctx)
	}
	return nil
}

func (s *store) Get(ctx context.Context, ns hostcall.Namespace, k string) (hostcall.Entry, error) {
	if err := s.begin(ctx); err != nil {
		return hostcall.Entry{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.mu.entries[key(ns, k)]
	if !ok {
		return e, hostcall.ErrNotFound
	}
	return e, nil
}

func (s *store) Put(ctx context.Context, ns hostcall.Namespace, k string, value []byte, o hostcall.PutOptions) (uint64, error) {
	if err := s.begin(ctx); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.IfRevision >= 0 && s.mu.entries[key(ns, k)].Revision != uint64(o.IfRevision) {
		return 0, hostcall.ErrConflict
	}
	e := hostcall.Entry{Value: bytes.Clone(value), Revision: s.next()}
	if o.TTL > 0 {
		e.Expires = time.UnixMilli(0).Add(o.TTL)
	}
	s.mu.entries[key(ns, k)] = e
	return e.Revision, nil
}

func (s *store) Read(ctx context.Context, ns hostcall.Namespace, keys []string, _ hostcall.ReadOptions) ([]hostcall.Result, error) {
	results := make([]hostcall.Result, len(keys))
	for i, k := range keys {
		results[i].Entry, results[i].Err = s.Get(ctx, ns, k)
	}
	return results, nil
}

func (s *store) Increment(ctx context.Context, ns hostcall.Namespace, k string, delta int64) (int64, uint64, error) {
	if err := s.begin(ctx); err != nil {
		return 0, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var n int64
	e, ok := s.mu.entries[key(ns, k)]
	if ok {
		var err error
		if n, err = strconv.ParseInt(string(e.Value), 10, 64); err != nil {
			return 0, 0, hostcall.ErrNotNumber
		}
	}
	if n += delta; (delta > 0) != (n > n-delta) && delta != 0 {
		return 0, 0, hostcall.ErrOverflow
	}
	e.Value, e.Revision = strconv.AppendInt(nil, n, 10), s.next()
	s.mu.entries[key(ns, k)] = e
	return n, e.Revision, nil
}

func (s *store) next() uint64 {
	if s.mu.entries == nil {
		s.mu.entries = map[string]hostcall.Entry{}
	}
	s.mu.revision++
	return s.mu.revision
}

func (s *store) Delete(ctx context.Context, ns hostcall.Namespace, k string, _ int64) (uint64, error) {
	if err := s.begin(ctx); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.entries, key(ns, k))
	return s.next(), nil
}

func (s *store) List(ctx context.Context, ns hostcall.Namespace, prefix, cursor string, limit int) ([]hostcall.KeyInfo, string, error) {
	if err := s.begin(ctx); err != nil {
		return nil, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var page []hostcall.KeyInfo
	for k, e := range s.mu.entries {
		name, ok := strings.CutPrefix(k, key(ns, ""))
		if ok && strings.HasPrefix(name, prefix) && name > cursor {
			page = append(page, hostcall.KeyInfo{Key: name, Revision: e.Revision})
		}
	}
	sort.Slice(page, func(i, j int) bool { return page[i].Key < page[j].Key })
	if len(page) > limit {
		return page[:limit], page[limit-1].Key, nil
	}
	return page, "", nil
}

// fetcher makes a function a port.
type fetcher func(ctx context.Context, r *http.Request) (*http.Response, error)

func (f fetcher) Fetch(ctx context.Context, _ *function.Version, r *http.Request) (*http.Response, error) {
	return f(ctx, r)
}

var runner = guest.NewRunner(runtime.GOMAXPROCS(0), runtime.GOMAXPROCS(0))

// version binds namespace "data" to KV "kv", writable, and "more" as "ro", not.
func version() *function.Version {
	return &function.Version{
		ID: function.ID{Project: "p", Name: "f"}, Digest: function.DigestOf([]byte("f")),
		Bindings: function.Bindings{KV: []function.KVBinding{
			{Name: "kv", Namespace: "data", Write: true}, {Name: "ro", Namespace: "more"},
		}},
	}
}

// run runs a guest of the test's own text once.
func run(t *testing.T, body string, change ...func(*function.Version, *guest.Ports, *exchange)) (*exchange, guest.Usage, *fault.Error) {
	t.Helper()
	prog := guesttest.Program(t, guesttest.Guest(t, body))
	v, ports, x := version(), guest.Ports{KV: &store{}}, &exchange{target: "/"}
	for _, c := range change {
		c(v, &ports, x)
	}
	u, err := runner.Run(t.Context(), prog, v, ports, x)
	return x, u, fault.Of(err)
}

func limits(l function.Limits) func(*function.Version, *guest.Ports, *exchange) {
	return func(v *function.Version, _ *guest.Ports, _ *exchange) { v.Limits = l }
}

var (
	putAny    = hostcall.PutOptions{IfRevision: hostcall.AnyRevision}
	deniedErr = hostcall.ErrDenied
)

// hostNamespace is the namespace behind the binding "kv".
func hostNamespace(v *function.Version) hostcall.Namespace {
	return hostcall.Namespace{Project: v.ID.Project, Name: v.Bindings.KV[0].Namespace}
}
