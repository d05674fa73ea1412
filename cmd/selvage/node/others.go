package node

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/fleet"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/edge/forward"
	"github.com/selvage-edge/selvage/edge/geo"
	"github.com/selvage-edge/selvage/runtime/function"
)

// busyAt is the load, in per cent, from which a node is no place for what overflows.
const busyAt = 80

// others are the live nodes of all PoPs that exchanges can go on to, as membership has
// them, the nearest first. Whom it names has to prove name, PoP and region by
// certificate before anything is sent: a pin does not rest on gossip.
type others struct {
	self  *identity.Member
	site  func() fleet.Site
	fleet func() (members []fleet.Member, up bool) // up: gossip runs
	mu    struct {
		sync.Mutex
		closed  bool
		first   bool      // no server of this node has known another yet
		up      time.Time // when gossip was seen to run, while first
		stale   bool      // membership may have changed
		heard   bool      // the list is of gossip
		before            // who was there when gossip did not run yet
		list    []other
		clients map[string]*client // by name
		retired []*client          // that still have something under way
	}
}

// other is one node, and what it is.
type other struct {
	forward.Peer
	labels   function.Labels
	draining bool
	km       float64
}

func newOthers(self *identity.Member, site func() fleet.Site, f func() ([]fleet.Member, bool), kept []fleet.Member) *others {
	o := &others{self: self, site: site, fleet: f}
	o.mu.clients, o.mu.kept, o.mu.first = map[string]*client{}, kept, len(kept) == 0
	o.mu.stale = true
	return o
}

// may lists those that may run what is placed so, the best first.
func (o *others) may(p function.Placement) (peers []forward.Peer) {
	for _, one := range o.all() {
		if p.Allows(one.labels) {
			peers = append(peers, one.Peer)
		}
	}
	return peers
}

// unready says why this node should get no traffic yet, or nothing: at its first start it
// knows no node that exchanges can go on to, until gossip has told it, or has had its time.
// The first member that answers, control or a node, tells of all that it knows.
func (o *others) unready() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.mu.first {
		return ""
	}
	members, up := o.fleet()
	met := slices.ContainsFunc(members, func(m fleet.Member) bool { return m.Name != o.self.Peer().Name && m.Health == fleet.Alive })
	if up && o.mu.up.IsZero() {
		o.mu.up = time.Now()
	}
	if met || up && time.Since(o.mu.up) >= settleTime {
		o.mu.first = false
		return ""
	}
	return "no other member of the fleet is known yet"
}

// all returns the nodes; do not change them.
func (o *others) all() []other {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.closed || !o.mu.stale && !o.mu.settled() {
		return o.mu.list
	}
	members, up := o.fleet()
	if !up && o.mu.heard {
		return o.mu.list // another server has the office; this one ends
	}
	o.mu.stale, o.mu.list, o.mu.heard = false, nil, up // the old list may be in use
	if up {
		members = o.mu.fill(members, o.self.Peer().Name)
	} else {
		members = o.mu.kept
	}
	here := map[string]bool{}
	for _, m := range members {
		if one, ok := o.one(m); ok {
			here[m.Name] = true
			o.mu.list = append(o.mu.list, one)
		}
	}
	for name, c := range o.mu.clients {
		if !here[name] {
			o.retire(name, c)
		}
	}
	o.mu.retired = slices.DeleteFunc(o.mu.retired, (*client).over)
	slices.SortFunc(o.mu.list, func(a, b other) int {
		return cmp.Or(ordered(a.draining, b.draining), ordered(a.Busy, b.Busy), cmp.Compare(a.km, b.km), cmp.Compare(a.Name, b.Name))
	})
	return o.mu.list
}

func ordered(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// one is a member that exchanges can go on to. o.mu is held.
func (o *others) one(m fleet.Member) (other, bool) {
	if m.Health != fleet.Alive || m.Meta.Role != fleet.Node || m.Name == o.self.Peer().Name || m.Meta.Peer == "" || m.Meta.Leaving {
		return other{}, false
	}
	c, err := o.client(m)
	if err != nil {
		return other{}, false
	}
	here, there := o.site(), m.Meta.Site
	km := math.Inf(1)
	switch {
	case m.Meta.PoP == o.self.Peer().PoP:
		km = 0
	case here.Located && there.Located:
		km = geo.Kilometres(here.Latitude, here.Longitude, there.Latitude, there.Longitude)
	}
	return other{
		Peer:   forward.Peer{Name: m.Name, PoP: m.Meta.PoP, Busy: there.Load >= busyAt || m.Meta.Draining, Node: c},
		labels: m.Labels(), draining: m.Meta.Draining, km: km,
	}, true
}

// client returns the member's, made when it is new or is somewhere else. o.mu is held.
func (o *others) client(m fleet.Member) (*client, error) {
	want := identity.Expect{Kind: identity.KindNode, Name: m.Name, PoP: m.Meta.PoP, Region: m.Meta.Region, Exact: true}
	if c := o.mu.clients[m.Name]; c != nil {
		if c.want == want {
			c.SetAddresses([]string{m.Meta.Peer})
			return c, nil
		}
		o.retire(m.Name, c)
	}
	l := function.Ceiling // the forwarder ends what takes longer than its function may
	made, err := peer.NewClient(peer.ClientConfig{Member: o.self, Expect: want, Addresses: []string{m.Meta.Peer}, HeaderTimeout: l.QueueWait + 2*l.Wall})
	if err != nil {
		return nil, err
	}
	c := &client{Client: made, want: want}
	o.mu.clients[m.Name] = c
	return c, nil
}

// retire has a client end once nothing is under way by it: a node that leaves answers
// what it has, and what gossip says of one that does not is a hint. o.mu is held.
func (o *others) retire(name string, c *client) {
	delete(o.mu.clients, name)
	c.retire()
	o.mu.retired = append(o.mu.retired, c)
}

// look makes the next question look at membership again.
func (o *others) look() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.stale = true
}

func (o *others) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.closed, o.mu.list = true, nil
	for _, c := range o.mu.clients {
		c.Close()
	}
	for _, c := range o.mu.retired {
		c.Close()
	}
}

// openForward wires what hands exchanges on.
func (n *node) openForward(p *dataPath) (err error) {
	kept, err := fleet.LoadMembers(n.membersPath())
	if err != nil {
		n.log.Warn("exchanges go on to other nodes only once gossip names them", "err", err)
	}
	n.member.others = newOthers(n.member.id.Member, n.place, n.member.members, kept)
	p.forward, err = forward.New(forward.Config{PoP: n.member.peer().PoP, Peers: n.member.others.may, Unsent: unsent, Overflow: n.cfg.Limits.Overflow,
		Where: func(e *forward.Envelope) *geo.Place {
			at := p.geo.Lookup(e.Client.Addr())
			return &at
		}})
	return err
}

// place is where this node stands.
func (n *node) place() (s fleet.Site) {
	s.Latitude, s.Longitude, s.Located = n.cfg.Node.Place()
	return s
}

// passed answers what other nodes of the fleet hand on.
func (n *node) passed(w http.ResponseWriter, r *http.Request) {
	from, ok := peer.From(r.Context())
	if !ok || from.Kind != identity.KindNode {
		http.Error(w, fmt.Sprintf("%s is for nodes of the fleet", forward.Path), http.StatusForbidden)
		return
	}
	n.path.handler.ServePassed(w, r, from.Name)
}
