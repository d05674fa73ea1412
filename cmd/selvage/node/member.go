package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/selvage-edge/selvage/control/agent"
	"github.com/selvage-edge/selvage/control/fleet"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/logs"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/control/report"
)

// joinVariable holds the one-time join token of a node's first start.
const joinVariable = "SELVAGE_JOIN_TOKEN"

// membership is this node's place in the fleet.
type membership struct {
	id      *identity.Node
	control *peer.Client
	near    *neighbours
	fleet   atomic.Pointer[fleet.Fleet] // nil until gossip runs
}

// join opens the node's identity, or gets one with the join token.
func (n *node) join(ctx context.Context) (*membership, error) {
	dir := filepath.Join(n.cfg.Node.State, "identity")
	text := os.Getenv(joinVariable)
	os.Unsetenv(joinVariable) // it is a secret, spent once
	id, err := identity.OpenNode(dir, nil)
	if errors.Is(err, fs.ErrNotExist) {
		id, err = n.firstJoin(ctx, dir, text)
	} else if err != nil {
		err = fmt.Errorf("%w: put %s back from a copy, or remove it and start with a new token ('selvage join-token') in $%s", err, dir, joinVariable)
	}
	if err != nil {
		return nil, err
	}
	if p := id.Member.Peer(); p.Name != n.cfg.Node.Name || p.PoP != n.cfg.Node.PoP {
		return nil, fmt.Errorf("this node joined as %s of PoP %s, but its configuration says %s of %s: correct node.name and node.pop, or give it a new state folder and join again",
			p.Name, p.PoP, n.cfg.Node.Name, n.cfg.Node.PoP)
	}
	control, err := peer.NewClient(peer.ClientConfig{Member: id.Member, Expect: identity.Expect{Kind: identity.KindControl}, Addresses: id.Control})
	if err != nil {
		return nil, err
	}
	return &membership{id: id, control: control, near: newNeighbours(id.Member)}, nil
}

func (n *node) firstJoin(ctx context.Context, dir, text string) (*identity.Node, error) {
	if text == "" {
		return nil, fmt.Errorf("this node has not joined a fleet: set $%s to a token made by 'selvage join-token' and start it again", joinVariable)
	}
	token, err := identity.ParseJoinToken(text)
	if err != nil {
		return nil, fmt.Errorf("$%s: %w", joinVariable, err)
	}
	id, err := identity.Join(ctx, dir, token, identity.JoinOptions{Name: n.cfg.Node.Name, PoP: n.cfg.Node.PoP, Region: n.cfg.Node.Region})
	if err != nil {
		return nil, err
	}
	n.log.Info("joined", "fleet", id.Member.Peer().Fleet, "root", id.Root)
	return id, nil
}

// announce tells the fleet of this node's head; before gossip runs there is nobody to tell.
func (m *membership) announce(h fleet.Head) error {
	if f := m.fleet.Load(); f != nil {
		return f.Announce(h)
	}
	return nil
}

func (m *membership) keepFresh(ctx context.Context, log *slog.Logger) {
	peer.KeepFresh(ctx, peer.FreshConfig{Node: m.id, Control: m.control, Failed: func(err error) {
		log.Debug("certificate and trust are looked at again in a minute", "err", err)
	}})
}

// neighbours are the other live nodes of this PoP; none before gossip runs.
func (m *membership) neighbours() []agent.Neighbour { return m.near.among(m.fleet.Load()) }

func (m *membership) close() {
	m.near.close()
	m.control.Close()
}

// statusPath is what any member may ask of a node.
const statusPath = "/peer/v1/status"

// peerServer answers the other members of the fleet, over mTLS.
func (n *node) peerServer() (*peer.Server, error) {
	mux := http.NewServeMux()
	mux.Handle("/", n.agent.PeerHandler())
	mux.HandleFunc("GET "+statusPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(n.agent.Stats()) // the peer left; nobody to tell
	})
	mux.Handle("POST "+report.OrdersPath, n.orders.handler())
	mux.Handle("GET "+logs.Path, logs.Handler(n.path.lines))
	return peer.NewServer(peer.ServerConfig{Member: n.member.id.Member, Handler: mux})
}
