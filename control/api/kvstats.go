package api

import (
	"context"
	"time"

	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

func (a *API) namespaceStats(_ context.Context, c *call) (*reply, error) {
	ns, err := c.namespace()
	if err != nil {
		return nil, err
	}
	out := NamespaceStats{Namespace: ns.Name, StaleBoundsMS: []int64{}, PoPs: []PoPUsage{}}
	if out.Size, err = a.cfg.Store.KV().Size(ns); err != nil {
		return nil, err
	}
	for _, b := range kv.StaleBounds {
		out.StaleBoundsMS = append(out.StaleBoundsMS, b.Milliseconds())
	}
	for _, n := range a.nodes() { // in the order of their PoPs
		last := len(out.PoPs) - 1
		if last < 0 || out.PoPs[last].PoP != n.PoP {
			out.PoPs = append(out.PoPs, PoPUsage{PoP: n.PoP})
			last++
		}
		p, u := &out.PoPs[last], usageOf(n, ns)
		p.add(n, u)
		out.Total.Add(u)
	}
	return &reply{json: out}, nil
}

// usageOf is what a node reported last of a namespace.
func usageOf(n seen, ns hostcall.Namespace) kv.Usage {
	for _, s := range n.KV {
		if s.Project == ns.Project && s.Namespace == ns.Name {
			return s.Usage
		}
	}
	return kv.Usage{}
}

func (p *PoPUsage) add(n seen, u kv.Usage) {
	p.Nodes++
	if n.away {
		p.Away++
	}
	if t := n.received.UTC(); !n.received.IsZero() && (p.Reported.IsZero() || t.Before(p.Reported)) {
		p.Reported = t.Truncate(time.Millisecond)
	}
	p.Usage.Add(u)
}
