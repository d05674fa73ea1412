package changes

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/store"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

var links = hostcall.Namespace{Project: "default", Name: "links"}

// served is a store whose changes are served over HTTP/2, signed with a real key.
type served struct {
	*testing.T
	store  *store.Store
	server *Server
	http   *httptest.Server
	id     *identity.Control
	seals  atomic.Int64
}

func serve(t *testing.T, change ...func(*ServerConfig)) *served {
	t.Helper()
	s := &served{T: t}
	var err error
	if s.id, _, err = identity.Init(filepath.Join(t.TempDir(), "identity"), identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	s.open(store.Config{Dir: t.TempDir(), MaxBytes: 1 << 30, Reserve: 1})
	seal := SealWith(s.id.Changes)
	cfg := ServerConfig{Source: s.store, Seal: func(b []byte) ([]byte, error) { s.seals.Add(1); return seal(b) }}
	for _, c := range change {
		c(&cfg)
	}
	s.server = NewServer(cfg)
	s.http = httptest.NewUnstartedServer(s.server)
	s.http.EnableHTTP2 = true
	s.http.StartTLS()
	t.Cleanup(s.http.Close)
	return s
}

func (s *served) open(cfg store.Config) {
	s.Helper()
	var err error
	if s.store, err = store.Open(s.Context(), cfg); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { s.store.Close() })
}

func (s *served) put(key, value string) uint64 {
	s.Helper()
	rev, err := s.store.KV().Put(s.Context(), links, key, []byte(value), hostcall.PutOptions{IfRevision: hostcall.AnyRevision})
	if err != nil {
		s.Fatal(err)
	}
	return rev
}

// stream opens one stream.
func (s *served) stream(ctx context.Context, r Request) (io.ReadCloser, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", s.http.URL+Path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	resp, err := s.http.Client().Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		resp.Body.Close()
		return nil, fmt.Errorf("%s %s", resp.Proto, resp.Status)
	}
	return resp.Body, nil
}

// replica is a sink that holds what the logs say.
type replica struct {
	mu     sync.Mutex
	values map[string]string
	resets int
	marks  int
}

func (r *replica) Reset(context.Context, string, uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.values = map[string]string{}
	r.resets++
	return nil
}

func (r *replica) Apply(_ context.Context, b *Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(b.Changes) == 0 {
		r.marks++
	}
	for _, c := range b.Changes {
		if c.Op != Put {
			delete(r.values, c.Key)
			continue
		}
		if c.Inline() && sha256.Sum256(c.Value) != c.Sum {
			return errors.New("a value is not its sum's")
		}
		r.values[c.Key] = string(c.Value)
	}
	return nil
}

func (r *replica) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprint(r.values)
}

