package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/selvage-edge/selvage/edge/replica"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// TestNeverOlder drives a store through interleavings of reads, writes and
// changes, with the origin answering whenever it likes and another node, which
// follows at its own pace, as the owner of every key; it checks that nobody
// is served a key older than what this node had been told or had served of it.
func TestNeverOlder(t *testing.T) { neverOlder(t, nil, outside{}) }

// TestNeverOlderWithACopy is TestNeverOlder on a node that has a copy of the namespace, which is
// attached when it is up to the stream, or before it.
func TestNeverOlderWithACopy(t *testing.T) {
	neverOlder(t, openCopies(t, replica.Config{Dir: t.TempDir(), Spare: 1}), newOutside(t))
}

func neverOlder(t *testing.T, db *replica.DB, disk outside) {
	rapid.Check(t, func(rt *rapid.T) {
		fences := rapid.IntRange(1, 4).Draw(rt, "fences")
		var fault error
		var broke any // how rapid ends a run: carried out of the bubble, where it looks for it
		synctest.Test(t, func(*testing.T) {
			m := newModel(rt, fences)
			m.withCopy(db, disk)
			defer func() { broke, fault = recover(), m.fault; m.close() }()
			rt.Repeat(m.steps())
		})
		if fault != nil {
			rt.Fatal(fault)
		}
		if broke != nil {
			panic(broke)
		}
	})
}

func (m *model) steps() map[string]func(*rapid.T) {
	steps := map[string]func(*rapid.T){
		"get":          m.get,
		"strong":       m.strong,
		"increment":    m.increment,
		"put":          m.put,
		"delete":       m.del,
		"write-beyond": m.writeBeyond,
		"deliver":      m.deliver,
		"read":         m.read,
		"answer":       m.answer,
		"fail":         m.fail,
		"reset":        m.reset,
		"wait":         m.wait,
		"":             func(*rapid.T) { synctest.Wait(); m.fatal() },
	}
	if m.copy != nil {
		steps["attach"], steps["detach"] = m.attach, m.detach
		steps["copy"] = func(*rapid.T) { m.copyUp() }
	}
	return steps
}

var modelSpace = hostcall.Namespace{Project: "p", Name: "n"}

// stream is how far a store was told.
type stream struct {
	store   *Store
	told    int // of log
	applied uint64
}

// model is a linearizable origin whose reads and answers are steps of the test.
type model struct {
	t        *rapid.T
	store    *Store
	streams  [2]*stream // the store's and the owner's
	mu       sync.Mutex // goroutines that one step wakes run together; steps themselves run alone
	seq      uint64
	history  map[string][]version // of each key, in order
	log      []Change
	calls    []*call
	known    map[string]uint64 // the newest revision this node has shown or been told
	copy     *replica.Copy     // nil: there is none
	copied   int               // of log, that the copy has
	attached bool
	disk     outside
	fault    error
}

type version struct {
	rev   uint64
	there bool
}

// call is one question on its way to the origin and back.
type call struct {
	do   func() // what happens at the origin
	did  bool
	back chan error
}

func newModel(t *rapid.T, fences int) *model {
	m := &model{t: t, history: map[string][]version{}, known: map[string]uint64{}}
	for i := range m.streams {
		c := Config{Origin: m, Bytes: 1 << 20, Negative: time.Minute, Timeout: time.Hour, Fences: fences}
		if i == 0 {
			c.Owner = func(hostcall.Namespace, string) Owner { return m }
		}
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		m.streams[i] = &stream{store: s}
	}
	m.store = m.streams[0].store
	return m
}

// Ask implements Owner: the answer is on its way for as long as the test likes.
func (m *model) Ask(ctx context.Context, ns hostcall.Namespace, key string, q Question) (hostcall.Entry, error) {
	e, err := m.streams[1].store.Own(ctx, ns, key, q)
	if lost := m.ask(ctx, func() {}); lost != nil {
		return hostcall.Entry{}, lost
	}
	return e, err
}

func (m *model) close() {
	// Again and again: an owner that got no answer makes the store ask the origin.
	for synctest.Wait(); len(m.calls) > 0; synctest.Wait() {
		calls := m.calls
		m.calls = nil
		for _, c := range calls {
			c.back <- errors.New("the test is over")
		}
	}
	for _, s := range m.streams {
		s.store.Close()
	}
	synctest.Wait()
}

