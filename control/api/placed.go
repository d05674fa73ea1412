package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/runtime/function"
)

// PlacementAudit says where functions may be, are, and were answered.
type PlacementAudit struct {
	Functions  []PlacedFunction `json:"functions"`
	Unreached  []string         `json:"unreached"` // nodes that did not say, and why: of them nothing is known
	Violations []string         `json:"violations"`
}

// PlacedFunction is one function's part of a PlacementAudit.
type PlacedFunction struct {
	Project   string             `json:"project"`
	Function  string             `json:"function"`
	Release   uint64             `json:"release"`
	Placement function.Placement `json:"placement"`
	Nodes     []PlacedNode       `json:"nodes"` // those that were asked
}

// PlacedNode is what a node has of a function. What it is comes from its certificate,
// but for labels that certificates do not say.
type PlacedNode struct {
	Node     string `json:"node"`
	PoP      string `json:"pop"`
	Region   string `json:"region,omitempty"`
	Allowed  bool   `json:"allowed"`  // to run it
	MayHold  bool   `json:"may_hold"` // its code, image and data
	Held     bool   `json:"held"`
	Answered uint64 `json:"answered"`  // requests, since the node's server started
	Away     uint64 `json:"away"`      // of these, although it was placed elsewhere
	PassedOn uint64 `json:"passed_on"` // requests handed on to another node
}

// placedNode is what one node answered.
type placedNode struct {
	node   identity.Peer // by its certificate
	labels function.Labels
	list   map[function.ID]report.Placed
	err    error
}

// auditPlacement asks every node at once what it has, and compares it with the catalog.
func (a *API) auditPlacement(ctx context.Context, _ *call) (*reply, error) {
	nodes := a.nodes()
	asked := make([]placedNode, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { asked[i] = a.askPlaced(ctx, n) })
	}
	all.Wait()
	out := PlacementAudit{Functions: []PlacedFunction{}, Unreached: []string{}, Violations: []string{}}
	for i, n := range asked {
		if n.err != nil {
			out.Unreached = append(out.Unreached, fmt.Sprintf("%s: %v", nodes[i].Node, n.err))
		}
	}
	for _, r := range a.Catalog().Releases() {
		out.add(r, asked)
	}
	return &reply{json: out}, nil
}

func (p *PlacementAudit) add(r catalog.Release, asked []placedNode) {
	f := PlacedFunction{Project: r.Project, Function: r.Function, Release: r.Number, Placement: r.Placement, Nodes: []PlacedNode{}}
	for _, n := range asked {
		if n.err != nil {
			continue
		}
		has := n.list[r.ID()]
		one := PlacedNode{Node: n.node.Name, PoP: n.node.PoP, Region: n.node.Region, Allowed: r.Placement.Allows(n.labels), MayHold: r.Placement.MayHold(n.labels),
			Held: has.Live || has.OnDisk, Answered: has.Answered, Away: has.Away, PassedOn: has.PassedOn}
		f.Nodes = append(f.Nodes, one)
		if one.Held && !one.MayHold {
			p.Violations = append(p.Violations, fmt.Sprintf("%s is held at %s (PoP %s, region %s), where it may not be: %s", r.ID(), one.Node, one.PoP, one.Region, r.Placement))
		}
		if has.Pinned > 0 {
			p.Violations = append(p.Violations, fmt.Sprintf("%s was answered %d times at %s (PoP %s, region %s) while it was pinned elsewhere", r.ID(), has.Pinned, one.Node, one.PoP, one.Region))
		}
	}
	p.Functions = append(p.Functions, f)
}

// maxPlaced bounds what one node says, in bytes.
const maxPlaced = 8 << 20

func (a *API) askPlaced(ctx context.Context, n seen) (out placedNode) {
	fail := func(err error) placedNode { return placedNode{err: err} }
	addr := ""
	for _, m := range a.logNodes() {
		if m.Name == n.Node && m.Alive {
			addr = m.Peer
		}
	}
	if addr == "" {
		return fail(errors.New("it is away"))
	}
	c, err := peer.NewClient(peer.ClientConfig{Member: a.member, Addresses: []string{addr}, Expect: identity.Expect{Kind: identity.KindNode, Name: n.Node}})
	if err != nil {
		return fail(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, report.PlacedPath, nil)
	if err != nil {
		return fail(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fail(fmt.Errorf("it answers %s: is it of an older version?", resp.Status))
	}
	if out.node, err = peer.Of(resp); err != nil {
		return fail(err)
	}
	var list []report.Placed
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxPlaced)).Decode(&list); err != nil {
		return fail(err)
	}
	out.labels = function.LabelsOf(out.node.Name, out.node.PoP, out.node.Region, n.Labels)
	out.list = make(map[function.ID]report.Placed, len(list))
	for _, p := range list {
		out.list[function.ID{Project: p.Project, Name: p.Function}] = p
	}
	return out
}
