package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/agent"
	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/control/fleet"
	"github.com/selvage-edge/selvage/edge/kv"
)

// node is one of the fleet's: a member, a follower with its relay, and a KV store.
type node struct {
	w    *world
	i    int
	name string
	at   place

	member   *fleet.Fleet
	follower *changes.Follower
	relay    *changes.Relay
	host     *host
	store    *kv.Store
	stop     context.CancelFunc
	running  sync.WaitGroup
	near     struct {
		sync.Mutex
		looked time.Time
		list   []agent.Neighbour
	}
}

// gossipKey is the fleet's.
var gossipKey = []byte("0123456789abcdef0123456789abcdef")

// start starts the i-th node.
func (w *world) start(i int, at place) (*node, error) {
	name, addr := fmt.Sprint("node-", i), address(i+1)
	n := &node{w: w, i: i, name: name, at: at}
	var err error
	n.store, err = kv.New(kv.Config{Origin: origin{w.truth, w.mesh, at, w.home}, Bytes: 1 << 20})
	if err != nil {
		return nil, err
	}
	n.relay = changes.NewRelay(changes.RelayConfig{Allow: func(context.Context, string) error { return nil },
		Serves: func(log string) error { return n.follower.Leads(log) }})
	n.host = newHost(w.mesh, at, n.relay)
	n.follower = changes.NewFollower(changes.FollowerConfig{
		Open:       agent.OpenStream(road{at, func() *host { return w.control }}),
		Neighbours: agent.NewNeighbourhood(name, n.neighbours), Verify: w.verify, Sink: n, Relay: n.relay,
		OnEvent: func(e changes.Event) { w.note(e) },
	})
	n.follower.Follow(changes.Want{Log: log, Tail: true})
	if n.member, err = w.join(name, at, addr, fleet.Node, func(fleet.Event) { n.look(); n.follower.Reroute() }); err != nil {
		n.store.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	n.running.Go(func() { _ = n.follower.Run(ctx) }) // its error is ctx's
	n.running.Go(func() { n.read(ctx, rand.New(rand.NewPCG(w.Seed, uint64(100+i)))) })
	return n, nil
}

// join has somebody take part in gossip.
func (w *world) join(name string, at place, addr netip.AddrPort, role fleet.Role, on func(fleet.Event)) (*fleet.Fleet, error) {
	return fleet.Join(fleet.Config{
		Fleet: "model", Name: name, Key: gossipKey, Bind: addr.String(), Seeds: w.seeds, Transport: w.mesh.open(at, addr), OnEvent: on,
		Meta: fleet.Meta{Role: role, PoP: at.site, Region: "earth", Public: addr.String(), Peer: addr.String(), Version: "model"},
	})
}

// kill ends the node as kill -9 does; silently, as the loss of its machine does: who has a
// connection to it does not hear that it ended.
func (n *node) kill(silently bool) error {
	n.stop()
	n.host.end(silently)
	n.running.Wait()
	n.store.Close()
	return n.member.Close()
}

func (n *node) look() {
	n.near.Lock()
	defer n.near.Unlock()
	n.near.looked = time.Time{}
}

// neighbours are the other live nodes of the PoP, as membership has them: looked for
// every second, and when membership changes.
func (n *node) neighbours() []agent.Neighbour {
	n.near.Lock()
	defer n.near.Unlock()
	if n.member == nil || time.Since(n.near.looked) < time.Second {
		return n.near.list
	}
	n.near.looked, n.near.list = time.Now(), nil
	for _, m := range n.member.Select(func(m *fleet.Member) bool {
		return m.Health == fleet.Alive && m.Meta.Role == fleet.Node && m.Meta.PoP == n.at.site && m.Name != n.name
	}) {
		n.near.list = append(n.near.list, agent.Neighbour{Name: m.Name, Node: road{n.at, func() *host { return n.w.hostOf(m.Name) }}})
	}
	return n.near.list
}

// Reset implements changes.Sink.
func (n *node) Reset(context.Context, string, uint64) error {
	n.store.Reset(words)
	return nil
}

// Apply implements changes.Sink.
func (n *node) Apply(_ context.Context, b *changes.Batch) error {
	n.store.Apply(words, agent.ChangesOf(b))
	for i := range b.Changes {
		n.w.seen(time.Since(n.w.truth.at(b.Changes[i].Seq)))
	}
	return nil
}

// has reports whether the node has come to a sequence.
func (n *node) has(seq uint64) bool {
	p, ok := n.follower.Position(log)
	return ok && p.Seq >= seq
}

// stale asks the node for keys, and tells of one whose value is not the truth's though the node has come to its head.
func (n *node) stale(keys []string) error {
	for _, key := range keys {
		value, revision := n.w.truth.get(key)
		e, err := n.store.Get(context.Background(), words, key)
		if err != nil && revision != 0 || e.Revision != revision || string(e.Value) != string(value) {
			return fmt.Errorf("%s has %s of revision %d for ever, the truth is %d: %w", n.name, key, e.Revision, revision, errors.Join(errStale, err))
		}
	}
	return nil
}

var errStale = errors.New("a key that stays old")