// run follows from wants into a replica until the test ends.
func (s *served) run(wants ...Want) (*Follower, *replica) {
	s.Helper()
	r := &replica{values: map[string]string{}}
	f := NewFollower(FollowerConfig{Open: s.stream, Verify: VerifyWith(s.id.Anchor), Sink: r, MinBackoff: time.Millisecond, MaxBackoff: 50 * time.Millisecond})
	f.Follow(wants...)
	ctx, cancel := context.WithCancel(s.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(ctx)
	}()
	s.Cleanup(func() { cancel(); <-done })
	return f, r
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func at(f *Follower, log string, seq uint64) func() bool {
	return func() bool { p, _ := f.Position(log); return p.Seq >= seq }
}

func TestFollowersHoldWhatTheStoreHolds(t *testing.T) {
	s := serve(t)
	log := store.KVLog(links)
	s.put("a", "1")
	s.put("b", "1")
	early, one := s.run(Want{Log: log})
	s.put("a", "2")
	big := string(make([]byte, MaxInline+1))
	s.put("big", big)
	if _, err := s.store.KV().Delete(t.Context(), links, "b", hostcall.AnyRevision); err != nil {
		t.Fatal(err)
	}
	last := s.put("c", "3")
	late, two := s.run(Want{Log: log})
	until(t, "both are there", func() bool { return at(early, log, last)() && at(late, log, last)() })
	want := "map[a:2 big: c:3]" // a large value is announced, not carried
	if one.String() != want || two.String() != want {
		t.Errorf("%s and %s, want %s", one, two, want)
	}
	// One who comes back continues where it was.
	p, _ := late.Position(log)
	end := s.put("d", "4")
	again, three := s.run(Want{Log: log, Position: p})
	until(t, "the third is there", at(again, log, end))
	if three.String() != "map[d:4]" || three.resets != 0 {
		t.Errorf("continued with %s after %d resets", three, three.resets)
	}
}

func TestTailBeginsAtTheHead(t *testing.T) {
	s := serve(t)
	log := store.KVLog(links)
	head := s.put("a", "1")
	until(t, "the log has it", func() bool { h, _ := s.store.Head(log); return h >= head })
	f, r := s.run(Want{Log: log, Tail: true})
	until(t, "the head is known", at(f, log, head))
	last := s.put("b", "2")
	until(t, "the change comes", at(f, log, last))
	if r.String() != "map[b:2]" {
		t.Errorf("held %s", r)
	}
}

// Whatever is written while many follow reaches all, and each batch is signed once.
func TestManyFollowersShareTheWork(t *testing.T) {
	s := serve(t)
	log := store.KVLog(links)
	const followers, writes = 20, 60
	var fs []*Follower
	var rs []*replica
	for range followers {
		f, r := s.run(Want{Log: log}, Want{Log: store.CatalogLog})
		fs, rs = append(fs, f), append(rs, r)
	}
	var last uint64
	for i := range writes {
		last = s.put(fmt.Sprint(i%10), fmt.Sprint(i))
	}
	for i, f := range fs {
		until(t, fmt.Sprint("follower ", i, " has all"), at(f, log, last))
		if rs[i].String() != rs[0].String() {
			t.Errorf("%s and %s", rs[i], rs[0])
		}
	}
	if n := s.seals.Load(); n > 4*writes {
		t.Errorf("%d batches were signed for %d writes and %d followers", n, writes, followers)
	}
}

func TestWatermarksMoveQuietLogs(t *testing.T) {
	s := serve(t, func(c *ServerConfig) { c.Watermark = 20 * time.Millisecond })
	quiet := store.KVLog(hostcall.Namespace{Project: "default", Name: "quiet"})
	f, r := s.run(Want{Log: quiet})
	last := s.put("a", "1")
	until(t, "the quiet log is known to be complete", at(f, quiet, last))
	r.mu.Lock()
	before := r.marks
	r.mu.Unlock()
	until(t, "it is said again", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.marks > before })
	if r.String() != "map[]" {
		t.Errorf("held %s", r)
	}
}

func TestHeartbeatsKeepAStreamAlive(t *testing.T) {
	s := serve(t, func(c *ServerConfig) { c.Heartbeat, c.Watermark = 10*time.Millisecond, time.Hour })
	body, err := s.stream(t.Context(), Request{Logs: []Want{{Log: store.CatalogLog}}})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	for beats := 0; beats < 3; {
		kind, _, err := readFrame(body)
		if err != nil {
			t.Fatal(err)
		}
		if kind == frameHeartbeat {
			beats++
		}
	}
}

func TestNewEpochBeginsAgain(t *testing.T) {
	s := serve(t, func(c *ServerConfig) { c.Heartbeat = 10 * time.Millisecond })
	log := store.KVLog(links)
	last := s.put("a", "1")
	f, r := s.run(Want{Log: log})
	until(t, "it is there", at(f, log, last))
	epoch, err := s.store.NewEpoch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the new epoch is followed", func() bool { p, _ := f.Position(log); return p.Epoch == epoch && p.Seq >= last })
	if r.resets != 1 || r.String() != "map[a:1]" {
		t.Errorf("%s after %d resets", r, r.resets)
	}
	// Who was away during it begins again, too.
	_, other := s.run(Want{Log: log, Position: Position{Epoch: epoch - 1, Seq: last}})
	until(t, "the other begins again", func() bool { return other.String() == "map[a:1]" })
	if other.resets != 1 {
		t.Errorf("%d resets", other.resets)
	}
}

func TestForgottenDeletionsBeginAgain(t *testing.T) {
	s := serve(t)
	s.store.Close()
	cfg := store.Config{Dir: t.TempDir(), MaxBytes: 1 << 30, Reserve: 1, TombstoneLife: time.Second}
	s.open(cfg)
	log := store.KVLog(links)
	old := s.put("a", "1")
	if _, err := s.store.KV().Delete(t.Context(), links, "a", hostcall.AnyRevision); err != nil {
		t.Fatal(err)
	}
	until(t, "a reopened store has forgotten the deletion", func() bool {
		s.store.Close()
		s.open(cfg)
		_, err := s.store.Read(t.Context(), log, old, store.ReadOptions{Changes: 1, Bytes: 1})
		return errors.Is(err, store.ErrGone)
	})
	s.server.cfg.Source = s.store
	last := s.put("b", "2")
	f, r := s.run(Want{Log: log, Position: Position{Epoch: s.store.Epoch(), Seq: old}})
	until(t, "it is there", at(f, log, last))
	if r.String() != "map[b:2]" || r.resets != 1 {
		t.Errorf("held %s after %d resets", r, r.resets)
	}
}

