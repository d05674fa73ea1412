package node

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync/atomic"

	"github.com/selvage-edge/selvage/cmd/selvage/membership"
	"github.com/selvage-edge/selvage/control/agent"
	"github.com/selvage-edge/selvage/control/fleet"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/logs"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/control/report"
)

// place is this node's place in the fleet.
type place struct {
	id      *identity.Node
	control *peer.Client
	reach   *peer.Reach // control too, for KV
	near    *neighbours
	others  *others
	fleet   atomic.Pointer[fleet.Fleet] // nil until gossip runs
}

// join opens the node's identity, or gets one with the join token.
func (n *node) join(ctx context.Context) (*place, error) {
	id, err := membership.Open(ctx, n.log, filepath.Join(n.cfg.Node.State, "identity"),
		identity.JoinOptions{Name: n.cfg.Node.Name, PoP: n.cfg.Node.PoP, Region: n.cfg.Node.Region})
	if err != nil {
		return nil, err
	}
	control, err := peer.NewClient(peer.ClientConfig{Member: id.Member, Expect: identity.Expect{Kind: identity.KindControl}, Addresses: id.Control})
	if err != nil {
		return nil, err
	}
	return &place{id: id, control: control, reach: n.newReach(control), near: newNeighbours(id.Member)}, nil
}

// peer is who this node is by its certificate: that, and not its configuration, is what
// functions are pinned to.
func (m *place) peer() identity.Peer { return m.id.Member.Peer() }

// announce tells the fleet of this node's head; before gossip runs there is nobody to tell.
func (m *place) announce(h fleet.Head) error {
	if f := m.fleet.Load(); f != nil {
		return f.Announce(h)
	}
	return nil
}

// members are those of the fleet, if gossip runs.
func (m *place) members() (all []fleet.Member, up bool) {
	if f := m.fleet.Load(); f != nil {
		return f.Members(), true
	}
	return nil, false
}

func (m *place) keepFresh(ctx context.Context, log *slog.Logger) {
	peer.KeepFresh(ctx, peer.FreshConfig{Node: m.id, Control: m.control, Failed: func(err error) {
		log.Debug("certificate and trust are looked at again in a minute", "err", err)
	}})
}

// neighbours are the other live nodes of this PoP; none before gossip runs.
func (m *place) neighbours() []agent.Neighbour { return m.near.among(m.fleet.Load()) }

func (m *place) close() {
	m.near.close()
	if m.others != nil {
		m.others.close()
	}
	m.reach.Close()
	m.control.Close()
}

// statusPath is what any member may ask of a node.
const statusPath = "/peer/v1/status"

// peerServer answers the other members of the fleet, over mTLS.
func (n *node) peerServer() (*peerPort, error) {
	mux := http.NewServeMux()
	mux.Handle("/", n.agent.PeerHandler())
	mux.HandleFunc("GET "+statusPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(n.agent.Stats()) // the peer left; nobody to tell
	})
	mux.HandleFunc("GET "+report.PlacedPath, n.placed)
	mux.Handle("POST "+report.OrdersPath, n.orders.handler())
	mux.Handle("GET "+logs.Path, logs.Handler(n.path.lines))
	return newPeerPort(n.member.id.Member, n.passed, mux)
}
