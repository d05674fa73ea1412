package logs

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/edge/telemetry"
)

func newMerger(p *pool) *merger { return &merger{pool: p, queues: map[string]*queue{}} }

func line(node, text string) telemetry.Line {
	return telemetry.Line{Kind: telemetry.KindFunction, Node: node, Text: text, Time: time.Now()}
}

func (m *merger) says(node, text string) { m.add(Node{Name: node}, line(node, text)) }

// told gathers what m tells: texts by node, and how many lines of it were dropped.
func (m *merger) told(t *testing.T) (texts map[string][]string, dropped map[string]int) {
	t.Helper()
	texts, dropped = map[string][]string{}, map[string]int{}
	if err := m.tell(0, func(all []telemetry.Line) error {
		for _, l := range all {
			if l.Kind == telemetry.KindDropped {
				dropped[l.Node] += l.Dropped
			} else {
				texts[l.Node] = append(texts[l.Node], l.Text)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return texts, dropped
}

// A node that floods loses its own oldest lines, and is told of; others lose none.
func TestFloodingNodeLosesItsOwn(t *testing.T) {
	p := &pool{most: poolBytes}
	m := newMerger(p)
	const lines = 4000
	big := strings.Repeat("x", 10<<10)
	for i := range lines {
		m.says("loud", big)
		if i%100 == 0 {
			m.says("quiet", "heard")
		}
		if m.bytes > followerBytes {
			t.Fatalf("%d bytes are held", m.bytes)
		}
	}
	if m.bytes < followerBytes-20<<10 {
		t.Errorf("only %d bytes are used", m.bytes)
	}
	texts, dropped := m.told(t)
	if len(texts["quiet"]) != lines/100 || dropped["quiet"] != 0 {
		t.Errorf("the quiet node: %d lines, %d dropped", len(texts["quiet"]), dropped["quiet"])
	}
	if got := len(texts["loud"]) + dropped["loud"]; got != lines || dropped["loud"] == 0 {
		t.Errorf("the loud node: %d lines and %d dropped, of %d", len(texts["loud"]), dropped["loud"], lines)
	}
	if m.bytes != 0 || p.used.Load() != 0 {
		t.Errorf("after it: %d bytes, %d of the pool", m.bytes, p.used.Load())
	}
}

// Followers that fill the pool leave each other the reserve.
func TestFullPoolLeavesReserves(t *testing.T) {
	p := &pool{most: 2 << 20}
	greedy, late := newMerger(p), newMerger(p)
	text := strings.Repeat("x", 4<<10)
	for range 2000 {
		greedy.says("a", text)
	}
	for range 2000 {
		late.says("a", text)
	}
	if greedy.bytes > reserveBytes+2<<20 || greedy.bytes < 2<<20 {
		t.Errorf("the first holds %d bytes", greedy.bytes)
	}
	if late.bytes > reserveBytes+64<<10 || late.bytes < reserveBytes-64<<10 {
		t.Errorf("the second holds %d bytes", late.bytes)
	}
	if _, dropped := late.told(t); dropped["a"] == 0 {
		t.Error("nothing tells that lines were dropped")
	}
	greedy.close()
	if n := p.used.Load(); n != 0 {
		t.Errorf("%d bytes of the pool are not given back", n)
	}
}

// Lines count as held while they are told.
func TestHeldWhileTold(t *testing.T) {
	p := &pool{most: poolBytes}
	m := newMerger(p)
	for range 1000 {
		m.says("a", strings.Repeat("x", 4<<10))
	}
	before, used := m.bytes, p.used.Load()
	broken := errors.New("broken")
	if err := m.tell(10, func(all []telemetry.Line) error {
		if len(all) != 10 || m.bytes != before || p.used.Load() != used {
			t.Errorf("%d lines, %d bytes of %d", len(all), m.bytes, before)
		}
		return broken
	}); !errors.Is(err, broken) {
		t.Error(err)
	}
	if m.bytes != 0 || p.used.Load() != 0 {
		t.Errorf("after it: %d bytes, %d of the pool", m.bytes, p.used.Load())
	}
}

func TestOrderOfTelling(t *testing.T) {
	m := newMerger(&pool{most: poolBytes})
	now := time.Now()
	for i, at := range []time.Duration{3, 1, 2, time.Hour} {
		l := line(fmt.Sprint("n", i%2), fmt.Sprint(at))
		l.Time = now.Add(at)
		m.add(Node{Name: l.Node}, l)
	}
	var got []string
	out := func(all []telemetry.Line) error {
		for _, l := range all {
			got = append(got, l.Text)
		}
		return nil
	}
	if err := m.tellBefore(now.Add(time.Minute), out); err != nil {
		t.Fatal(err)
	}
	// All came before then, what its node says is to come too.
	if want := "1ns 2ns 3ns 1h0m0s"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// One token has its part of the followers, and leaves others theirs.
func TestFollowersOfATokenAndInAll(t *testing.T) {
	h := &Hub{}
	h.mu.per = map[string]int{}
	for i := range mostFollows {
		who := fmt.Sprint("token", i/tokenFollows)
		if err := h.enter(who); err != nil {
			t.Fatal(i, err)
		}
		if i%tokenFollows == tokenFollows-1 {
			if err := h.enter(who); !errors.Is(err, ErrToken) {
				t.Errorf("one more of %s: %v", who, err)
			}
		}
	}
	if err := h.enter("another"); !errors.Is(err, ErrBusy) {
		t.Errorf("one more in all: %v", err)
	}
	h.leave("token0")
	if err := h.enter("another"); err != nil {
		t.Error(err)
	}
	for range tokenFollows - 1 {
		h.leave("token0")
	}
	if _, there := h.mu.per["token0"]; there {
		t.Error("a token without followers is remembered")
	}
}

// A node that sends as fast as it can, with lines of all lengths, fills a following to
// its budget and no further; a line of another node comes through.
func TestFloodThroughReaders(t *testing.T) {
	h := &Hub{pool: pool{most: poolBytes}}
	var bytes, dropped int
	heard := false
	f := h.following(Query{Follow: true}, nil)
	f.out = func(all []telemetry.Line) error {
		bytes = max(bytes, f.held.bytes)
		for _, l := range all {
			heard = heard || l.Node == "quiet" && l.Text == "heard"
			dropped += l.Dropped
		}
		return nil
	}
	ctx := t.Context()
	const lines = 6000
	go func() {
		loud := &reader{node: Node{Name: "loud"}}
		in, out := io.Pipe()
		go func() {
			for i := range lines {
				fmt.Fprintf(out, `{"kind":"function","level":"INFO","time":%q,"msg":%q}`+"\n", time.Now().Format(time.RFC3339Nano), strings.Repeat("x", i*7%9000))
			}
			out.Close()
		}()
		err := loud.lines(ctx, f, in)
		f.news <- arrival{from: loud, end: true, err: err}
	}()
	go func() {
		text := fmt.Sprintf(`{"kind":"function","level":"INFO","time":%q,"msg":"heard"}`+"\n", time.Now().Format(time.RFC3339Nano))
		quiet := &reader{node: Node{Name: "quiet"}}
		f.news <- arrival{from: quiet, end: true, err: quiet.lines(ctx, f, strings.NewReader(text))}
	}()
	for ended := 0; ended < 2; {
		a := <-f.news
		if f.take(a); a.end {
			if ended++; a.err != nil {
				t.Error(a.err)
			}
		}
		if f.held.bytes > followerBytes || h.pool.used.Load() > poolBytes {
			t.Fatalf("%d bytes are held, %d of the pool", f.held.bytes, h.pool.used.Load())
		}
	}
	if err := f.held.tell(0, f.out); err != nil {
		t.Fatal(err)
	}
	if !heard || dropped == 0 || bytes < followerBytes/2 {
		t.Errorf("the quiet node was heard: %v; %d lines were dropped, at %d bytes", heard, dropped, bytes)
	}
	if f.held.bytes != 0 || h.pool.used.Load() != 0 {
		t.Errorf("after it: %d bytes, %d of the pool", f.held.bytes, h.pool.used.Load())
	}
}
