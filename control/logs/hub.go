package logs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/edge/telemetry"
)

// Node is one node whose log may be asked for.
type Node struct {
	Name, PoP string
	Peer      string // host:port of its peer listener
	Alive     bool
}

// Config says whom a Hub asks.
type Config struct {
	Member *identity.Member // this control node's identity; required
	Nodes  func() []Node    // as they are now; required
}

// Hub gathers nodes' logs.
type Hub struct {
	cfg  Config
	pool pool
	mu   struct {
		sync.Mutex
		all int
		per map[string]int // by who follows
	}
}

// What a follower is refused with: too many follow already, or too many of its own token.
var (
	ErrBusy  = fmt.Errorf("%d follow the fleet's logs here, which is all that may", mostFollows)
	ErrToken = fmt.Errorf("%d follow the fleet's logs with this token, which is all that may", tokenFollows)
)

// New returns a hub, which does nothing until somebody follows.
func New(c Config) (*Hub, error) {
	if c.Member == nil || c.Nodes == nil {
		return nil, errors.New("logs: a hub needs a member and nodes")
	}
	h := &Hub{cfg: c, pool: pool{most: poolBytes}}
	h.mu.per = map[string]int{}
	return h, nil
}

// enter counts who in, unless too many follow.
func (h *Hub) enter(who string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.mu.per[who] >= tokenFollows:
		return ErrToken
	case h.mu.all >= mostFollows:
		return ErrBusy
	}
	h.mu.all++
	h.mu.per[who]++
	return nil
}

func (h *Hub) leave(who string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.all--
	if h.mu.per[who]--; h.mu.per[who] == 0 {
		delete(h.mu.per, who)
	}
}

// Times of a following.
const (
	pastLimit  = 3 * time.Second        // how long the past is waited for
	window     = 400 * time.Millisecond // lines that come within it are put in order
	step       = 100 * time.Millisecond // between two tellings
	lookEvery  = 2 * time.Second        // for nodes that came or went
	nodesAtAll = 1000
)

// following is one Follow under way.
type following struct {
	hub     *Hub
	q       Query
	out     func([]telemetry.Line) error
	news    chan arrival
	readers map[string]*reader // by node
	past    int                // readers whose past is still told
	held    merger
}

// arrival is what a reader has to say.
type arrival struct {
	from *reader
	line telemetry.Line
	end  bool // of the reader; err says why
	err  error
}

// Follow tells out of the lines of all nodes that q wants, in the order of their
// times as far as they come within a moment of one another: first of the past, then,
// with q.Follow, of what comes, until ctx ends. An out that is told of no line is
// asked whether anybody is still there; it does not keep them. Out's error ends it, and
// is returned. Who is the token's ID: of one token not many may follow (ErrToken), and
// not many in all (ErrBusy).
func (h *Hub) Follow(ctx context.Context, who string, q Query, out func([]telemetry.Line) error) error {
	if err := h.enter(who); err != nil {
		return err
	}
	defer h.leave(who)
	ctx, cancel := context.WithCancel(ctx)
	f := h.following(q, out)
	defer f.held.close()
	defer f.join()
	defer cancel()
	f.look(ctx, true)
	if err := f.tellPast(ctx); err != nil || !q.Follow {
		return err
	}
	return f.tellNews(ctx)
}

func (h *Hub) following(q Query, out func([]telemetry.Line) error) *following {
	return &following{hub: h, q: q, out: out, readers: map[string]*reader{}, held: merger{pool: &h.pool, queues: map[string]*queue{}},
		// Without a buffer: it would hold lines that nobody counts, and readers that wait
		// are let in by turns, however fast their nodes are.
		news: make(chan arrival)}
}

// join waits for the readers; their context has ended.
func (f *following) join() {
	for _, r := range f.readers {
		<-r.done
	}
}

// look starts readers of nodes that are new, and of those whose reader ended.
func (f *following) look(ctx context.Context, first bool) {
	for _, n := range f.hub.cfg.Nodes() {
		if f.q.PoP != "" && n.PoP != f.q.PoP || n.Peer == "" || len(f.readers) >= nodesAtAll {
			continue
		}
		had := f.readers[n.Name]
		switch {
		case had != nil && !had.ended, !n.Alive && had != nil:
			continue
		case !n.Alive:
			f.note(n, "is away: what it logs is missing here")
			had = &reader{node: n, ended: true, silent: true, done: make(chan struct{})}
			close(had.done)
			f.readers[n.Name] = had
			continue
		case had == nil && !first:
			f.note(n, "came: what it logs is here from now on")
		}
		if had != nil {
			<-had.done
		}
		f.readers[n.Name] = startReader(ctx, f, n, had)
		if first {
			f.past++
		}
	}
}

// note tells the follower something about a node.
func (f *following) note(n Node, text string) {
	f.held.add(n, telemetry.Line{Time: time.Now().UTC(), Level: slog.LevelWarn, Kind: telemetry.KindNote, PoP: n.PoP, Node: n.Name, Text: n.Name + " " + text})
}

// take is what an arrival means.
func (f *following) take(a arrival) {
	switch {
	case a.end:
		a.from.ended = true
		f.pastTold(a.from)
		if a.err != nil && !a.from.silent {
			f.note(a.from.node, fmt.Sprintf("is not heard: %v", a.err))
			a.from.silent = true
		}
	case a.line.Kind == telemetry.KindLive:
		f.pastTold(a.from)
		if a.from.silent {
			f.note(a.from.node, "is heard again")
			a.from.silent = false
		}
	default:
		f.held.add(a.from.node, a.line)
	}
}

func (f *following) pastTold(r *reader) {
	if !r.told {
		r.told = true
		f.past--
	}
}

// tellPast waits until every node told its past, or has had the time to.
func (f *following) tellPast(ctx context.Context) error {
	limit := time.NewTimer(pastLimit)
	defer limit.Stop()
	for late := false; f.past > 0 && !late; {
		select {
		case a := <-f.news:
			f.take(a)
		case <-limit.C:
			late = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, r := range f.readers {
		if !r.told && !r.ended {
			f.note(r.node, "has not told its past in time")
			f.pastTold(r)
		}
	}
	newest := MaxTail
	if f.q.Tail > 0 && f.q.Since > 0 {
		newest = f.q.Tail
	}
	return f.held.tell(newest, f.out)
}

// tellNews goes on until ctx ends.
func (f *following) tellNews(ctx context.Context) error {
	tick, look := time.NewTicker(step), time.NewTicker(lookEvery)
	defer tick.Stop()
	defer look.Stop()
	for {
		select {
		case a := <-f.news:
			f.take(a)
		case now := <-tick.C:
			if err := f.held.tellBefore(now.Add(-window), f.out); err != nil {
				return err
			}
		case <-look.C:
			f.look(ctx, false)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