func (m *model) fatal() {
	if m.fault != nil {
		m.t.Fatal(m.fault)
	}
}

func (m *model) key(t *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}).Draw(t, "key")
}

// ask parks a question until the test lets it happen and come back.
func (m *model) ask(ctx context.Context, do func()) error {
	c := &call{do: do, back: make(chan error, 1)}
	m.mu.Lock()
	m.calls = append(m.calls, c)
	m.mu.Unlock()
	return <-c.back
}

func (m *model) write(key string, there bool) uint64 {
	m.seq++
	m.history[key] = append(m.history[key], version{m.seq, there})
	c := Change{Key: key, Revision: m.seq, Gone: !there}
	if there && m.seq%3 != 0 {
		c.Value = fmt.Append(nil, m.seq) // every third value is too large to travel in its change
	}
	m.log = append(m.log, c)
	return m.seq
}

func (m *model) last(key string) version {
	if h := m.history[key]; len(h) > 0 {
		return h[len(h)-1]
	}
	return version{}
}

func (m *model) Get(ctx context.Context, _ hostcall.Namespace, key string) (hostcall.Entry, error) {
	got, err := m.Read(ctx, modelSpace, []string{key}, hostcall.ReadOptions{})
	if err != nil {
		return hostcall.Entry{}, err
	}
	return got[0].Entry, got[0].Err
}

func (m *model) Read(ctx context.Context, _ hostcall.Namespace, keys []string, _ hostcall.ReadOptions) ([]hostcall.Result, error) {
	out := make([]hostcall.Result, len(keys))
	err := m.ask(ctx, func() {
		for i, key := range keys {
			v := m.last(key)
			if out[i].AsOf = m.seq; v.there {
				out[i].Value, out[i].Revision = fmt.Append(nil, v.rev), v.rev
			} else {
				out[i].Err = hostcall.ErrNotFound
			}
		}
	})
	return out, err
}

func (m *model) Increment(ctx context.Context, _ hostcall.Namespace, key string, _ int64) (n int64, rev uint64, err error) {
	err = m.ask(ctx, func() { rev = m.write(key, true) })
	return 0, rev, err
}

func (m *model) Put(ctx context.Context, _ hostcall.Namespace, key string, _ []byte, _ hostcall.PutOptions) (rev uint64, err error) {
	err = m.ask(ctx, func() { rev = m.write(key, true) })
	return rev, err
}

func (m *model) Delete(ctx context.Context, _ hostcall.Namespace, key string, _ int64) (rev uint64, err error) {
	err = m.ask(ctx, func() { rev = m.write(key, false) })
	return rev, err
}

func (m *model) List(context.Context, hostcall.Namespace, string, string, int) ([]hostcall.KeyInfo, string, error) {
	return nil, "", nil
}

// Steps.

func (m *model) get(t *rapid.T) {
	key := m.key(t)
	go func() {
		e, err := m.store.Get(context.Background(), modelSpace, key)
		m.check(key, e, err)
	}()
}

