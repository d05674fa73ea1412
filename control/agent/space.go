package agent

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// spaces follows the change streams of the namespaces that releases bind, and
// keeps the node's KV fresh by them. They share a stream of their own, so that
// busy namespaces do not hold up the catalog.
type spaces struct {
	kv       Namespaces
	follower *changes.Follower
	mu       struct {
		sync.Mutex // held while changes are applied: none must come after Forget
		byLog      map[string]hostcall.Namespace
	}
}

var _ changes.Sink = (*spaces)(nil)

func newSpaces[F Function](c Config[F], p *pop, r *changes.Relay) *spaces {
	s := &spaces{kv: c.KV}
	s.mu.byLog = map[string]hostcall.Namespace{}
	s.follower = changes.NewFollower(changes.FollowerConfig{
		Open: openStream(c.Control), Neighbours: p, Relay: r, Verify: changes.VerifyWith(c.Trust), Sink: s,
		OnEvent: func(e changes.Event) { c.OnEvent(streamEvent("kv", e)) },
	})
	return s
}

func (s *spaces) run(ctx context.Context) { _ = s.follower.Run(ctx) } // returns ctx's error only

// logOf names a namespace's log.
func logOf(ns hostcall.Namespace) string { return "kv/" + ns.Project + "/" + ns.Name }

// want follows exactly these namespaces. What is new begins at the head: the
// node has nothing of it that could be stale.
func (s *spaces) want(list []catalog.Namespace) {
	wanted, limits := map[string]hostcall.Namespace{}, map[string]time.Duration{}
	for _, n := range list {
		ns := hostcall.Namespace{Project: n.Project, Name: n.Name}
		wanted[logOf(ns)], limits[logOf(ns)] = ns, n.MaxStale()
	}
	s.mu.Lock()
	var gone []string
	for log, ns := range s.mu.byLog {
		if _, still := wanted[log]; !still {
			delete(s.mu.byLog, log)
			s.kv.Forget(ns)
			gone = append(gone, log)
		}
	}
	var more []changes.Want
	for log, ns := range wanted {
		if _, have := s.mu.byLog[log]; !have {
			s.mu.byLog[log] = ns
			more = append(more, changes.Want{Log: log, Tail: true})
		}
		s.kv.Limit(ns, limits[log])
	}
	s.mu.Unlock()
	slices.SortFunc(more, func(a, b changes.Want) int { return strings.Compare(a.Log, b.Log) })
	if len(gone) > 0 {
		s.follower.Unfollow(gone...)
	}
	if len(more) > 0 {
		s.follower.Follow(more...)
	}
}

func (s *spaces) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.byLog)
}

// Reset implements changes.Sink.
func (s *spaces) Reset(_ context.Context, log string, _ uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ns, ok := s.mu.byLog[log]; ok {
		s.kv.Reset(ns)
	}
	return nil
}

// Apply implements changes.Sink.
func (s *spaces) Apply(_ context.Context, b *changes.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ns, ok := s.mu.byLog[b.Log]; ok {
		s.kv.Apply(ns, changesOf(b))
	}
	return nil
}

func changesOf(b *changes.Batch) kv.Changes {
	out := kv.Changes{Epoch: b.Epoch, From: b.From, To: b.To, At: b.At}
	for i := range b.Changes {
		c := &b.Changes[i]
		k := kv.Change{Key: c.Key, Revision: c.Seq, Gone: c.Op != changes.Put, Metadata: append([]byte(nil), c.Metadata...), Expires: c.Expires}
		if c.Inline() {
			k.Value = append([]byte{}, c.Value...) // a copy: the batch's bytes are all one piece
		}
		out.List = append(out.List, k)
	}
	return out
}
