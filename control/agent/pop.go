package agent

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/edge/replica"
)

// Neighbour is another live node of this node's PoP.
type Neighbour struct {
	Name string
	Node Doer // reaches it and nobody else
}

// pop is who does what for whom in this PoP. Each node works it out for itself from
// who lives; where two see it differently, one of them asks control once more.
type pop struct {
	self    string
	list    func() []Neighbour
	onEvent func(Event)
	mu      struct {
		sync.Mutex
		blamed map[string]blame
	}
}

// blame is what a neighbour did and until when nothing is asked of it.
type blame struct {
	times int
	last  time.Time
	until time.Time
}

var _ changes.Neighbourhood = (*pop)(nil)

// How long a neighbour is left alone: one that failed a little, and for longer each
// time, because membership may be about to notice; one that lied for long.
const (
	distrustFailed = 5 * time.Second
	distrustMost   = 2 * time.Minute
	distrustLied   = 5 * time.Minute
	forgive        = 10 * time.Minute
)

func newPop(self string, list func() []Neighbour, onEvent func(Event)) *pop {
	if list == nil {
		list = func() []Neighbour { return nil }
	}
	p := &pop{self: self, list: list, onEvent: onEvent}
	p.mu.blamed = map[string]blame{}
	return p
}

// first returns who of the PoP looks after key, by rendezvous hash: the same for
// all who see the same nodes live. False: this node itself.
func (p *pop) first(key string) (n Neighbour, other bool) {
	best := score(p.self, key)
	for _, o := range p.trusted() {
		if s := score(o.Name, key); s > best || s == best && o.Name > n.Name && other {
			n, best, other = o, s, true
		}
	}
	return n, other
}

// score is how much a node is meant for key.
func score(node, key string) uint64 {
	sum := sha256.Sum256([]byte(node + "\x00" + key))
	return binary.BigEndian.Uint64(sum[:])
}

// trusted lists the neighbours that are not left alone now.
func (p *pop) trusted() []Neighbour {
	all := p.list()
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	var good []Neighbour
	for _, n := range all {
		if n.Name != p.self && !now.Before(p.mu.blamed[n.Name].until) {
			good = append(good, n)
		}
	}
	return good
}

// trusts reports whether name is not left alone now.
func (p *pop) trusts(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !time.Now().Before(p.mu.blamed[name].until)
}

// Parent implements changes.Neighbourhood.
func (p *pop) Parent(log string) string {
	n, _ := p.first("log " + log)
	return n.Name
}

// keeper returns who fetches a blob from control for the PoP; false: this node itself.
func (p *pop) keeper(digest string) (Neighbour, bool) { return p.first("blob " + digest) }

// Open implements changes.Neighbourhood.
func (p *pop) Open(ctx context.Context, name string, r changes.Request) (io.ReadCloser, error) {
	for _, n := range p.list() {
		if n.Name == name {
			return openStream(n.Node)(ctx, r)
		}
	}
	return nil, errors.New("it is not in this PoP any more")
}

// Blame implements changes.Neighbourhood.
func (p *pop) Blame(name string, err error) {
	lied := changes.Lied(err) || errors.Is(err, errBlob) || errors.Is(err, errCopy) || errors.Is(err, replica.ErrPage)
	p.mu.Lock()
	now := time.Now()
	b := p.mu.blamed[name]
	if now.Sub(b.last) > forgive {
		b.times = 0
	}
	hold := min(distrustFailed<<min(b.times, 10), distrustMost)
	if lied {
		hold = distrustLied
	}
	b.times, b.last = b.times+1, now
	if until := now.Add(hold); until.After(b.until) {
		b.until = until
	}
	p.mu.blamed[name] = b
	p.sweep(now)
	p.mu.Unlock()
	p.onEvent(Event{Kind: Distrusted, Neighbour: name, Took: hold, Err: err})
}

// sweep forgets who was blamed long ago. p.mu is held.
func (p *pop) sweep(now time.Time) {
	for name, b := range p.mu.blamed {
		if now.Sub(b.last) > forgive && now.After(b.until) {
			delete(p.mu.blamed, name)
		}
	}
}