func (m *model) strong(t *rapid.T) {
	key := m.key(t)
	began := m.known[key] // an answer of the truth may be overtaken, but is not older than its question
	go func() {
		got, err := m.store.Read(context.Background(), modelSpace, []string{key}, hostcall.ReadOptions{Strong: true})
		if err != nil {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		rev := got[0].Revision
		if got[0].Err != nil {
			rev = got[0].AsOf
		}
		if rev < began {
			m.fault = fmt.Errorf("key %s: a strong read of %d, begun after %d was known", key, rev, began)
		}
		if got[0].Err == nil {
			m.known[key] = max(m.known[key], rev)
		}
	}()
}

func (m *model) increment(t *rapid.T) {
	key := m.key(t)
	go func() {
		if _, rev, err := m.store.Increment(context.Background(), modelSpace, key, 1); err == nil {
			m.wrote(key, rev)
		}
	}()
}

func (m *model) put(t *rapid.T) {
	key := m.key(t)
	go func() {
		if rev, err := m.store.Put(context.Background(), modelSpace, key, []byte("own"), hostcall.PutOptions{IfRevision: hostcall.AnyRevision}); err == nil {
			m.wrote(key, rev)
		}
	}()
}

func (m *model) del(t *rapid.T) {
	key := m.key(t)
	go func() {
		if rev, err := m.store.Delete(context.Background(), modelSpace, key, hostcall.AnyRevision); err == nil {
			m.wrote(key, rev)
		}
	}()
}

func (m *model) writeBeyond(t *rapid.T) {
	m.write(m.key(t), rapid.Bool().Draw(t, "there"))
}

func (m *model) deliver(t *rapid.T) {
	s := m.streams[rapid.IntRange(0, 1).Draw(t, "to")]
	n := rapid.IntRange(0, min(3, len(m.log)-s.told)).Draw(t, "changes")
	c := Changes{Epoch: 1, From: s.applied, To: s.applied}
	page := n > 0 && s.told+n < len(m.log) && rapid.Bool().Draw(t, "page")
	for _, ch := range m.log[s.told : s.told+n] {
		if c.To = ch.Revision; !page || m.last(ch.Key).rev == ch.Revision {
			c.List = append(c.List, ch)
		}
	}
	if page { // what was replaced is left out
		c.Head = m.seq
	}
	s.told += n
	s.applied = c.To
	s.store.Apply(modelSpace, c)
	if s.store != m.store {
		return
	}
	for _, ch := range c.List {
		m.known[ch.Key] = max(m.known[ch.Key], ch.Revision)
	}
}

func (m *model) pick(t *rapid.T) int {
	if len(m.calls) == 0 {
		t.Skip("nothing is under way")
	}
	return rapid.IntRange(0, len(m.calls)-1).Draw(t, "call")
}

func (m *model) read(t *rapid.T) {
	if c := m.calls[m.pick(t)]; !c.did {
		c.did = true
		c.do()
	}
}

func (m *model) answer(t *rapid.T) { m.finish(m.pick(t), nil) }

func (m *model) fail(t *rapid.T) { m.finish(m.pick(t), hostcall.ErrUnavailable) }

func (m *model) finish(i int, err error) {
	c := m.calls[i]
	m.calls = append(m.calls[:i:i], m.calls[i+1:]...)
	if !c.did && err == nil {
		c.do()
	}
	c.back <- err
}

// reset is the stream starting anew at the head, as after a long time away.
func (m *model) reset(t *rapid.T) {
	s := m.streams[rapid.IntRange(0, 1).Draw(t, "of")]
	if s.store == m.store && m.copy != nil {
		var err error
		if m.disk.do(func() { err = m.copy.Reset() }); err != nil {
			t.Fatal(err)
		}
		m.copied, m.attached = 0, false
	}
	s.store.Reset(modelSpace)
	s.told, s.applied = len(m.log), m.seq
}

func (m *model) wait(t *rapid.T) {
	time.Sleep(time.Duration(rapid.IntRange(1, 50).Draw(t, "seconds")) * time.Second)
}

func (m *model) wrote(key string, rev uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known[key] = max(m.known[key], rev)
}

// check holds an answer against what this node knew when it was given.
func (m *model) check(key string, e hostcall.Entry, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		if e.Revision < m.known[key] {
			m.fault = fmt.Errorf("key %s: revision %d served after %d was known", key, e.Revision, m.known[key])
		}
		m.known[key] = max(m.known[key], e.Revision)
		for _, v := range m.history[key] {
			if v.rev > e.Revision && v.rev <= e.AsOf {
				m.fault = fmt.Errorf("key %s: revision %d as of %d, although there is %d", key, e.Revision, e.AsOf, v.rev)
			}
		}
	case errors.Is(err, hostcall.ErrNotFound):
		for _, v := range append([]version{{}}, m.history[key]...) {
			if !v.there && v.rev >= m.known[key] {
				m.known[key] = v.rev
				return
			}
		}
		m.fault = fmt.Errorf("key %s: not found after revision %d was known", key, m.known[key])
	case !errors.Is(err, hostcall.ErrUnavailable) && err.Error() != "kv get: the test is over":
		m.fault = err
	}
}
