package node

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"

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
	fleet func() *fleet.Fleet
	mu    struct {
		sync.Mutex
		closed  bool
		stale   bool // membership may have changed
		list    []other
		clients map[string]*client // by name
	}
}

// other is one node, and what it is.
type other struct {
	forward.Peer
	labels   function.Labels
	draining bool
	km       float64
}

// client reaches a node, for as long as it is who it was.
type client struct {
	*peer.Client
	want identity.Expect
}

func newOthers(self *identity.Member, site func() fleet.Site, f func() *fleet.Fleet) *others {
	o := &others{self: self, site: site, fleet: f}
	o.mu.clients = map[string]*client{}
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

// all returns the nodes; do not change them.
func (o *others) all() []other {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.fleet()
	if f == nil || o.mu.closed || !o.mu.stale {
		return o.mu.list
	}
	o.mu.stale, o.mu.list = false, nil // the old list may be in use
	here := map[string]bool{}
	for _, m := range f.Members() {
		if one, ok := o.one(m); ok {
			here[m.Name] = true
			o.mu.list = append(o.mu.list, one)
		}
	}
	for name, c := range o.mu.clients {
		if !here[name] {
			c.Close()
			delete(o.mu.clients, name)
		}
	}
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
		Peer:   forward.Peer{Name: m.Name, PoP: m.Meta.PoP, Busy: there.Load >= busyAt || m.Meta.Draining, Node: c.Client},
		labels: m.Labels(), draining: m.Meta.Draining, km: km,
	}, true
}

// client returns the member's, made when it is new or is somewhere else. o.mu is held.
func (o *others) client(m fleet.Member) (*client, error) {
	want := identity.Expect{Kind: identity.KindNode, Name: m.Name, PoP: m.Meta.PoP, Region: m.Meta.Region}
	if c := o.mu.clients[m.Name]; c != nil {
		if c.want == want {
			c.SetAddresses([]string{m.Meta.Peer})
			return c, nil
		}
		c.Close()
		delete(o.mu.clients, m.Name)
	}
	l := function.Ceiling // the forwarder ends what takes longer than its function may
	made, err := peer.NewClient(peer.ClientConfig{Member: o.self, Expect: want, Addresses: []string{m.Meta.Peer}, HeaderTimeout: l.QueueWait + 2*l.Wall})
	if err != nil {
		return nil, err
	}
	c := &client{made, want}
	o.mu.clients[m.Name] = c
	return c, nil
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
}

// openForward wires what hands exchanges on.
func (n *node) openForward(p *dataPath) (err error) {
	n.member.others = newOthers(n.member.id.Member, n.place, n.member.fleet.Load)
	p.forward, err = forward.New(forward.Config{PoP: n.member.peer().PoP, Peers: n.member.others.may, Unsent: peer.Unsent, Overflow: n.cfg.Limits.Overflow,
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
