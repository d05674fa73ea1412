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

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// TestNeverOlder drives a store through interleavings of reads, writes and
// changes, with the origin answering whenever it likes, and checks that nobody
// is served a key older than what this node had been told or had served of it.
func TestNeverOlder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		fences := rapid.IntRange(1, 4).Draw(rt, "fences")
		var fault error
		var broke any // how rapid ends a run: carried out of the bubble, where it looks for it
		synctest.Test(t, func(*testing.T) {
			m := newModel(rt, fences)
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
	return map[string]func(*rapid.T){
		"get":          m.get,
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
}

var modelSpace = hostcall.Namespace{Project: "p", Name: "n"}

// model is a linearizable origin whose reads and answers are steps of the test.
type model struct {
	t       *rapid.T
	store   *Store
	mu      sync.Mutex // goroutines that one step wakes run together; steps themselves run alone
	seq     uint64
	history map[string][]version // of each key, in order
	log     []Change
	told    int // of log
	calls   []*call
	known   map[string]uint64 // the newest revision this node has shown or been told
	fault   error
	applied uint64
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
	s, err := New(Config{
		Origin: m, Bytes: 1 << 20, Negative: time.Minute, Timeout: time.Hour,
		Fences: fences,
	})
	if err != nil {
		t.Fatal(err)
	}
	m.store = s
	return m
}

func (m *model) close() {
	for _, c := range m.calls {
		c.back <- errors.New("the test is over")
	}
	m.calls = nil
	synctest.Wait()
	m.store.Close()
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
	var v version
	if err := m.ask(ctx, func() { v = m.last(key) }); err != nil {
		return hostcall.Entry{}, err
	}
	if !v.there {
		return hostcall.Entry{}, hostcall.ErrNotFound
	}
	return hostcall.Entry{Value: fmt.Append(nil, v.rev), Revision: v.rev}, nil
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
	n := rapid.IntRange(0, min(3, len(m.log)-m.told)).Draw(t, "changes")
	c := Changes{Epoch: 1, From: m.applied, To: m.applied, List: m.log[m.told : m.told+n]}
	for _, ch := range c.List {
		c.To = ch.Revision
	}
	m.told += n
	m.applied = c.To
	m.store.Apply(modelSpace, c)
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
func (m *model) reset(*rapid.T) {
	m.store.Reset(modelSpace)
	m.told, m.applied = len(m.log), m.seq
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
