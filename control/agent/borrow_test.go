package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/edge/replica"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// meter counts the bytes that control sends on the streams of namespaces.
type meter struct {
	Doer
	sent *atomic.Int64
}

func (m meter) Do(r *http.Request) (*http.Response, error) {
	kv := false
	if r.URL.Path == changes.Path {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		kv, r.Body = bytes.Contains(b, []byte(`"kv/`)), io.NopCloser(bytes.NewReader(b))
	}
	resp, err := m.Doer.Do(r)
	if err == nil && kv {
		resp.Body = metered{resp.Body, m.sent}
	}
	return resp, err
}

type metered struct {
	io.ReadCloser
	n *atomic.Int64
}

func (m metered) Read(b []byte) (int, error) {
	n, err := m.ReadCloser.Read(b)
	m.n.Add(int64(n))
	return n, err
}

// changed is a way to a neighbour whose copies are changed.
type changed struct {
	Doer
	change func(*http.Response)
}

func (c changed) Do(r *http.Request) (*http.Response, error) {
	resp, err := c.Doer.Do(r)
	if err == nil && strings.HasPrefix(r.URL.Path, copyPath) && resp.StatusCode == http.StatusOK {
		c.change(resp)
	}
	return resp, err
}

// none is as of a node of a version that gives no copies.
func none(r *http.Response) {
	r.Body.Close()
	r.StatusCode, r.Body = http.StatusNotFound, io.NopCloser(strings.NewReader("404 page not found"))
}

// threeK is a value of which a thousand are more than a relay keeps of a log.
var threeK = strings.Repeat("x", 3000)

// copies is a street whose namespace is replicated and has some keys of each kind.
func copies(t *testing.T, nodes, keys int) *street {
	s := &street{control: newControl(t), unheard: map[string]bool{}}
	s.mode(catalog.ModeReplicated)
	put := func(key string, value []byte, o hostcall.PutOptions) {
		o.IfRevision = hostcall.AnyRevision
		if _, err := s.store.KV().Put(context.Background(), copied, key, value, o); err != nil {
			t.Error(err)
		}
	}
	var filling sync.WaitGroup
	for part := range 20 {
		filling.Go(func() {
			for i := part; i < keys; i += 20 {
				put(fmt.Sprintf("key-%03d", i), []byte(threeK), hostcall.PutOptions{})
			}
		})
	}
	filling.Wait()
	put("large", make([]byte, changes.MaxInline+1), hostcall.PutOptions{Metadata: []byte("m")})
	put("ends", []byte("later"), hostcall.PutOptions{TTL: time.Hour, Metadata: []byte("m")})
	put("gone", []byte("x"), hostcall.PutOptions{})
	if _, err := s.store.KV().Delete(context.Background(), copied, "gone", hostcall.AnyRevision); err != nil {
		t.Fatal(err)
	}
	for range nodes {
		s.add()
	}
	s.deploy("f", routeOf("f.example")+bindsLinks, "code")
	return s
}

// add builds another house, whose bytes from control are counted.
func (s *street) add() (*house, *atomic.Int64) {
	h := s.build(fmt.Sprint("n", len(s.houses)+1))
	sent := &atomic.Int64{}
	h.link = meter{h.link, sent}
	h.with = append(h.with, h.withReplica(0))
	return h, sent
}

// enter opens the house and waits for its copy.
func (h *house) enter() {
	h.t.Helper()
	h.open()
	h.serves("f.example", "code")
	h.whole()
}

// same checks that two copies have the same keys, values and all.
func same(t *testing.T, a, b *house) {
	t.Helper()
	of := func(h *house) (list []string) {
		h.agent.spaces.mu.Lock()
		c := h.agent.spaces.mu.byLog[logOf(copied)].copy
		h.agent.spaces.mu.Unlock()
		c.List("", "", func(key string, v *replica.Value) bool {
			list = append(list, fmt.Sprintf("%q %d %d %q %q %v", key, v.Revision, v.Expires, v.Metadata, v.Value, v.Absent))
			return true
		})
		return list
	}
	b.until("the copies are the same", func() bool { return slices.Equal(of(a), of(b)) })
}

