package api

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/report"
)

// board holds the last report of every node.
type board struct {
	mu struct {
		sync.Mutex
		reports map[string]posted
		news    chan struct{} // closed and replaced with every report
	}
}

type posted struct {
	report.Report
	received time.Time // on this node's clock
}

func newBoard() *board {
	b := &board{}
	b.mu.reports = make(map[string]posted)
	b.mu.news = make(chan struct{})
	return b
}

// post takes a report; the one before is returned.
func (b *board) post(p posted) (before posted) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before = b.mu.reports[p.Node]
	b.mu.reports[p.Node] = p
	close(b.mu.news)
	b.mu.news = make(chan struct{})
	return before
}

// drains notes what a node just said outside of its reports.
func (b *board) drains(node string, draining bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, ok := b.mu.reports[node]; ok {
		p.Draining = draining
		b.mu.reports[node] = p
	}
}

// changed returns what is closed by the next report.
func (b *board) changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.news
}

func (b *board) all() []posted {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]posted, 0, len(b.mu.reports))
	for _, p := range b.mu.reports {
		out = append(out, p)
	}
	return out
}

// seen is one node: what it said and whether it is there.
type seen struct {
	posted
	away bool
}

// nodes joins what membership knows with what was reported, by name.
func (a *API) nodes() []seen {
	now := a.cfg.Now()
	byName := make(map[string]seen)
	for _, p := range a.board.all() {
		byName[p.Node] = seen{p, now.Sub(p.received) > a.cfg.AwayAfter}
	}
	if a.cfg.Members != nil {
		for _, m := range a.cfg.Members() {
			n := byName[m.Name]
			n.Node, n.PoP, n.Region = m.Name, m.PoP, m.Region
			n.Public = cmp.Or(n.Public, m.Public)
			// Who is alive but has fallen silent is waited for all the same.
			n.away = !m.Alive && (n.away || n.received.IsZero())
			byName[m.Name] = n
		}
	}
	out := make([]seen, 0, len(byName))
	for _, n := range byName {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b seen) int { return cmp.Or(strings.Compare(a.PoP, b.PoP), strings.Compare(a.Node, b.Node)) })
	return out
}

// status adds up what all nodes said of a release.
func (a *API) status(rel Release) Status {
	s := Status{Project: rel.Project, Function: rel.Function, Release: rel.Number, Bundle: rel.Bundle, PoPs: []PoPStatus{}}
	newest, _ := a.Catalog().Release(rel.ID())
	gone := newest.Removed && newest.Number >= rel.Number
	for _, n := range a.nodes() {
		if len(s.PoPs) == 0 || s.PoPs[len(s.PoPs)-1].PoP != n.PoP {
			s.PoPs = append(s.PoPs, PoPStatus{PoP: n.PoP, Region: n.Region})
		}
		p := &s.PoPs[len(s.PoPs)-1]
		one := n.statusOf(rel, gone)
		p.Nodes = append(p.Nodes, one)
		s.count(one)
	}
	for i := range s.PoPs {
		s.PoPs[i].State = least(s.PoPs[i].Nodes)
	}
	s.Done = s.Pending == 0 && s.Live+s.Failed > 0
	s.Tag = tagOf(s)
	return s
}

func (s *Status) count(n NodeStatus) {
	switch {
	case n.Away:
	case n.State == report.Failed:
		s.Failed++
	case n.State == report.Live || n.State == report.Removed || n.State == report.Elsewhere:
		s.Live++
	default:
		s.Pending++
	}
}

// statusOf is where the node stands with rel; gone says that the function was removed with it or after it.
func (n *seen) statusOf(rel Release, gone bool) NodeStatus {
	out := NodeStatus{Node: n.Node, State: Pending, Away: n.away, Reported: n.received}
	there := catalog.Position{Epoch: n.Epoch, Revision: n.Revision}.Compare(rel.Position) >= 0
	for _, f := range n.Functions {
		if f.Project != rel.Project || f.Function != rel.Function {
			continue
		}
		if f.Release == rel.Number && f.Digest == rel.Bundle { // a number comes again after a restore
			out.State, out.Why, out.Digest = f.State, f.Why, f.Digest
			out.CompileMS, out.FromCache, out.ReadyMS = f.CompileMS, f.FromCache, f.ReadyMS
		} else if there && f.Release > rel.Number {
			out.State = report.Removed // a newer one is there
		}
		return out
	}
	switch {
	case there && gone:
		out.State = report.Removed
	case n.away:
		out.Why = "the node is away: it takes the release when it is back"
	case n.received.IsZero():
		out.Why = "the node has joined and not reported yet"
	case !there:
		out.Why = fmt.Sprintf("the node has not taken the catalog of this release yet: it is at %d.%d, the release came with %d.%d", n.Epoch, n.Revision, rel.Position.Epoch, rel.Position.Revision)
	default:
		out.Why = "the node has the catalog of this release and has not said yet how far it is"
	}
	return out
}

var advance = map[report.State]int{report.Failed: 0, Pending: 1, report.Fetching: 2, report.Compiling: 3, report.Elsewhere: 4, report.Removed: 5, report.Live: 6}

// least returns the least advanced state of the nodes that are there.
func least(nodes []NodeStatus) report.State {
	state := report.State("")
	for _, n := range nodes {
		if !n.Away && (state == "" || advance[n.State] < advance[state]) {
			state = n.State
		}
	}
	return cmp.Or(state, Pending)
}

// tagOf differs when the status does, other than in times.
func tagOf(s Status) string {
	h := sha256.New()
	for _, p := range s.PoPs {
		for _, n := range p.Nodes {
			n.Reported = time.Time{}
			b, err := json.Marshal(n)
			if err == nil {
				h.Write(append(b, p.PoP...))
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
