package api

import (
	"context"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/report"
)

func (a *API) getFleet(ctx context.Context, _ *call) (*reply, error) {
	head := a.Head()
	out := Fleet{Fleet: a.cfg.Identity.Fleet, Control: a.cfg.Identity.Name, Epoch: a.cfg.Store.Epoch(), Revision: head.Revision, Nodes: []Node{}}
	orders, err := a.cfg.Store.Bucket(orderBucket).All(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range a.nodes() {
		one := nodeOf(n, head)
		o, err := a.parseOrders(n.Node, orders[n.Node])
		if err != nil {
			return nil, err
		}
		one.Drain, one.Reason = o.Drain, o.Reason
		out.Nodes = append(out.Nodes, one)
	}
	return &reply{json: out}, nil
}

// Counts says how the fleet's nodes are, for metrics.
type Counts struct {
	Nodes    int
	Away     int
	Behind   int // of those that are there
	Draining int
	Failed   int // functions that cannot run, on those that are there
}

// Counts adds up what is known of the nodes.
func (a *API) Counts() Counts {
	var c Counts
	head := a.Head()
	for _, n := range a.nodes() {
		one := nodeOf(n, head)
		c.Nodes++
		if one.Draining {
			c.Draining++
		}
		switch {
		case one.Away:
			c.Away++
			continue
		case one.Behind:
			c.Behind++
		}
		c.Failed += one.Failed
	}
	return c
}

func nodeOf(n seen, head catalog.Position) Node {
	out := Node{
		Name: n.Node, PoP: n.PoP, Region: n.Region, Public: n.Public, Build: n.Build, Away: n.away,
		Behind:   catalog.Position{Epoch: n.Epoch, Revision: n.Revision}.Compare(head) < 0,
		Draining: n.Draining, Epoch: n.Epoch, Revision: n.Revision, Started: n.Started, Reported: n.received, Copies: n.Copies,
	}
	for _, f := range n.Functions {
		switch f.State {
		case report.Live:
			out.Live++
		case report.Failed:
			out.Failed++
		}
	}
	return out
}

func (a *API) getTrust(context.Context, *call) (*reply, error) {
	return &reply{json: a.cfg.Identity.Anchor.Trust().Bundle()}, nil
}

// putTrust adds to the trust what the root key signed. It proves itself, so the token's only
// part is to keep noise away; what the bundle leaves out stays: another may have been added since it was read.
func (a *API) putTrust(_ context.Context, c *call) (*reply, error) {
	var b identity.Bundle
	if err := c.decode(&b); err != nil {
		return nil, err
	}
	a.trusted.Lock()
	defer a.trusted.Unlock()
	if err := a.cfg.Identity.Anchor.Update(a.cfg.Identity.Anchor.Trust().Bundle().Merge(b)); err != nil {
		return nil, err
	}
	return &reply{json: a.cfg.Identity.Anchor.Trust().Bundle()}, nil
}