func (h *house) told(what string) bool {
	h.node.mu.Lock()
	defer h.node.mu.Unlock()
	return slices.ContainsFunc(h.events, func(e Event) bool { return e.Kind == Replicated && strings.Contains(e.What, what) })
}

// TestCopyFromANeighbour has a PoP's second node get its copy from the first: control sends the log to
// one of them, and to the other what has changed since and what the copy is to be checked against.
func TestCopyFromANeighbour(t *testing.T) {
	const keys = 1000
	s := copies(t, 1, keys)
	first := s.houses[0]
	first.enter()
	apart, whole := s.add()
	apart.wrap = func(d Doer) Doer { return changed{d, none} }
	apart.enter()
	second, sent := s.add()
	second.enter()
	if c := second.agent.Stats().Copies; c.FromNeighbours != 1 || c.Untrue != 0 {
		t.Errorf("%+v", c)
	}
	if c := apart.agent.Stats().Copies; c.FromNeighbours != 0 {
		t.Errorf("%+v", c)
	}
	// It is read once it is checked; its log is followed from there.
	second.has("key-042", threeK)
	second.has("gone", "")
	second.has("ends", "later")
	s.fill(1, "new")
	for _, h := range []*house{first, apart, second} {
		h.until("what is written then is seen", func() bool {
			e, err := h.kv.Get(context.Background(), copied, "key-000")
			return err == nil && string(e.Value) == "new"
		})
	}
	same(t, first, second)
	same(t, first, apart)
	t.Logf("for a copy of %d keys of 3,000 B control sent %d bytes of log where no neighbour gives one, %d where one does", keys, whole.Load(), sent.Load())
	if whole.Load() < keys*3000 || sent.Load() > whole.Load()/20 {
		t.Errorf("control sent %d bytes with no neighbour's copy, %d with one", whole.Load(), sent.Load())
	}
	// It lasts, and is lent on.
	second.close()
	second.open = func() {
		second.run(append(second.with, func(c *Config[*version]) { c.Neighbours = func() []Neighbour { return nil } })...)
	}
	before := sent.Load()
	second.enter()
	same(t, first, second)
	if more := sent.Load() - before; more > whole.Load()/20 {
		t.Errorf("after a restart control sent %d bytes", more)
	}
	second.end()
}

// TestCopiesBegunAtOnce has all nodes of a PoP learn at once of a namespace: one of them follows its log for
// the others, which wait for its copy.
func TestCopiesBegunAtOnce(t *testing.T) {
	const keys = 1000
	s := copies(t, 0, keys)
	var sent []*atomic.Int64
	for range 3 {
		_, n := s.add()
		sent = append(sent, n)
	}
	for _, h := range s.houses {
		h.open()
	}
	var all, from int64
	for i, h := range s.houses {
		h.serves("f.example", "code")
		h.whole()
		all, from = all+sent[i].Load(), from+h.agent.Stats().Copies.FromNeighbours
	}
	same(t, s.houses[0], s.houses[1])
	same(t, s.houses[0], s.houses[2])
	t.Logf("control sent %d bytes for 3 copies of %d keys of 3,000 B", all, keys)
	if from != 2 {
		t.Errorf("%d of 3 copies came from a neighbour", from)
	}
}

