package node

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/selvage-edge/selvage/control/fleet"
)

// settleTime is how long after its first word of another member gossip may take to
// have told of the others.
const settleTime = 10 * time.Second

// keepEvery is how often the members are written down, if they have changed.
const keepEvery = 2 * time.Second

// before are the nodes that the last server knew: to them exchanges go on until gossip
// has said who is there. A server has gossip only after it serves (see office).
type before struct {
	kept []fleet.Member
	met  time.Time // when gossip first told of another member
}

// settled reports whether gossip has had its time and what was kept is still held.
func (b *before) settled() bool {
	return b.kept != nil && !b.met.IsZero() && time.Since(b.met) >= settleTime
}

// fill adds to what gossip knows those of before that it has no word of, until it has settled.
func (b *before) fill(members []fleet.Member, self string) []fleet.Member {
	if b.kept == nil {
		return members
	}
	if b.met.IsZero() && slices.ContainsFunc(members, func(m fleet.Member) bool { return m.Name != self && m.Health == fleet.Alive }) {
		b.met = time.Now()
	}
	if b.settled() {
		b.kept = nil
		return members
	}
	known := map[string]bool{}
	for _, m := range members {
		known[m.Name] = true
	}
	for _, m := range b.kept {
		if !known[m.Name] {
			members = append(members, m)
		}
	}
	return members
}

func (n *node) membersPath() string { return filepath.Join(n.cfg.Node.State, "members.json") }

// keepMembers writes down, until ctx ends and then once more, who is alive: for the next server.
func (n *node) keepMembers(ctx context.Context, gossip *fleet.Fleet) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	var kept []byte
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		var err error
		if kept, err = keep(n.membersPath(), gossip.Members(), n.member.peer().Name, kept); err != nil {
			n.log.Warn("the next server may not know other nodes until gossip names them", "err", err)
		}
	}
}

// keep writes down the nodes of members but this one, unless that is what was kept last, and
// returns what is kept now. Of a node that sees nobody it is what it was.
func keep(path string, members []fleet.Member, self string, last []byte) ([]byte, error) {
	members = slices.DeleteFunc(members, func(m fleet.Member) bool {
		return m.Name == self || m.Health != fleet.Alive || m.Meta.Role != fleet.Node || m.Meta.Leaving
	})
	if len(members) == 0 {
		return last, nil
	}
	b, err := fleet.EncodeMembers(members)
	if err != nil || bytes.Equal(b, last) {
		return last, err
	}
	if err := fleet.SaveMembers(path, b); err != nil {
		return last, err
	}
	return b, nil
}
