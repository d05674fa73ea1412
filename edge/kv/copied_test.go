package kv

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/selvage-edge/selvage/edge/replica"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

func openCopies(t *testing.T, c replica.Config) *replica.DB {
	t.Helper()
	db, discarded, err := replica.Open(c)
	if err != nil || discarded != nil {
		t.Fatalf("%v, discarded %v", err, discarded)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// outside runs what writes to disk: it waits for goroutines that are in no bubble.
type outside struct{ work, back chan func() }

func newOutside(t *testing.T) outside {
	o := outside{make(chan func()), make(chan func())}
	t.Cleanup(func() { close(o.work) })
	go func() {
		for f := range o.work {
			f()
			o.back <- nil
		}
	}()
	return o
}

func (o outside) do(f func()) {
	o.work <- f
	<-o.back
}

var modelCopies atomic.Int64

// withCopy gives the model's node a copy of its own.
func (m *model) withCopy(db *replica.DB, disk outside) {
	if m.disk = disk; db != nil {
		m.copy = db.Copy(hostcall.Namespace{Project: "p", Name: fmt.Sprint("n", modelCopies.Add(1))})
	}
}

// copyUp brings the copy to where the stream is.
func (m *model) copyUp() {
	s := m.streams[0]
	list := copyChanges(m.log[m.copied:s.told])
	var err error
	m.disk.do(func() {
		err = m.copy.Apply(replica.Position{Epoch: 1, Seq: max(s.applied, m.copy.Position().Seq)}, list, true)
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.copied = s.told
}

// attach attaches the copy where the stream is, or has the stream begin again where the copy is.
func (m *model) attach(t *rapid.T) {
	if m.attached {
		t.Skip("it is attached")
	}
	s := m.streams[0]
	if m.copy.Whole() && rapid.Bool().Draw(t, "behind") {
		s.told, s.applied = m.copied, m.copy.Position().Seq
	} else {
		m.copyUp()
	}
	m.attached = true
	m.store.Attach(modelSpace, m.copy)
}

func (m *model) detach(*rapid.T) {
	m.attached = false
	m.store.Detach(modelSpace, false)
}

func copyChanges(log []Change) []replica.Change {
	var list []replica.Change
	for _, ch := range log {
		c := replica.Change{Key: ch.Key, Gone: ch.Gone}
		if !ch.Gone {
			c.Value = replica.Value{Revision: ch.Revision, Value: ch.Value, Metadata: ch.Metadata, Absent: ch.Value == nil}
			if !ch.Expires.IsZero() {
				c.Value.Expires = ch.Expires.UnixMilli()
			}
		}
		list = append(list, c)
	}
	return list
}

// replicated is a store with an attached copy, which has what the truth's stream told.
type replicated struct {
	*Store
	t     *testing.T
	truth *truth
	disk  outside
	copy  *replica.Copy
	at    uint64
}

var copiedSpace = hostcall.Namespace{Project: "shop", Name: "words"}

// withCopy runs a test in virtual time.
func withCopy(t *testing.T, do func(r *replicated)) {
	db := openCopies(t, replica.Config{Dir: t.TempDir(), Spare: 1})
	disk := newOutside(t)
	synctest.Test(t, func(t *testing.T) {
		r := &replicated{t: t, truth: newTruth(), disk: disk, copy: db.Copy(copiedSpace)}
		r.open(time.Minute)
		defer func() { r.Close() }()
		do(r)
	})
}

// open begins with an empty memory, as a server that starts.
func (r *replicated) open(negative time.Duration) {
	if r.Store != nil {
		r.Close()
	}
	var err error
	if r.Store, err = New(Config{Origin: r.truth, Bytes: 1 << 20, Negative: negative}); err != nil {
		r.t.Fatal(err)
	}
}

// tell is the stream: reads are told of changes before the copy has them. It is complete at now.
func (r *replicated) tell(list ...Change) {
	r.t.Helper()
	to := r.at
	for _, ch := range list {
		to = max(to, ch.Revision)
	}
	r.Apply(copiedSpace, Changes{Epoch: 1, From: r.at, To: to, At: time.Now(), List: list})
	r.write(replica.Position{Epoch: 1, Seq: to}, list)
	r.at = to
}

func (r *replicated) write(to replica.Position, list []Change) {
	r.t.Helper()
	var err error
	if r.disk.do(func() { err = r.copy.Apply(to, copyChanges(list), true) }); err != nil {
		r.t.Fatal(err)
	}
}

// is checks what a read says; "" is that the key is not there.
func (r *replicated) is(key, want string) hostcall.Entry {
	r.t.Helper()
	e, err := r.Get(context.Background(), copiedSpace, key)
	if want == "" && !errors.Is(err, hostcall.ErrNotFound) || want != "" && (err != nil || string(e.Value) != want) {
		r.t.Errorf("%q is %q, %v; want %q", key, e.Value, err, want)
	}
	return e
}

func valueOf(key string, rev uint64, value string) Change {
	return Change{Key: key, Revision: rev, Value: []byte(value)}
}

func TestACopyAnswersWithoutTheOrigin(t *testing.T) {
	withCopy(t, func(r *replicated) {
		r.tell(valueOf("a/1", 1, "one"), valueOf("a/2", 2, "two"), valueOf("b", 3, "bee"), Change{Key: "a/3", Revision: 4, Gone: true})
		r.open(time.Minute)
		r.truth.away = hostcall.ErrUnavailable
		r.Attach(copiedSpace, r.copy)
		if e := r.is("a/1", "one"); e.Revision != 1 || e.AsOf < 4 || e.Stale >= 0 {
			t.Errorf("%+v: want revision 1 as of 4, and a staleness that is not known before the stream speaks", e)
		}
		r.is("a/3", "")
		r.is("never", "")
		got, err := r.Read(context.Background(), copiedSpace, []string{"a/2", "b", "none"}, hostcall.ReadOptions{AtLeast: 4})
		if err != nil || string(got[0].Value) != "two" || string(got[1].Value) != "bee" || !errors.Is(got[2].Err, hostcall.ErrNotFound) {
			t.Errorf("%+v, %v", got, err)
		}
		keys, next, err := r.List(context.Background(), copiedSpace, "a/", "", 1)
		if err != nil || len(keys) != 1 || keys[0].Key != "a/1" || keys[0].Revision != 1 || next != "a/1" {
			t.Errorf("%+v, %q, %v", keys, next, err)
		}
		if keys, next, err = r.List(context.Background(), copiedSpace, "a/", next, 5); err != nil || len(keys) != 1 || keys[0].Key != "a/2" || next != "" {
			t.Errorf("%+v, %q, %v", keys, next, err)
		}
		if r.truth.asked != 0 {
			t.Errorf("the origin was asked %d times", r.truth.asked)
		}
		if _, err := r.Read(context.Background(), copiedSpace, []string{"b"}, hostcall.ReadOptions{Strong: true}); !errors.Is(err, hostcall.ErrUnavailable) {
			t.Errorf("a strong read: %v", err)
		}
		if _, err := r.Read(context.Background(), copiedSpace, []string{"b"}, hostcall.ReadOptions{AtLeast: 5}); !errors.Is(err, hostcall.ErrUnavailable) {
			t.Errorf("a read of at least 5: %v", err)
		}
		u := r.Usage()[0]
		if u.Replica < 5 || u.Origin != 0 || u.Copies != 1 || u.CopyBytes == 0 || u.NoRoom != 0 {
			t.Errorf("%+v", u)
		}
	})
}

// page is a page of the stream with more behind it, which the copy has taken too.
func (r *replicated) page(to, head uint64, list ...Change) {
	r.t.Helper()
	r.Apply(copiedSpace, Changes{Epoch: 1, From: r.at, To: to, Head: head, List: list})
	var err error
	if r.disk.do(func() { err = r.copy.ApplyPage(replica.Position{Epoch: 1, Seq: to}, copyChanges(list), head) }); err != nil {
		r.t.Fatal(err)
	}
	r.at = to
}

// TestAPageIsNotEverything catches up page by page: what the first leaves out, since it was
// replaced, is still to come, also where another stream says meanwhile that it was everything until before that.
func TestAPageIsNotEverything(t *testing.T) {
	withCopy(t, func(r *replicated) {
		ends := valueOf("ended", 3, "v")
		ends.Expires = time.Now().Add(time.Hour)
		r.tell(valueOf("later", 2, "2"), ends, valueOf("a", 4, "4"))
		r.open(time.Minute)
		r.Limit(copiedSpace, time.Minute)
		r.Attach(copiedSpace, r.copy)
		time.Sleep(72 * time.Hour)
		n := r.space(copiedSpace)
		behind := func() {
			t.Helper()
			if e, err, ok := r.cached(n, "a", 7); ok {
				t.Errorf("a as of 7: %+v, %v", e, err)
			}
			if e, err, ok := r.cached(n, "a", 0); ok {
				t.Errorf("three days old with a bound of a minute: %+v, %v", e, err)
			}
			r.Limit(copiedSpace, 0)
			if e := r.is("a", "4"); e.AsOf != 4 || e.Stale >= 0 {
				t.Errorf("a is %+v", e)
			}
			r.is("ended", "")
			r.Limit(copiedSpace, time.Minute)
		}
		r.page(10, 20, valueOf("b", 8, "8")) // a was 5 too, and is 20 by now
		behind()
		signed := time.Now().Add(-time.Hour) // a neighbour sends what was everything up to 12 then
		r.Apply(copiedSpace, Changes{Epoch: 1, From: 10, To: 12, At: signed})
		r.write(replica.Position{Epoch: 1, Seq: 12}, nil)
		r.at = 12
		if r.copy.Complete().Seq != 4 || r.copy.Position().Seq != 12 {
			t.Errorf("complete up to %v of %v", r.copy.Complete(), r.copy.Position())
		}
		if e, err, ok := r.cached(n, "a", 7); ok {
			t.Errorf("a as of 7: %+v, %v", e, err)
		}
		r.open(time.Minute) // a crash between the pages
		r.Attach(copiedSpace, r.copy)
		n = r.space(copiedSpace)
		r.Limit(copiedSpace, time.Minute)
		behind()
		r.tell(valueOf("a", 20, "20"))
		r.truth.away = hostcall.ErrUnavailable
		if e := r.is("a", "20"); e.AsOf != 20 || e.Stale > time.Second {
			t.Errorf("a is %+v", e)
		}
		r.is("later", "2")
		r.is("ended", "")
	})
}

func TestACopyHoldsTheBoundOfStaleness(t *testing.T) {
	withCopy(t, func(r *replicated) {
		r.tell(valueOf("a", 1, "one"))
		r.open(time.Minute)
		r.Attach(copiedSpace, r.copy)
		r.Limit(copiedSpace, time.Minute)
		r.truth.away = hostcall.ErrUnavailable
		if _, err := r.Get(context.Background(), copiedSpace, "a"); !errors.Is(err, hostcall.ErrUnavailable) {
			t.Errorf("before the stream has spoken: %v", err)
		}
		r.tell()
		r.is("a", "one")
		time.Sleep(50 * time.Second)
		if e := r.is("a", "one"); e.Stale < 50*time.Second {
			t.Errorf("it says %v", e.Stale)
		}
		time.Sleep(11 * time.Second)
		if _, err := r.Get(context.Background(), copiedSpace, "a"); !errors.Is(err, hostcall.ErrUnavailable) {
			t.Errorf("over the bound: %v", err)
		}
		if _, _, err := r.List(context.Background(), copiedSpace, "", "", 10); !errors.Is(err, hostcall.ErrUnavailable) {
			t.Errorf("a listing over the bound: %v", err)
		}
	})
}

func TestWhatEndedIsNotInTheCopy(t *testing.T) {
	withCopy(t, func(r *replicated) {
		ends := valueOf("a", 1, "one")
		ends.Expires = time.Now().Add(time.Minute)
		r.tell(ends, valueOf("b", 2, "two"))
		r.Attach(copiedSpace, r.copy)
		r.truth.away = hostcall.ErrUnavailable
		r.is("a", "one")
		time.Sleep(time.Minute)
		r.is("a", "")
		keys, _, err := r.List(context.Background(), copiedSpace, "", "", 10)
		if err != nil || len(keys) != 1 || keys[0].Key != "b" {
			t.Errorf("%+v, %v", keys, err)
		}
	})
}

// TestACopyIsNotAskedBeforeItHasWhatWasServed attaches a copy that is behind.
func TestACopyIsNotAskedBeforeItHasWhatWasServed(t *testing.T) {
	withCopy(t, func(r *replicated) {
		r.tell(valueOf("k", 1, "old"))
		r.open(time.Minute)
		r.truth.put(r.t, copiedSpace, "k", "new") // revision 1 of the truth's
		r.truth.seq = 7
		r.truth.put(r.t, copiedSpace, "k", "newer") // 8
		r.is("k", "newer")
		r.Attach(copiedSpace, r.copy)
		r.is("k", "newer")
		if keys, _, _ := r.List(context.Background(), copiedSpace, "", "", 10); len(keys) > 0 && keys[0].Revision < 8 {
			t.Errorf("listed %+v", keys)
		}
		r.tell(valueOf("k", 8, "newer"))
		asked := r.truth.asked
		r.is("k", "newer")
		if r.truth.asked != asked {
			t.Error("the origin was asked although the copy has come to it")
		}
	})
}

// TestOwnWritesBesideACopy writes while the stream is behind, and with memory that keeps nothing.
func TestOwnWritesBesideACopy(t *testing.T) {
	withCopy(t, func(r *replicated) {
		r.tell(valueOf("k", 1, "old"))
		r.Attach(copiedSpace, r.copy)
		r.truth.seq = 1
		ctx := context.Background()
		forget := func() { // memory may drop anything
			n := r.space(copiedSpace)
			r.entries.drop(n.generation(), "k")
			r.entries.cache.Wait()
		}
		if _, err := r.Put(ctx, copiedSpace, "k", []byte("mine"), hostcall.PutOptions{IfRevision: hostcall.AnyRevision}); err != nil {
			t.Fatal(err)
		}
		forget()
		r.is("k", "mine")
		if _, err := r.Delete(ctx, copiedSpace, "k", hostcall.AnyRevision); err != nil {
			t.Fatal(err)
		}
		forget()
		r.is("k", "")
		r.truth.away = hostcall.ErrUnavailable
		forget()
		if _, err := r.Get(ctx, copiedSpace, "k"); !errors.Is(err, hostcall.ErrUnavailable) {
			t.Errorf("the copy is behind this node's own write, and the truth is away: %v", err)
		}
	})
}

// TestDoubt has a write fail: the truth is asked as long as it answers, what was before it
// is served while it is away, and the copy again once the stream has come past it.
func TestDoubt(t *testing.T) {
	withCopy(t, func(r *replicated) {
		r.tell(valueOf("k", 1, "old"))
		r.Attach(copiedSpace, r.copy)
		ctx := context.Background()
		r.truth.away = hostcall.ErrUnavailable
		if _, err := r.Put(ctx, copiedSpace, "k", []byte("new"), hostcall.PutOptions{IfRevision: hostcall.AnyRevision}); err == nil {
			t.Fatal("written")
		}
		r.is("k", "old")
		r.truth.away = nil
		r.truth.seq = 1
		r.truth.put(r.t, copiedSpace, "k", "new") // it has happened
		time.Sleep(time.Second)
		r.is("k", "new")
		r.tell(valueOf("k", 2, "new"))
		r.truth.away = hostcall.ErrUnavailable
		if _, err := r.Put(ctx, copiedSpace, "k", []byte("lost"), hostcall.PutOptions{IfRevision: hostcall.AnyRevision}); err == nil {
			t.Fatal("written")
		}
		time.Sleep(time.Second)
		r.tell() // complete now, without it
		asked := r.truth.asked
		r.is("k", "new")
		if r.truth.asked != asked {
			t.Error("the truth was asked although the stream has come past the failed write")
		}
	})
}

// TestDoubtOutlivesItsCopy has writes fail before a copy is attached, and one before it is attached again.
func TestDoubtOutlivesItsCopy(t *testing.T) {
	withCopy(t, func(r *replicated) {
		r.tell(valueOf("a", 1, "old"), valueOf("b", 2, "old"))
		lost := func(key string) {
			t.Helper()
			r.truth.away = hostcall.ErrUnavailable
			if _, err := r.Put(context.Background(), copiedSpace, key, []byte("new"), hostcall.PutOptions{IfRevision: hostcall.AnyRevision}); err == nil {
				t.Fatal("written")
			}
			r.truth.away = nil
		}
		lost("a")
		r.Attach(copiedSpace, r.copy)
		lost("b")
		r.Detach(copiedSpace, false)
		r.Attach(copiedSpace, r.copy)
		r.truth.seq = 2
		for _, key := range []string{"a", "b"} { // they have happened
			r.truth.put(r.t, copiedSpace, key, "new")
			r.is(key, "new")
		}
	})
}

// tardyOwner answers when it is let.
type tardyOwner struct {
	asked, let chan struct{}
	says       hostcall.Entry
}

func (o *tardyOwner) Ask(context.Context, hostcall.Namespace, string, Question) (hostcall.Entry, error) {
	close(o.asked)
	<-o.let
	return o.says, nil
}

// TestANeighboursAnswerThatLandsInACopy: a neighbour was asked before the copy was attached. What it says
// after that is not served, since no change fences it and the copy may be behind it.
func TestANeighboursAnswerThatLandsInACopy(t *testing.T) {
	withCopy(t, func(r *replicated) {
		r.tell(valueOf("k", 1, "old"))
		r.Close()
		o := &tardyOwner{make(chan struct{}), make(chan struct{}), hostcall.Entry{Value: []byte("claimed"), Revision: 9, AsOf: 9}}
		var err error
		if r.Store, err = New(Config{Origin: r.truth, Bytes: 1 << 20, Owner: func(hostcall.Namespace, string) Owner { return o }}); err != nil {
			t.Fatal(err)
		}
		r.Apply(copiedSpace, Changes{Epoch: 1, From: 1, To: 1, At: time.Now()})
		read := make(chan hostcall.Entry)
		go func() {
			e, _ := r.Get(context.Background(), copiedSpace, "k")
			read <- e
		}()
		<-o.asked
		r.Attach(copiedSpace, r.copy)
		close(o.let)
		if e := <-read; string(e.Value) != "old" {
			t.Errorf("%+v", e)
		}
		r.is("k", "old")
	})
}

// TestAnotherEpochLeavesTheCopy has a restored store's stream begin again, in an epoch that counts from lower.
func TestAnotherEpochLeavesTheCopy(t *testing.T) {
	withCopy(t, func(r *replicated) {
		r.tell(valueOf("k", 9, "of the first epoch"), valueOf("gone", 10, "too"))
		r.Attach(copiedSpace, r.copy)
		r.is("k", "of the first epoch")
		var err error
		if r.disk.do(func() { err = r.copy.Reset() }); err != nil {
			t.Fatal(err)
		}
		r.Reset(copiedSpace)
		r.truth.put(r.t, copiedSpace, "k", "restored")
		r.is("k", "restored")
		r.is("gone", "")
		list := []Change{valueOf("k", 1, "restored")}
		r.write(replica.Position{Epoch: 2, Seq: 1}, list)
		r.Apply(copiedSpace, Changes{Epoch: 2, To: 1, At: time.Now(), List: list})
		r.Attach(copiedSpace, r.copy)
		r.truth.away = hostcall.ErrUnavailable
		r.is("k", "restored")
		r.is("gone", "")
	})
}

// TestACopyOfAnotherEpochIsNotAttached: a namespace that is followed in an epoch never goes back to one before.
func TestACopyOfAnotherEpochIsNotAttached(t *testing.T) {
	withCopy(t, func(r *replicated) {
		r.tell(valueOf("k", 9, "of the first epoch"))
		r.open(time.Minute)
		r.Apply(copiedSpace, Changes{Epoch: 2, To: 1, At: time.Now()})
		r.truth.put(r.t, copiedSpace, "k", "restored")
		r.is("k", "restored")
		if r.Attach(copiedSpace, r.copy) {
			t.Error("attached")
		}
		r.is("k", "restored")
		if n := r.space(copiedSpace); n.replicated() || !n.follows(2) {
			t.Error("the namespace is in another epoch")
		}
	})
}

// TestAGapInTheStream has a stream that does not go on where the copy is: neither the copy nor
// what memory has of it is served before the copy is past the gap.
func TestAGapInTheStream(t *testing.T) {
	withCopy(t, func(r *replicated) {
		r.tell(valueOf("k", 4, "old"), valueOf("other", 3, "o"))
		r.open(time.Minute)
		r.Attach(copiedSpace, r.copy)
		r.is("k", "old")
		r.entries.cache.Wait()
		r.truth.seq = 19
		r.truth.put(r.t, copiedSpace, "k", "new") // 20
		r.truth.seq = 49
		r.Apply(copiedSpace, Changes{Epoch: 1, From: 50, To: 50, At: time.Now()})
		n := r.space(copiedSpace)
		if e, err, ok := r.cached(n, "k", 0); ok {
			t.Errorf("%+v, %v", e, err)
		}
		if keys, _, ok := r.listed(n, "", "", 10); ok {
			t.Errorf("listed %+v", keys)
		}
		r.is("k", "new")
		r.tell(valueOf("k", 20, "new"))
		r.at = 50
		r.tell()
		r.truth.away = hostcall.ErrUnavailable
		r.is("k", "new")
		r.is("other", "o")
	})
}

func TestDoubtsAreBounded(t *testing.T) {
	var d doubts
	now := time.Now()
	for i := range 10 {
		d.add(fmt.Sprint(i), now, 4)
	}
	if !d.has("0") || !d.has("never written") || len(d.byKey) > 4 {
		t.Errorf("%d told apart; of the others: %v", len(d.byKey), d.has("0"))
	}
	d.passed(now)
	if d.empty() {
		t.Error("forgotten before the stream has come past")
	}
	d.passed(now.Add(1))
	if !d.empty() || d.has("9") {
		t.Errorf("%+v", d)
	}
	if d.has("a") {
		t.Error("in doubt for no reason")
	}
}

// tellingOwner says what it is set to, where that is not too old.
type tellingOwner struct{ says hostcall.Entry }

func (o tellingOwner) Ask(_ context.Context, _ hostcall.Namespace, _ string, q Question) (hostcall.Entry, error) {
	if q.AtLeast > o.says.AsOf {
		return hostcall.Entry{}, ErrNoOwner
	}
	return o.says, nil
}

// TestACopyAheadOfTheStreamIsNotForgotten: a copy may be ahead of what the node followed when it was attached. What
// it served then is not undone by a neighbour, or a copy, once it is taken away.
func TestACopyAheadOfTheStreamIsNotForgotten(t *testing.T) {
	withCopy(t, func(r *replicated) {
		r.tell(valueOf("k", 5, "new"))
		r.Close()
		owner := tellingOwner{hostcall.Entry{Value: []byte("old"), Revision: 1, AsOf: 2}}
		var err error
		if r.Store, err = New(Config{Origin: r.truth, Bytes: 1 << 20, Owner: func(hostcall.Namespace, string) Owner { return owner }}); err != nil {
			t.Fatal(err)
		}
		r.Apply(copiedSpace, Changes{Epoch: 1, From: 2, To: 2, At: time.Now()})
		r.truth.seq = 4
		r.truth.put(r.t, copiedSpace, "k", "new") // 5
		r.Attach(copiedSpace, r.copy)
		r.is("k", "new")
		r.Detach(copiedSpace, false)
		n := r.space(copiedSpace)
		r.entries.drop(n.generation(), "k")
		r.entries.cache.Wait()
		r.is("k", "new")
	})
}