// TestUntrueCopies has neighbours whose copies are not what control signed: none is ever read, the
// neighbour is left alone for a while, and the log is followed from its beginning.
func TestUntrueCopies(t *testing.T) {
	s := copies(t, 1, 800)
	s.houses[0].enter()
	body := func(change func([]byte) []byte) func(*http.Response) {
		return func(r *http.Response) {
			b, _ := io.ReadAll(r.Body)
			r.Body.Close()
			r.Body = io.NopCloser(bytes.NewReader(change(b)))
		}
	}
	header := func(name string, add int) func(*http.Response) {
		return func(r *http.Response) {
			at, _ := positionOf(r.Header)
			n := map[string]uint64{headerEpoch: at.Epoch, headerAsOf: at.Seq}[name]
			r.Header.Set(name, fmt.Sprint(n+uint64(add)))
		}
	}
	for _, c := range []struct {
		name   string
		change func(*http.Response)
		untrue int64
		lied   bool
	}{
		{"a byte of a value", body(func(b []byte) []byte { b[bytes.Index(b, []byte("xxx"))] = 'y'; return b }), 1, true},
		{"without what came last", body(func(b []byte) []byte { return append(b[:0:0], 0, 0, 0, 0) }), 1, true},
		{"a page twice", body(func(b []byte) []byte { n := 4 + binary.LittleEndian.Uint32(b); return append(b[:n:n], b...) }), 1, true},
		{"no page", body(func([]byte) []byte { return []byte{255, 255, 255, 255} }), 1, true},
		{"cut short", body(func(b []byte) []byte { return b[:len(b)-1] }), 0, false},
		{"no position", func(r *http.Response) { r.Header.Del(headerAsOf) }, 0, true},
		{"a position to come", header(headerAsOf, 1000), 0, false},
		{"another epoch", header(headerEpoch, -1), 0, false},
	} {
		for _, other := range s.houses[1:] { // the first alone is to be asked
			s.mu.Lock()
			s.unheard[other.name] = true
			s.mu.Unlock()
		}
		h, sent := s.add()
		h.wrap = func(d Doer) Doer { return changed{d, c.change} }
		h.enter()
		if st := h.agent.Stats().Copies; st.FromNeighbours != 0 || st.Untrue != c.untrue {
			t.Errorf("%s: %+v", c.name, st)
		}
		same(t, s.houses[0], h)
		if sent.Load() < 800*3000 {
			t.Errorf("%s: control sent %d bytes", c.name, sent.Load())
		}
		if !h.told("was not to be had from a neighbour") {
			t.Errorf("%s: it is not told", c.name)
		}
		h.node.mu.Lock()
		lied := slices.ContainsFunc(h.events, func(e Event) bool { return e.Kind == Distrusted && e.Took == distrustLied })
		h.node.mu.Unlock()
		if lied != c.lied {
			t.Errorf("%s: taken for a lie: %v", c.name, lied)
		}
	}
}