func TestServerRefuses(t *testing.T) {
	denied := errors.New("not bound to you")
	s := serve(t, func(c *ServerConfig) {
		c.Allow = func(_ context.Context, log string) error {
			if log == "kv/default/secret" {
				return denied
			}
			return nil
		}
	})
	for name, c := range map[string]struct {
		want Want
		why  string
	}{
		"not allowed":    {Want{Log: "kv/default/secret"}, "not bound"},
		"not a log":      {Want{Log: "passwords"}, "PROJECT"},
		"above the head": {Want{Log: store.CatalogLog, Position: Position{s.store.Epoch(), 99}}, "rolled back"},
	} {
		body, err := s.stream(t.Context(), Request{Logs: []Want{c.want}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		kind, payload, err := readFrame(body)
		n, decodeErr := decodeNotice(payload)
		if err != nil || decodeErr != nil || kind != frameNotice || n.Code != noticeRefused || n.Log != c.want.Log || !bytes.Contains([]byte(n.Detail), []byte(c.why)) {
			t.Errorf("%s: frame %d %s, %v", name, kind, payload, err)
		}
		body.Close()
	}
	for name, body := range map[string]string{"not JSON": "{", "nothing": `{"logs":[]}`, "endless": `{"logs":[{"log":"` + string(bytes.Repeat([]byte("x"), maxRequestBytes))} {
		resp, err := s.http.Client().Post(s.http.URL+Path, "application/json", bytes.NewReader([]byte(body)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
}

// Who may no longer have a log is told so, and gets no more of it.
func TestAllowanceEnds(t *testing.T) {
	var denied atomic.Bool
	s := serve(t, func(c *ServerConfig) {
		c.Watermark = 10 * time.Millisecond
		c.Allow = func(context.Context, string) error {
			if denied.Load() {
				return errors.New("no longer bound")
			}
			return nil
		}
	})
	body, err := s.stream(t.Context(), Request{Logs: []Want{{Log: store.KVLog(links)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	s.put("a", "1")
	for kind := frameKind(0); kind != frameNotice; {
		var payload []byte
		if kind, payload, err = readFrame(body); err != nil {
			t.Fatal(err)
		}
		denied.Store(true)
		if kind == frameNotice && !bytes.Contains(payload, []byte("no longer bound")) {
			t.Errorf("notice %s", payload)
		}
	}
}

// A follower that does not read is cut off; the others notice nothing.
func TestSlowFollowerIsCutOff(t *testing.T) {
	s := serve(t, func(c *ServerConfig) { c.WriteLimit = time.Second })
	log := store.KVLog(links)
	body, err := s.stream(t.Context(), Request{Logs: []Want{{Log: log}}})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	f, r := s.run(Want{Log: log})
	value := string(bytes.Repeat([]byte("x"), MaxInline))
	var last uint64
	// More than the transport holds for a stream that is not read.
	for i := range 120 {
		last = s.put(fmt.Sprint(i), value)
	}
	until(t, "it is cut off", func() bool { return s.server.Stats().CutOff >= 1 }) // a machine that stands still may cut off the other too, which comes back
	until(t, "the other has all", at(f, log, last))
	if len(r.values) != 120 {
		t.Errorf("%d values", len(r.values))
	}
	until(t, "its stream is gone", func() bool { return s.server.Stats().Streams == 1 })
}

// A batch that another key sealed, or that was sealed as something else, is no batch.
func TestOnlyTheChangesKeySeals(t *testing.T) {
	s := serve(t)
	payload := encode(t, sample)
	verify := VerifyWith(s.id.Anchor)
	good, err := SealWith(s.id.Changes)(payload)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := verify(good); err != nil || !bytes.Equal(got, payload) {
		t.Fatalf("a good one: %v", err)
	}
	stranger, err := identity.NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]identity.Envelope{
		"a stranger's":    stranger.Sign(PayloadType, payload),
		"the catalog's":   s.id.Catalog.Sign(PayloadType, payload),
		"of another type": s.id.Changes.Sign("application/json", payload),
	} {
		if _, err := verify(e.Encode()); !errors.Is(err, identity.ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := 0; i < len(good); i += 7 {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if _, err := verify(bad); err == nil {
			t.Errorf("byte %d flipped: accepted", i)
		}
	}
}

func TestMemoIsBounded(t *testing.T) {
	m := newMemo()
	for i := range uint64(3 * memoEntries) {
		k := memoKey{log: "l", from: i}
		e := m.entry(k, time.Now(), time.Hour)
		e.sealed = make([]byte, 64<<10)
		m.weigh(k, e)
	}
	if len(m.mu.entries) > memoEntries || m.mu.bytes > memoBytes+64<<10 || m.mu.bytes < 0 {
		t.Errorf("%d entries of %d bytes", len(m.mu.entries), m.mu.bytes)
	}
}

// batches notes what it is told.
type batches struct {
	mu   sync.Mutex
	list []*Batch
}

func (s *batches) Reset(context.Context, string, uint64) error { return nil }

func (s *batches) Apply(_ context.Context, b *Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, b)
	return nil
}

// A page with more behind it says how far the log had come and nothing of the time, however
// long ago its last change was made: only what is everything says when it was.
func TestPagesSayNothingOfTheTime(t *testing.T) {
	s := serve(t, func(c *ServerConfig) { c.Changes = 3 })
	log := store.KVLog(links)
	var head uint64
	for i := range 8 {
		head = s.put(fmt.Sprint("k", i), "v")
	}
	until(t, "the log has all", func() bool { h, _ := s.store.Head(log); return h >= head })
	told, began := &batches{}, time.Now().Truncate(time.Millisecond)
	f := NewFollower(FollowerConfig{Open: s.stream, Verify: VerifyWith(s.id.Anchor), Sink: told})
	f.Follow(Want{Log: log})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	until(t, "all is there", at(f, log, head))
	cancel()
	<-done
	if len(told.list) < 3 {
		t.Fatalf("%d batches of at most 3 changes for 8", len(told.list))
	}
	for i, b := range told.list {
		switch {
		case i < 2 && (!b.At.IsZero() || b.Head != head || len(b.Changes) != 3):
			t.Errorf("page %d, of %d changes to %d, is of %v with head %d", i, len(b.Changes), b.To, b.At, b.Head)
		case i >= 2 && (b.At.Before(began) || b.Head != 0):
			t.Errorf("batch %d is of %v with head %d", i, b.At, b.Head)
		}
	}
}

// older follows as a node does whose batches are of version 2 at most, and returns what its sink and events are told.
func (s *served) older(open func(context.Context, Request) (io.ReadCloser, error), want Want) (*batches, *Follower, func(EventKind) int) {
	s.Helper()
	told := &batches{}
	var mu sync.Mutex
	happened := map[EventKind]int{}
	verify := VerifyWith(s.id.Anchor)
	f := NewFollower(FollowerConfig{
		Open: func(ctx context.Context, r Request) (io.ReadCloser, error) {
			r.Reads = 0
			return open(ctx, r)
		},
		Verify: func(sealed []byte) ([]byte, error) {
			payload, err := verify(sealed)
			if err == nil && payload[0] > batchMetadata {
				s.Errorf("it is sent a batch of version %d", payload[0])
				return nil, ErrBatch
			}
			return payload, err
		},
		Sink: told,
		OnEvent: func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			happened[e.Kind]++
		},
	})
	f.Follow(want)
	ctx, cancel := context.WithCancel(s.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	s.Cleanup(func() { cancel(); <-done })
	return told, f, func(k EventKind) int {
		mu.Lock()
		defer mu.Unlock()
		return happened[k]
	}
}

// A node of before that cannot read pages is sent none, and nothing that is not so: in a namespace of which
// it missed more than one batch can say it begins again, or is told to be upgraded. The catalog it
// has in pages that do not say so, as it always had.
func TestOlderNodesFollowOn(t *testing.T) {
	s := serve(t, func(c *ServerConfig) { c.Changes = 3 })
	log := store.KVLog(links)
	var head, catalog uint64
	for i := range 8 {
		head = s.put(fmt.Sprint("k", i), "v")
		var err error
		if catalog, err = s.store.AppendCatalog(t.Context(), fmt.Sprint("c", i), []byte("v"), catalog); err != nil {
			t.Fatal(err)
		}
	}
	heads := func(log string, want uint64) func() bool {
		return func() bool { h, _ := s.store.Head(log); return h >= want }
	}
	until(t, "the logs have all", heads(log, head))
	until(t, "the logs have all", heads(store.CatalogLog, catalog))
	epoch := s.store.Epoch()

	told, f, happened := s.older(s.stream, Want{Log: log, Position: Position{epoch, 1}, Tail: true})
	until(t, "one that forgets begins again at the head", at(f, log, head))
	if n := happened(Resync); n != 1 {
		t.Errorf("it began again %d times", n)
	}
	last := s.put("k9", "v")
	until(t, "it goes on", at(f, log, last))
	told.mu.Lock()
	for _, b := range told.list {
		if b.From < head {
			t.Errorf("told of (%d,%d], which is no batch", b.From, b.To)
		}
	}
	told.mu.Unlock()

	_, f, happened = s.older(s.stream, Want{Log: log, Position: Position{epoch, 1}})
	until(t, "one that wants all is told why it cannot be", func() bool { return happened(Refused) > 0 })
	if _, ok := f.Position(log); ok || happened(Resync) != 1 {
		t.Error("it stays where it was")
	}

	told, f, _ = s.older(s.stream, Want{Log: store.CatalogLog})
	until(t, "the catalog comes", at(f, store.CatalogLog, catalog))
	n := 0
	told.mu.Lock()
	for _, b := range told.list {
		n += len(b.Changes)
	}
	told.mu.Unlock()
	if n != 8 {
		t.Errorf("%d of 8 records came", n)
	}
}

// A relay sends a node of before to control where it has a page for it.
func TestOlderNeighboursAreSentToControl(t *testing.T) {
	r := NewRelay(RelayConfig{
		Allow:  func(context.Context, string) error { return nil },
		Serves: func(string) error { return nil },
	})
	page := span("l", 1, 0, 5, 3)
	page.Head = 9
	for _, b := range []Batch{page, span("l", 1, 5, 9, 7)} {
		r.keep(&b, encode(t, b))
	}
	for name, c := range map[string]struct {
		p    place
		want int
		ok   bool
	}{
		"one of before at the beginning":  {place{none: true, plain: true}, 0, false},
		"one of before behind a page":     {place{Position: Position{1, 2}, plain: true}, 0, false},
		"one of before after the page":    {place{Position: Position{1, 5}, plain: true}, 1, true},
		"one of before that forgets":      {place{none: true, tail: true, plain: true}, 1, true},
		"one that reads pages":            {place{Position: Position{1, 2}}, 2, true},
		"one that reads them, from the 0": {place{none: true}, 1, true},
	} {
		if next, ok := r.mu.logs["l"].after(&c.p, 1<<20); ok != c.ok || ok && len(next) != c.want {
			t.Errorf("%s: %d batches, %v", name, len(next), ok)
		}
	}
}

// busy is a store that is written to whenever a read of it has found nothing, a few times.
type busy struct {
	*store.Store
	write func()
	left  atomic.Int64
}

func (b *busy) Read(ctx context.Context, log string, after uint64, o store.ReadOptions) (store.Page, error) {
	p, err := b.Store.Read(ctx, log, after, o)
	if err == nil && after > 0 && len(p.Changes) == 0 && p.More == 0 && b.left.Add(-1) >= 0 {
		b.write()
	}
	return p, err
}

// Who opened a stream is told that it has everything also where the log changes meanwhile, and
// need not wait for a moment in which a watermark finds it quiet.
func TestABusyLogHasAnEndToo(t *testing.T) {
	source := &busy{}
	s := serve(t, func(c *ServerConfig) {
		source.Store = c.Source.(*store.Store)
		c.Source, c.Watermark = source, time.Hour
	})
	log := store.KVLog(links)
	put := func() {
		rev := s.put("k", "v")
		until(t, "the log has it", func() bool { h, _ := s.store.Head(log); return h >= rev })
	}
	put()
	source.write = put
	source.left.Store(3)
	told := &batches{}
	f := NewFollower(FollowerConfig{Open: s.stream, Verify: VerifyWith(s.id.Anchor), Sink: told})
	f.Follow(Want{Log: log})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	until(t, "the end is told", func() bool {
		told.mu.Lock()
		defer told.mu.Unlock()
		return len(told.list) > 0 && told.list[len(told.list)-1].Ends()
	})
	cancel()
	<-done
}
