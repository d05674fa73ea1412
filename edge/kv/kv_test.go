package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// truth is a small linearizable origin that can be slow or away.
type truth struct {
	mu    sync.Mutex
	seq   uint64
	data  map[hostcall.Namespace]map[string]hostcall.Entry
	asked int
	delay time.Duration
	away  error
	tells bool          // what its time is, in answers
	ahead time.Duration // its clock's
}

func (o *truth) now() time.Time { return time.Now().Add(o.ahead) }

// time is what an answer says.
func (o *truth) time() time.Time {
	if !o.tells {
		return time.Time{}
	}
	return o.now().Truncate(time.Millisecond)
}

func newTruth() *truth {
	return &truth{data: map[hostcall.Namespace]map[string]hostcall.Entry{}}
}

// enter takes the time it takes and then the lock, whatever it returns.
func (o *truth) enter(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-time.After(o.delay):
	}
	o.mu.Lock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	o.asked++
	return o.away
}

func (o *truth) Get(ctx context.Context, ns hostcall.Namespace, key string) (hostcall.Entry, error) {
	err := o.enter(ctx)
	defer o.mu.Unlock()
	e, ok := o.data[ns][key]
	if err == nil && !ok {
		err = hostcall.ErrNotFound
	}
	e.AsOf, e.At = o.seq, o.time()
	return e, err
}

func (o *truth) Read(ctx context.Context, ns hostcall.Namespace, keys []string, _ hostcall.ReadOptions) ([]hostcall.Result, error) {
	err := o.enter(ctx)
	defer o.mu.Unlock()
	out := make([]hostcall.Result, len(keys))
	for i, key := range keys {
		e, ok := o.data[ns][key]
		e.AsOf, e.At = o.seq, o.time()
		if !ok {
			out[i].Err = hostcall.ErrNotFound
		}
		out[i].Entry = e
	}
	return out, err
}

func (o *truth) Increment(ctx context.Context, ns hostcall.Namespace, key string, delta int64) (int64, uint64, error) {
	err := o.enter(ctx)
	defer o.mu.Unlock()
	if err != nil {
		return 0, 0, err
	}
	n, _ := strconv.ParseInt(string(o.data[ns][key].Value), 10, 64)
	o.seq++
	o.set(ns, key, hostcall.Entry{Value: strconv.AppendInt(nil, n+delta, 10), Revision: o.seq})
	return n + delta, o.seq, nil
}

// set is for who holds the lock.
func (o *truth) set(ns hostcall.Namespace, key string, e hostcall.Entry) {
	if o.data[ns] == nil {
		o.data[ns] = map[string]hostcall.Entry{}
	}
	o.data[ns][key] = e
}

func (o *truth) Put(ctx context.Context, ns hostcall.Namespace, key string, value []byte, p hostcall.PutOptions) (uint64, error) {
	err := o.enter(ctx)
	defer o.mu.Unlock()
	if err != nil {
		return 0, err
	}
	o.seq++
	e := hostcall.Entry{Value: bytes.Clone(value), Metadata: bytes.Clone(p.Metadata), Revision: o.seq}
	if p.TTL > 0 {
		e.Expires = o.now().Add(p.TTL)
	}
	o.set(ns, key, e)
	return o.seq, nil
}

func (o *truth) Delete(ctx context.Context, ns hostcall.Namespace, key string, _ int64) (uint64, error) {
	err := o.enter(ctx)
	defer o.mu.Unlock()
	if err != nil {
		return 0, err
	}
	o.seq++
	delete(o.data[ns], key)
	return o.seq, nil
}

func (o *truth) List(ctx context.Context, ns hostcall.Namespace, prefix, _ string, limit int) ([]hostcall.KeyInfo, string, error) {
	err := o.enter(ctx)
	defer o.mu.Unlock()
	var keys []hostcall.KeyInfo
	for k, e := range o.data[ns] {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, hostcall.KeyInfo{Key: k, Revision: e.Revision})
		}
	}
	slices.SortFunc(keys, func(a, b hostcall.KeyInfo) int { return strings.Compare(a.Key, b.Key) })
	return keys[:min(limit, len(keys))], "", err
}

var (
	ctx   = context.Background()
	ns    = hostcall.Namespace{Project: "p", Name: "n"}
	anyTo = hostcall.PutOptions{IfRevision: hostcall.AnyRevision}
)