// TestWhoMayHaveACopy asks for copies as nodes do.
func TestWhoMayHaveACopy(t *testing.T) {
	s := copies(t, 1, 10)
	h := s.houses[0]
	h.enter()
	ask := func(id *identity.Node, ns string) int {
		t.Helper()
		c, err := peer.NewClient(peer.ClientConfig{Member: id.Member, Expect: identity.Expect{Name: h.name}, Addresses: []string{h.addr}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, copyPath+"/default/"+ns, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	near, far := s.join("near", "lon"), s.join("far", "nyc")
	s.call("PUT", "/v1/projects/default/kv/unbound", nil, 200, nil)
	for _, c := range []struct {
		id   *identity.Node
		ns   string
		want int
	}{{near, "links", 200}, {near, "unbound", 403}, {far, "links", 403}} {
		if got := ask(c.id, c.ns); got != c.want {
			t.Errorf("%s of %s: %d", c.ns, c.id.Member.Peer().Name, got)
		}
	}
	h.agent.lending.Add(maxLent)
	if got := ask(near, "links"); got != http.StatusTooManyRequests {
		t.Errorf("one too many: %d", got)
	}
	h.agent.lending.Add(-maxLent)
	s.mode(catalog.ModeCached)
	h.until("the copy is dropped", func() bool { c := h.agent.Stats().Copies; return c.Whole == 0 && c.Others == 0 })
	if got := ask(near, "links"); got != http.StatusNotFound {
		t.Errorf("without a copy: %d", got)
	}
}

func TestRanked(t *testing.T) {
	names := []string{"d", "b", "a", "c"}
	list := func() (all []Neighbour) {
		for _, n := range names {
			all = append(all, Neighbour{Name: n})
		}
		return all
	}
	for i := range 50 {
		key, leaders := fmt.Sprint(i), 0
		for _, self := range names {
			p := newPop(self, list, func(Event) {})
			ranked, leads := p.ranked(key)
			n, other := p.first(key)
			if len(ranked) != 3 || leads == other || other && n.Name != ranked[0].Name {
				t.Fatalf("%s: %v, leads %v; first is %q", self, ranked, leads, n.Name)
			}
			if leads {
				leaders++
			}
		}
		if leaders != 1 {
			t.Errorf("%d lead for %s", leaders, key)
		}
	}
}

// A neighbour that sends larger values than there are is found out at the first, and not when there is no room left for other copies.
func TestLargerThanItIs(t *testing.T) {
	d, _, err := replica.Open(replica.Config{Dir: t.TempDir(), Spare: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	load, err := d.Load(copied, replica.Position{Epoch: 1, Seq: 9})
	if err != nil {
		t.Fatal(err)
	}
	body := []byte("\x09\x00\x00\x00\x01a\x06\x01\x01\x00\x00xy") // and more to come
	if err := fill(load, bytes.NewReader(body), &changes.Held{Keys: 1000, Bytes: 3}, func(int64) {}); !errors.Is(err, errBody) {
		t.Errorf("as large as it is: %v", err)
	}
	if err := load.Drop(); err != nil {
		t.Fatal(err)
	}
	if load, err = d.Load(copied, replica.Position{Epoch: 1, Seq: 9}); err != nil {
		t.Fatal(err)
	}
	if err := fill(load, bytes.NewReader(body), &changes.Held{Keys: 1000, Bytes: 2}, func(int64) {}); !errors.Is(err, errCopy) {
		t.Errorf("larger than it is: %v", err)
	}
	if err := load.Drop(); err != nil {
		t.Fatal(err)
	}
}

// A neighbour whose pages are small and far apart is given up soon, and one that sends what a neighbour can is not.
func TestPatience(t *testing.T) {
	for _, c := range []struct {
		took time.Duration
		sent int64
		want time.Duration
	}{
		{0, 0, copyQuiet},
		{4 * time.Second, 10, copyQuiet - 4*time.Second},
		{copyQuiet + time.Second, 10, 0},
		{4 * time.Second, 64 << 20, copyQuiet},
		{5 * time.Minute, 300 * slowest, copyQuiet},
		{5 * time.Minute, 295 * slowest, copyQuiet - 5*time.Second},
		{lentFor, 1 << 50, copyQuiet},
	} {
		if got := patience(c.took, c.sent); (got - c.want).Abs() > time.Millisecond {
			t.Errorf("%d bytes in %v: %v, want %v", c.sent, c.took, got, c.want)
		}
	}
}

func FuzzFill(f *testing.F) {
	frame := func(b []byte) []byte { return append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...) }
	f.Add(append(frame([]byte("\x01a\x04\x01\x01\x00\x00")), 0, 0, 0, 0))
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{255, 255, 0, 0})
	d, _, err := replica.Open(replica.Config{Dir: f.TempDir(), Spare: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { d.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		load, err := d.Load(copied, replica.Position{Epoch: 1, Seq: 9})
		if err != nil {
			t.Fatal(err)
		}
		err = fill(load, bytes.NewReader(b), &changes.Held{Keys: 2, Bytes: 1 << 10}, func(int64) {})
		if !errors.Is(err, errCopy) && !errors.Is(err, errBody) && !errors.Is(err, replica.ErrPage) { // the digest is none
			t.Errorf("%x: %v", b, err)
		}
		if err := load.Drop(); err != nil || d.Bytes() != 0 {
			t.Errorf("%v, %d bytes are left", err, d.Bytes())
		}
	})
}
