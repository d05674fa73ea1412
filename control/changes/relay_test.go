package changes

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/store"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// street is the neighbourhood of some followers of one store: each with a relay
// that the others reach. The first that lives is everyone's parent.
type street struct {
	*served
	mu     sync.Mutex
	houses []*house
	allow  func(log string) error
}

// house is one of the street's followers.
type house struct {
	*Follower
	*replica
	street *street
	name   string
	relay  *Relay
	http   *httptest.Server
	stop   func()
	mu     sync.Mutex
	blamed map[string]error
}

// Parent implements Neighbourhood.
func (h *house) Parent(string) string {
	h.street.mu.Lock()
	defer h.street.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.street.houses {
		switch {
		case o == h:
			return ""
		case h.blamed[o.name] == nil:
			return o.name
		}
	}
	return ""
}

// Blame implements Neighbourhood.
func (h *house) Blame(name string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.blamed[name] = err
}

// Open implements Neighbourhood.
func (h *house) Open(ctx context.Context, name string, r Request) (io.ReadCloser, error) {
	h.street.mu.Lock()
	i := slices.IndexFunc(h.street.houses, func(o *house) bool { return o.name == name })
	at := h.street.houses[i].http
	h.street.mu.Unlock()
	return openAt(ctx, at, r)
}

func openAt(ctx context.Context, at *httptest.Server, r Request) (io.ReadCloser, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", at.URL+Path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	resp, err := at.Client().Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, errors.New(resp.Status)
	}
	return resp.Body, nil
}

// move builds one more house, which follows wants.
func (s *street) move(wants ...Want) *house {
	s.Helper()
	h := &house{street: s, name: fmt.Sprint("house-", len(s.houses)), replica: &replica{values: map[string]string{}}, blamed: map[string]error{}}
	h.relay = NewRelay(RelayConfig{Beat: 50 * time.Millisecond,
		Allow:  func(_ context.Context, log string) error { return s.allowed(log) },
		Serves: func(log string) error { return h.Leads(log) }})
	h.Follower = NewFollower(FollowerConfig{Open: s.stream, Neighbours: h, Verify: VerifyWith(s.id.Anchor), Sink: h.replica, Relay: h.relay,
		MinBackoff: time.Millisecond, MaxBackoff: 50 * time.Millisecond})
	h.http = httptest.NewUnstartedServer(h.relay)
	h.http.EnableHTTP2 = true
	h.http.StartTLS()
	h.Follow(wants...)
	ctx, cancel := context.WithCancel(s.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Run(ctx)
	}()
	h.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		h.http.CloseClientConnections()
		h.http.Close()
	})
	s.Cleanup(h.stop)
	s.mu.Lock()
	s.houses = append(s.houses, h)
	s.mu.Unlock()
	return h
}

func (s *street) allowed(log string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.allow == nil {
		return nil
	}
	return s.allow(log)
}

// control is how many streams control serves.
func (s *street) control() int64 { return s.server.Stats().Streams }

