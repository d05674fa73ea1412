package fleet

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls. Every method copies, adds to a queue and
// returns: some run under memberlist's lock, so none may call back into it.
type delegate struct {
	fleet *Fleet
	meta  atomic.Pointer[[]byte]
}

var (
	_ memberlist.Delegate         = (*delegate)(nil)
	_ memberlist.EventDelegate    = (*delegate)(nil)
	_ memberlist.ConflictDelegate = (*delegate)(nil)
	_ memberlist.MergeDelegate    = (*delegate)(nil)
	_ memberlist.AliveDelegate    = (*delegate)(nil)
	_ memberlist.PingDelegate     = (*delegate)(nil)
)

// say sets what this node says of itself from now on.
func (d *delegate) say(m Meta) error {
	b, err := m.Encode()
	if err == nil {
		d.meta.Store(&b)
	}
	return err
}

func (d *delegate) NodeMeta(int) []byte { return *d.meta.Load() }

func (d *delegate) NotifyMsg(b []byte) { d.fleet.events.news(d.fleet.heads.learn(b)) }

func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.fleet.heads.queue.GetBroadcasts(overhead, limit)
}

func (d *delegate) LocalState(bool) []byte { return encodeHeads(d.fleet.heads.snapshot()) }

func (d *delegate) MergeRemoteState(b []byte, _ bool) { d.NotifyMsg(b) }

func (d *delegate) NotifyJoin(n *memberlist.Node) {
	m := d.fleet.view.set(n, Alive)
	d.fleet.seeds.seen(m)
	d.fleet.events.event(Event{Kind: Joined, Member: m})
}

func (d *delegate) NotifyUpdate(n *memberlist.Node) {
	m := d.fleet.view.set(n, Alive)
	d.fleet.events.event(Event{Kind: Changed, Member: m})
}

// NotifyLeave cannot tell by n who left from who failed; the metadata of one
// that leaves says so beforehand.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	h := Failed
	if member(n).Meta.Leaving {
		h = Left
		d.fleet.seeds.forget(n.Name)
	}
	d.fleet.events.event(Event{Kind: Gone, Member: d.fleet.view.set(n, h)})
}

// NotifyAlive refuses a member whose name or metadata is not of our form.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	err := ValidName(n.Name)
	if err == nil {
		_, err = DecodeMeta(n.Meta)
	}
	if err == nil && !d.fleet.view.admits(n.Name) {
		err = fmt.Errorf("%d members are known already", MaxMembers)
	}
	if err != nil {
		d.fleet.view.refused.Add(1)
		return fmt.Errorf("member refused: %w", err)
	}
	return nil
}

// NotifyConflict tells of a second node under a name; memberlist keeps the first.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.conflict(member(existing), member(other).Gossip)
}

// NotifyMerge refuses to join members who know a live node elsewhere under our own name.
func (d *delegate) NotifyMerge(peers []*memberlist.Node) error {
	self, ok := d.fleet.view.get(d.fleet.config.Name)
	for _, p := range peers {
		gone := p.State == memberlist.StateDead || p.State == memberlist.StateLeft
		there := member(p).Gossip
		if !ok || p.Name != self.Name || gone || there == self.Gossip {
			continue
		}
		d.conflict(self, there)
		return fmt.Errorf("%w: %q at %s", ErrDuplicate, p.Name, there)
	}
	return nil
}

func (d *delegate) conflict(m Member, other netip.AddrPort) {
	d.fleet.view.conflict(m.Name, other)
	d.fleet.events.event(Event{Kind: Conflict, Member: m, Other: other})
}

func (d *delegate) AckPayload() []byte { return nil }

func (d *delegate) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, _ []byte) {
	d.fleet.view.acked(n.Name, rtt)
}