// open gives a store that keeps ns fresh from the truth's beginning.
func open(t *testing.T, o hostcall.KV, c Config) *Store {
	t.Helper()
	c.Origin = o
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.Apply(ns, Changes{Epoch: 1})
	return s
}

func want(t *testing.T, s *Store, ns hostcall.Namespace, key, value string) hostcall.Entry {
	t.Helper()
	e, err := s.Get(ctx, ns, key)
	if value == "" {
		if !errors.Is(err, hostcall.ErrNotFound) {
			t.Errorf("get %q: %q, %v; want not found", key, e.Value, err)
		}
		return e
	}
	if err != nil || string(e.Value) != value {
		t.Errorf("get %q: %q, %v; want %q", key, e.Value, err, value)
	}
	return e
}

func (o *truth) put(t *testing.T, ns hostcall.Namespace, key, value string) uint64 {
	t.Helper()
	rev, err := o.Put(ctx, ns, key, []byte(value), anyTo)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func TestReadsComeFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		o.put(t, ns, "k", "v")
		s := open(t, o, Config{})
		o.asked = 0
		for range 5 {
			want(t, s, ns, "k", "v")
			want(t, s, ns, "absent", "")
			synctest.Wait() // what the cache is told it does a little later
		}
		if o.asked != 2 {
			t.Errorf("the origin was asked %d times, want 2", o.asked)
		}
		if st := s.Stats(); st.Hits != 8 || st.NegativeHits != 4 || st.Misses != 2 || st.Bytes <= 0 || st.Kept != 1 {
			t.Errorf("stats: %+v", st)
		}
	})
}

func TestNothingIsKeptUnlessAStreamKeepsItFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		s := open(t, o, Config{})
		other := hostcall.Namespace{Project: "p", Name: "other"}
		o.put(t, other, "k", "1")
		want(t, s, other, "k", "1")
		synctest.Wait()
		o.put(t, other, "k", "2")
		want(t, s, other, "k", "2")

		s.Apply(other, Changes{Epoch: 1, From: o.seq, To: o.seq})
		want(t, s, other, "k", "2")
		synctest.Wait()
		s.Forget(other)
		o.put(t, other, "k", "3")
		want(t, s, other, "k", "3")
		if got := s.Kept(); !slices.Equal(got, []hostcall.Namespace{ns}) {
			t.Errorf("kept %v", got)
		}
	})
}

func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		s := open(t, o, Config{})
		for _, k := range []string{"inline", "large", "deleted", "empty"} {
			o.put(t, ns, k, "old")
			want(t, s, ns, k, "old")
		}
		want(t, s, ns, "new", "")
		synctest.Wait()
		c := Changes{Epoch: 1, From: 0, List: []Change{
			{Key: "inline", Revision: o.put(t, ns, "inline", "told"), Value: []byte("told")},
			{Key: "large", Revision: o.put(t, ns, "large", "fetched")},
			{Key: "empty", Revision: o.put(t, ns, "empty", ""), Value: []byte{}},
			{Key: "new", Revision: o.put(t, ns, "new", "there"), Value: []byte("there")},
		}}
		rev, _ := o.Delete(ctx, ns, "deleted", hostcall.AnyRevision)
		c.List = append(c.List, Change{Key: "deleted", Revision: rev, Gone: true})
		c.To = rev
		s.Apply(ns, c)
		synctest.Wait()
		o.asked = 0
		want(t, s, ns, "inline", "told")
		want(t, s, ns, "new", "there")
		want(t, s, ns, "deleted", "")
		if e, err := s.Get(ctx, ns, "empty"); err != nil || len(e.Value) != 0 {
			t.Errorf("empty: %q, %v", e.Value, err)
		}
		if o.asked != 0 {
			t.Errorf("the origin was asked %d times for what the changes said", o.asked)
		}
		want(t, s, ns, "large", "fetched")
		if o.asked != 1 {
			t.Errorf("the origin was asked %d times for the value that did not come along", o.asked)
		}
	})
}

func TestOwnWritesAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		s := open(t, o, Config{})
		want(t, s, ns, "k", "")
		value := []byte("mine")
		rev, err := s.Put(ctx, ns, "k", value, anyTo)
		if err != nil {
			t.Fatal(err)
		}
		value[0] = 'X' // the store does not keep it
		if e := want(t, s, ns, "k", "mine"); e.Revision != rev {
			t.Errorf("revision %d, want %d", e.Revision, rev)
		}
		synctest.Wait()
		// An older change of the stream, and the echo of the write, undo nothing.
		s.Apply(ns, Changes{Epoch: 1, From: 0, To: rev, List: []Change{{Key: "k", Revision: rev, Value: []byte("mine")}}})
		want(t, s, ns, "k", "mine")
		if _, err := s.Delete(ctx, ns, "k", hostcall.AnyRevision); err != nil {
			t.Fatal(err)
		}
		want(t, s, ns, "k", "")
	})
}

func TestSlowFillDoesNotUndoAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		o.put(t, ns, "k", "old")
		held := &holding{truth: o, gate: make(chan struct{})}
		s := open(t, held, Config{})
		got := make(chan string, 1)
		go func() {
			e, err := s.Get(ctx, ns, "k")
			got <- fmt.Sprintf("%s %v", e.Value, err)
		}()
		synctest.Wait() // the origin has read "old" and holds the answer back
		rev := o.put(t, ns, "k", strings.Repeat("n", 100))
		s.Apply(ns, Changes{Epoch: 1, From: 1, To: rev, List: []Change{{Key: "k", Revision: rev}}})
		close(held.gate)
		if g := <-got; !strings.HasPrefix(g, "nnn") {
			t.Errorf("the reader was served %q after the change", g)
		}
		if st := s.Stats(); st.Fenced != 1 {
			t.Errorf("stats: %+v", st)
		}
	})
}

// holding holds its first answer back until the gate opens.
type holding struct {
	*truth
	gate chan struct{}
	once sync.Once
}

func (h *holding) Get(ctx context.Context, ns hostcall.Namespace, key string) (e hostcall.Entry, err error) {
	e, err = h.truth.Get(ctx, ns, key)
	h.once.Do(func() { <-h.gate })
	return e, err
}

// asked is an origin whose answers the test gives, one for each question.
type asked struct {
	*truth
	questions chan chan hostcall.Entry
}

func (a *asked) Get(context.Context, hostcall.Namespace, string) (hostcall.Entry, error) {
	answer := make(chan hostcall.Entry)
	a.questions <- answer
	if e := <-answer; e.Revision > 0 {
		return e, nil
	}
	return hostcall.Entry{}, hostcall.ErrNotFound
}

// TestAnswersThatCross has two questions for a key under way, since a change
// came between them; the first to have been asked is answered last, with what
// was true before the other's answer.
func TestAnswersThatCross(t *testing.T) {
	for name, second := range map[string]uint64{"a newer value": 9, "not found": 0} {
		synctest.Test(t, func(t *testing.T) {
			a := &asked{newTruth(), make(chan chan hostcall.Entry, 10)}
			s := open(t, a, Config{})
			got := make(chan uint64, 2)
			get := func() {
				e, err := s.Get(ctx, ns, "k")
				if err != nil && !errors.Is(err, hostcall.ErrNotFound) {
					t.Error(err)
				}
				got <- e.Revision
			}
			go get()
			synctest.Wait()
			s.Apply(ns, Changes{Epoch: 1, From: 0, To: 7, List: []Change{{Key: "k", Revision: 7}}})
			go get()
			synctest.Wait()
			first, next := <-a.questions, <-a.questions
			next <- hostcall.Entry{Revision: second}
			if rev := <-got; rev != second {
				t.Errorf("%s: the second reader was served %d", name, rev)
			}
			synctest.Wait()
			first <- hostcall.Entry{Revision: 8}
			if rev := <-got; rev != second {
				t.Errorf("%s: the first reader was served %d after it", name, rev)
			}
		})
	}
}

func TestOneQuestionForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		o.put(t, ns, "k", "v")
		o.asked, o.delay = 0, time.Second
		s := open(t, o, Config{})
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { want(t, s, ns, "k", "v") })
		}
		// One who leaves does not end the question for the others.
		leaving, leave := context.WithTimeout(ctx, 100*time.Millisecond)
		defer leave()
		if _, err := s.Get(leaving, ns, "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the one who left: %v", err)
		}
		all.Wait()
		if st := s.Stats(); o.asked != 1 || st.Misses != 1 || st.Joined != 50 {
			t.Errorf("asked %d times; stats %+v", o.asked, st)
		}
	})
}

func TestAQuestionNobodyWaitsForEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		o.delay = time.Hour
		s := open(t, o, Config{Timeout: 2 * time.Hour})
		leaving, leave := context.WithTimeout(ctx, time.Second)
		defer leave()
		start := time.Now()
		_, err := s.Get(leaving, ns, "k")
		synctest.Wait()
		s.Close() // waits for what is under way
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		s := open(t, o, Config{Negative: 10 * time.Second})
		if _, err := s.Put(ctx, ns, "k", []byte("v"), hostcall.PutOptions{IfRevision: -1, TTL: 3 * time.Second}); err != nil {
			t.Fatal(err)
		}
		want(t, s, ns, "absent", "")
		synctest.Wait()
		time.Sleep(3*time.Second - 1)
		want(t, s, ns, "k", "v")
		o.away = hostcall.ErrUnavailable
		time.Sleep(time.Nanosecond)
		if _, err := s.Get(ctx, ns, "k"); !errors.Is(err, hostcall.ErrUnavailable) {
			t.Errorf("after its time, with the origin away: %v", err)
		}
		want(t, s, ns, "absent", "")
		time.Sleep(7 * time.Second)
		if _, err := s.Get(ctx, ns, "absent"); !errors.Is(err, hostcall.ErrUnavailable) {
			t.Errorf("\"not found\" outlived its time: %v", err)
		}
	})
}

func TestOriginAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		o.put(t, ns, "k", "v")
		s := open(t, o, Config{Timeout: 5 * time.Second})
		want(t, s, ns, "k", "v")
		synctest.Wait()
		o.delay = time.Hour
		want(t, s, ns, "k", "v")
		start := time.Now()
		_, err := s.Get(ctx, ns, "other")
		if !errors.Is(err, hostcall.ErrUnavailable) || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if _, _, err := s.List(ctx, ns, "", "", 10); !errors.Is(err, hostcall.ErrUnavailable) {
			t.Errorf("list: %v", err)
		}
		o.delay, o.away = 0, hostcall.ErrUnavailable
		if _, err := s.Put(ctx, ns, "k", []byte("w"), anyTo); !errors.Is(err, hostcall.ErrUnavailable) {
			t.Errorf("put: %v", err)
		}
		// Whether the write happened nobody knows: the value from before is not served.
		if _, err := s.Get(ctx, ns, "k"); !errors.Is(err, hostcall.ErrUnavailable) {
			t.Errorf("after a write in doubt: %v", err)
		}
	})
}

// A write that was not sent says so and leaves what is known of the key alone; one that may have happened does not.
func TestWritesThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		writes := map[string]func(s *Store) error{
			"put":       func(s *Store) error { _, err := s.Put(ctx, ns, "k", []byte("w"), anyTo); return err },
			"delete":    func(s *Store) error { _, err := s.Delete(ctx, ns, "k", hostcall.AnyRevision); return err },
			"increment": func(s *Store) error { _, _, err := s.Increment(ctx, ns, "k", 1); return err },
		}
		for name, write := range writes {
			o := newTruth()
			o.put(t, ns, "k", "1")
			s := open(t, o, Config{})
			want(t, s, ns, "k", "1")
			synctest.Wait()
			o.away = hostcall.ErrUnsent
			if err := write(s); !errors.Is(err, hostcall.ErrUnavailable) || !strings.Contains(err.Error(), "it was not written") {
				t.Errorf("%s, not sent: %v", name, err)
			}
			want(t, s, ns, "k", "1")
			o.away = hostcall.ErrUnavailable
			if err := write(s); !errors.Is(err, hostcall.ErrUnavailable) || !strings.Contains(err.Error(), "whether it was written is not known") {
				t.Errorf("%s, without an answer: %v", name, err)
			}
			if _, err := s.Get(ctx, ns, "k"); !errors.Is(err, hostcall.ErrUnavailable) {
				t.Errorf("%s: after a write in doubt: %v", name, err)
			}
		}
	})
}

func TestNamespacesAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		s := open(t, o, Config{})
		spaces := []hostcall.Namespace{
			{Project: "a", Name: "bc"}, {Project: "ab", Name: "c"}, {Project: "a", Name: "b"}, {Project: "a/b", Name: "c"},
		}
		for i, n := range spaces {
			s.Apply(n, Changes{Epoch: 1})
			if _, err := s.Put(ctx, n, "k", fmt.Append(nil, i), anyTo); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		o.asked = 0
		for i, n := range spaces {
			want(t, s, n, "k", fmt.Sprint(i))
		}
		if o.asked != 0 {
			t.Errorf("asked %d times", o.asked)
		}
	})
}

func TestAnotherEpochStartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		for range 10 {
			o.put(t, ns, "k", "old")
		}
		s := open(t, o, Config{})
		s.Apply(ns, Changes{Epoch: 1, To: 10, List: []Change{{Key: "k", Revision: 10, Value: []byte("old")}}})
		want(t, s, ns, "k", "old")
		synctest.Wait()
		// A store restored from a backup: fewer revisions, another value.
		restored := newTruth()
		restored.put(t, ns, "k", "restored")
		*o = truth{data: restored.data, seq: restored.seq}
		s.Reset(ns)
		want(t, s, ns, "k", "restored")
		s.Apply(ns, Changes{Epoch: 2, From: 1, To: 1})
		want(t, s, ns, "k", "restored")
		synctest.Wait()
		want(t, s, ns, "k", "restored")
	})
}

func TestTooLargeToKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		s := open(t, o, Config{Bytes: 1 << 20})
		big := strings.Repeat("x", 1<<18)
		if _, err := s.Put(ctx, ns, "k", []byte(big), anyTo); err != nil {
			t.Fatal(err)
		}
		o.asked = 0
		want(t, s, ns, "k", big)
		synctest.Wait()
		want(t, s, ns, "k", big)
		if o.asked != 2 {
			t.Errorf("asked %d times, want 2: one value must not drive out all others", o.asked)
		}
	})
}

func TestInvalid(t *testing.T) {
	o := newTruth()
	s, err := New(Config{Origin: o})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	long := strings.Repeat("k", hostcall.MaxKeyBytes+1)
	for name, c := range map[string]struct {
		do   func() error
		want error
	}{
		"get without a key":   {func() error { _, err := s.Get(ctx, ns, ""); return err }, hostcall.ErrInvalid},
		"get a long key":      {func() error { _, err := s.Get(ctx, ns, long); return err }, hostcall.ErrInvalid},
		"put a long key":      {func() error { _, err := s.Put(ctx, ns, long, nil, anyTo); return err }, hostcall.ErrInvalid},
		"put too much":        {func() error { _, err := s.Put(ctx, ns, "k", make([]byte, hostcall.MaxValueBytes+1), anyTo); return err }, hostcall.ErrTooLarge},
		"put below any":       {func() error { _, err := s.Put(ctx, ns, "k", nil, hostcall.PutOptions{IfRevision: -2}); return err }, hostcall.ErrInvalid},
		"put for less than 0": {func() error { _, err := s.Put(ctx, ns, "k", nil, hostcall.PutOptions{TTL: -1}); return err }, hostcall.ErrInvalid},
		"delete below any":    {func() error { _, err := s.Delete(ctx, ns, "k", -2); return err }, hostcall.ErrInvalid},
		"list nothing":        {func() error { _, _, err := s.List(ctx, ns, "", "", 0); return err }, hostcall.ErrInvalid},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if o.asked != 0 {
		t.Errorf("the origin was asked %d times", o.asked)
	}
	if _, err := New(Config{Bytes: 1, Negative: -1}); err == nil {
		t.Error("a configuration without an origin was taken")
	}
}

func TestClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTruth()
		s := open(t, o, Config{})
		s.Close()
		if _, err := s.Get(ctx, ns, "k"); !errors.Is(err, hostcall.ErrUnavailable) {
			t.Errorf("get: %v", err)
		}
		s.Apply(ns, Changes{Epoch: 1, List: []Change{{Key: "k", Revision: 1}}, To: 1})
	})
}

func BenchmarkHit(b *testing.B) {
	o := newTruth()
	s, err := New(Config{Origin: o})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	s.Apply(ns, Changes{Epoch: 1})
	if _, err := s.Put(ctx, ns, "key", make([]byte, 100), anyTo); err != nil {
		b.Fatal(err)
	}
	s.entries.cache.Wait()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get(ctx, ns, "key"); err != nil {
			b.Fatal(err)
		}
	}
}