// One node of a neighbourhood follows control, the others follow it, many logs on
// one stream; when it dies the next takes over, and nothing is lost or applied twice.
func TestNeighboursFollowOneOfThem(t *testing.T) {
	s := &street{served: serve(t, func(c *ServerConfig) { c.Watermark = 100 * time.Millisecond })}
	more := hostcall.Namespace{Project: "default", Name: "more"}
	logs := []string{store.KVLog(links), store.KVLog(more)}
	wants := []Want{{Log: logs[0]}, {Log: logs[1], Tail: true}}
	put := func(ns hostcall.Namespace, key, value string) uint64 {
		t.Helper()
		rev, err := s.store.KV().Put(t.Context(), ns, key, []byte(value), hostcall.PutOptions{IfRevision: hostcall.AnyRevision})
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	first := s.move(wants...)
	put(links, "a", "1")
	until(t, "the first has the first", at(first.Follower, logs[0], 1))
	second, third := s.move(wants...), s.move(wants...)
	all := func(houses ...*house) {
		t.Helper()
		rev := put(links, "b", fmt.Sprint(time.Now()))
		last := put(more, "c", fmt.Sprint(time.Now()))
		for _, h := range houses {
			until(t, h.name+" has the one log", at(h.Follower, logs[0], rev))
			until(t, h.name+" has the other", at(h.Follower, logs[1], last))
		}
	}
	all(first, second, third)
	until(t, "one stream at control, two at the first", func() bool {
		return s.control() == 1 && first.relay.Stats().Streams == 2 && second.relay.Stats().Streams == 0
	})
	all(first, second, third)
	if got := s.control(); got != 1 {
		t.Errorf("%d streams at control", got)
	}

	begin := time.Now()
	first.stop()
	all(second, third)
	t.Logf("after the first died, the others had the next change within %v", time.Since(begin))
	until(t, "the second follows control, the third the second", func() bool {
		return s.control() == 1 && second.relay.Stats().Streams == 1
	})
	all(second, third)
	for _, h := range []*house{second, third} {
		if h.resets != 0 {
			t.Errorf("%s began again %d times", h.name, h.resets)
		}
		if h.values["a"] != "1" || h.values["b"] != second.values["b"] {
			t.Errorf("%s holds %v", h.name, h.values)
		}
	}
}

// What a neighbour may not have it does not get, also when that changes while it follows.
func TestRelaysHoldBackWhatTheNeighbourMayNotHave(t *testing.T) {
	s := &street{served: serve(t)}
	log := store.KVLog(links)
	first := s.move(Want{Log: log})
	second := s.move(Want{Log: log})
	s.put("a", "1")
	until(t, "the second has it from the first", func() bool { return first.relay.Stats().Streams == 1 && second.String() == first.String() })
	s.mu.Lock()
	s.allow = func(log string) error { return errors.New("no live release binds it") }
	s.mu.Unlock()
	until(t, "the first ends it", func() bool { return first.relay.Stats().Streams == 0 })
	body, err := openAt(t.Context(), first.http, Request{Logs: []Want{{Log: log}}})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	kind, payload, err := readFrame(body)
	if err != nil || kind != frameNotice || !strings.Contains(string(payload), "no live release binds it") {
		t.Errorf("a new stream: %d %q %v", kind, payload, err)
	}
}

// A neighbour that does not read is cut off, and costs the relay nothing that grows.
func TestRelayCutsOffTheSlow(t *testing.T) {
	r := NewRelay(RelayConfig{WriteLimit: 200 * time.Millisecond, WindowBytes: 64 << 20, Bytes: 64 << 20,
		Allow: func(context.Context, string) error { return nil }, Serves: func(string) error { return nil }})
	srv := httptest.NewUnstartedServer(r)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	body, err := openAt(t.Context(), srv, Request{Logs: []Want{{Log: "l"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	var seq uint64
	until(t, "it is cut off", func() bool {
		if r.Stats().Bytes < 32<<20 {
			r.keep(&Batch{Log: "l", Epoch: 1, From: seq, To: seq + 1}, make([]byte, 1<<20))
			seq++
		}
		return r.Stats().CutOff == 1
	})
	until(t, "its stream is gone", func() bool { return r.Stats().Streams == 0 })
}

// Which part of a window a follower gets, by where it stands.
func TestWindows(t *testing.T) {
	now := time.Unix(1000, 0)
	mark := func(seq uint64) Batch { return Batch{From: seq, To: seq} }
	b := func(from, to uint64) Batch { return Batch{From: from, To: to} }
	for name, c := range map[string]struct {
		batches []Batch
		place   place
		want    string // "below", or the batches
	}{
		"nothing yet":                 {nil, place{Position: Position{1, 7}}, ""},
		"continues":                   {[]Batch{b(0, 5), b(5, 9)}, place{Position: Position{1, 5}}, "5-9"},
		"has all":                     {[]Batch{b(0, 5), b(5, 9)}, place{Position: Position{1, 9}, at: now.Add(time.Hour)}, ""},
		"in the middle of one":        {[]Batch{b(0, 5), b(5, 9)}, place{Position: Position{1, 7}}, "5-9"},
		"ahead":                       {[]Batch{b(0, 5)}, place{Position: Position{1, 8}}, ""},
		"ahead of who catches up":     {[]Batch{{To: 5, Head: 9}}, place{Position: Position{1, 8}}, "below"},
		"beside who catches up":       {[]Batch{{To: 5, Head: 9}}, place{Position: Position{1, 5}}, ""},
		"the tail of one that is not": {[]Batch{{To: 5, Head: 9}}, place{none: true, tail: true}, "below"},
		"after who has caught up":     {[]Batch{{To: 5, Head: 9}, b(5, 9)}, place{Position: Position{1, 8}}, "5-9"},
		"below":                       {[]Batch{b(3, 5), b(5, 9)}, place{Position: Position{1, 2}}, "below"},
		"another epoch":               {[]Batch{b(0, 5)}, place{Position: Position{2, 2}}, "below"},
		"nothing, from the start":     {[]Batch{b(0, 5), b(5, 9)}, place{none: true}, "0-5"},
		"nothing, not at the start":   {[]Batch{b(3, 5)}, place{none: true}, "below"},
		"nothing, at the tail":        {[]Batch{b(3, 5), b(5, 9)}, place{none: true, tail: true}, "5-9"},
		"a newer statement":           {[]Batch{b(0, 5), mark(5)}, place{Position: Position{1, 5}, at: now}, "5-5"},
		"only the newest statement":   {[]Batch{b(0, 5), mark(5), mark(5), mark(5), b(5, 6)}, place{Position: Position{1, 0}}, "0-5 5-5 5-6"},
		"one that does not fit":       {[]Batch{b(0, 5), b(7, 9)}, place{Position: Position{1, 5}}, "below"},
		"one that comes again":        {[]Batch{b(0, 5), b(5, 9), b(0, 5)}, place{Position: Position{1, 0}}, "0-5 5-9"},
		"more than is kept":           {[]Batch{b(0, 1), b(1, 2), b(2, 3), b(3, 4), b(4, 5), b(5, 6)}, place{Position: Position{1, 0}}, "below"},
		"the last that is kept":       {[]Batch{b(0, 1), b(1, 2), b(2, 3), b(3, 4), b(4, 5), b(5, 6)}, place{Position: Position{1, 2}}, "2-3 3-4 4-5 5-6"},
	} {
		r := NewRelay(RelayConfig{WindowBatches: 4})
		for i, b := range c.batches {
			b.Log, b.Epoch, b.At = "l", cmp.Or(b.Epoch, 1), now.Add(time.Duration(i)*time.Second)
			r.keep(&b, []byte("x"))
		}
		next, ok := r.window("l").after(&c.place, relayStep)
		got := "below"
		if ok {
			var all []string
			for _, h := range next {
				all = append(all, fmt.Sprintf("%d-%d", h.from, h.to))
			}
			got = strings.Join(all, " ")
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// However many logs there are, the relay holds no more than it may.
func TestRelayIsBounded(t *testing.T) {
	r := NewRelay(RelayConfig{WindowBytes: 1000, Bytes: 5000})
	for i := range 10_000 {
		log, seq := fmt.Sprint("l", i%100), uint64(i/100)
		r.keep(&Batch{Log: log, Epoch: 1, From: seq, To: seq + 1}, make([]byte, 90))
		if got := r.Stats().Bytes; got > 5000 {
			t.Fatalf("%d bytes after %d batches", got, i)
		}
	}
	sum := 0
	for _, w := range r.mu.logs {
		for _, h := range w.held {
			sum += len(h.sealed)
		}
	}
	if got := r.Stats().Bytes; sum != got || r.mu.order.Len() != sum/90 || sum < 4900 {
		t.Errorf("%d bytes held, %d counted, %d in order", sum, got, r.mu.order.Len())
	}
	for i := range 100 {
		r.forget(fmt.Sprint("l", i))
	}
	if got := r.Stats().Bytes; got != 0 || len(r.mu.logs) != 0 || r.mu.order.Len() != 0 {
		t.Errorf("after all was forgotten: %d bytes, %d logs", got, len(r.mu.logs))
	}
}
