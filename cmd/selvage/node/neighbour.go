package node

import (
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/agent"
	"github.com/selvage-edge/selvage/control/fleet"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
)

// lookEvery is how old the list of neighbours may be; a change that membership
// tells of is seen at once.
const lookEvery = time.Second

// neighbourWait bounds the wait for the head of a neighbour's answer.
const neighbourWait = 15 * time.Second

// neighbours are the other live nodes of this PoP, as membership has them: a hint.
// Who answers has to prove its name by its certificate.
type neighbours struct {
	self *identity.Member
	mu   struct {
		sync.Mutex
		closed  bool
		looked  time.Time
		list    []agent.Neighbour
		clients map[string]*peer.Client // by name
	}
}

func newNeighbours(self *identity.Member) *neighbours {
	n := &neighbours{self: self}
	n.mu.clients = map[string]*peer.Client{}
	return n
}

// among returns those of the fleet; do not change it.
func (n *neighbours) among(f *fleet.Fleet) []agent.Neighbour {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f == nil || n.mu.closed || time.Since(n.mu.looked) < lookEvery {
		return n.mu.list
	}
	n.mu.looked = time.Now()
	n.mu.list = nil // the old one may be in use
	here := map[string]bool{}
	for _, m := range f.Select(n.isOne) {
		if c, err := n.client(m); err == nil {
			here[m.Name] = true
			n.mu.list = append(n.mu.list, agent.Neighbour{Name: m.Name, Node: c})
		}
	}
	for name, c := range n.mu.clients {
		if !here[name] {
			c.Close()
			delete(n.mu.clients, name)
		}
	}
	return n.mu.list
}

func (n *neighbours) isOne(m *fleet.Member) bool {
	me := n.self.Peer()
	return m.Health == fleet.Alive && m.Meta.Role == fleet.Node && m.Meta.PoP == me.PoP && m.Name != me.Name &&
		m.Meta.Peer != "" && !m.Meta.Leaving
}

// client returns the member's, made when it is new. n.mu is held.
func (n *neighbours) client(m fleet.Member) (*peer.Client, error) {
	if c := n.mu.clients[m.Name]; c != nil {
		c.SetAddresses([]string{m.Meta.Peer})
		return c, nil
	}
	c, err := peer.NewClient(peer.ClientConfig{Member: n.self, Expect: identity.Expect{Kind: identity.KindNode, Name: m.Name},
		Addresses: []string{m.Meta.Peer}, HeaderTimeout: neighbourWait})
	if err == nil {
		n.mu.clients[m.Name] = c
	}
	return c, err
}

// look makes the next call of among look again.
func (n *neighbours) look() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.looked = time.Time{}
}

func (n *neighbours) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.closed = true
	for _, c := range n.mu.clients {
		c.Close()
	}
}
