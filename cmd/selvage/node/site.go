package node

import (
	"context"
	"time"

	"github.com/selvage-edge/selvage/control/fleet"
)

// How often the fleet is told of a change: of draining at once, of load when it
// has moved by a step and some time has passed.
const (
	siteEvery = 500 * time.Millisecond
	loadEvery = 5 * time.Second
	loadStep  = 5 // per cent
)

// site is what the fleet's name servers know of this node.
func (n *node) site() fleet.Site {
	s := fleet.Site{Told: true, Weight: uint8(n.cfg.Node.Weight*100 + .5), Load: n.load()}
	s.Latitude, s.Longitude, s.Located = n.cfg.Node.Place()
	s.V4, s.V6 = n.cfg.Node.UserAddresses()
	return s
}

// load is how much of its requests at once the node answers now, in steps of per cent.
func (n *node) load() uint8 {
	return uint8(min(100, n.path.limiter.Stats().Running*100/n.cfg.Limits.Concurrency/loadStep*loadStep))
}

// tellSite keeps what the fleet knows of this node true, until ctx ends.
func (n *node) tellSite(ctx context.Context, gossip *fleet.Fleet) {
	tick := time.NewTicker(siteEvery)
	defer tick.Stop()
	var told time.Time
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := gossip.Restate(time.Second, func(m *fleet.Meta) {
			m.Draining = n.path.handler.Draining()
			if load := n.load(); load != m.Site.Load && time.Since(told) >= loadEvery {
				m.Site.Load, told = load, time.Now()
			}
		})
		if err != nil {
			n.log.Debug("the fleet may hear later of how this node is", "err", err)
		}
	}
}
