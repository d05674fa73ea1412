package geodns

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/fleet"
)

// lookAgain is how often the fleet is looked at: answers follow it so much later.
const lookAgain = 500 * time.Millisecond

// Follow keeps the server's fleet what membership says, and its hosts what the catalog
// says, until ctx ends. Without a catalog (nil) all functions run anywhere.
func (s *Server) Follow(ctx context.Context, members func() []fleet.Member, snapshot func() *catalog.Snapshot) {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	var was []standing
	var read *catalog.Snapshot
	var hosts *Hosts
	for first := true; ; first = false {
		all, moved := members(), false
		if snapshot != nil {
			if snap := snapshot(); snap != read {
				hosts, read, moved = s.hosts(snap), snap, true
			}
		}
		if now := standings(all); first || moved || !slices.Equal(now, was) {
			if err := s.SetFleet(all, hosts); err != nil {
				s.config.Log.Error("the fleet as it is now cannot be answered with", "err", err)
			}
			was = now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) hosts(snap *catalog.Snapshot) *Hosts {
	h := HostsOf(snap.Releases())
	if h != nil && h.over > 0 {
		s.config.Log.Warn("hosts have more different placements than are told apart: the others are answered with the nearest PoP, which hands their requests on",
			"most", MaxPins, "over", h.over)
	}
	return h
}

// PoPsOf gathers members, which are ordered by name, into PoPs. A PoP is as well
// as its best node, and has the addresses of the nodes that are as well.
func PoPsOf(members []fleet.Member) []PoP {
	var pops []PoP
	index := map[string]int{}
	nodes := map[string]int{} // whose load is added up
	for _, m := range members {
		if m.Meta.Role != fleet.Node || m.Health == fleet.Left {
			continue
		}
		name := m.Meta.PoP
		i, ok := index[name]
		if !ok {
			i = len(pops)
			index[name] = i
			pops = append(pops, PoP{Name: name, Region: m.Meta.Region, State: states})
		}
		p := &pops[i]
		p.place(m.Meta.Site)
		state := stateOf(m)
		if state > p.State {
			continue
		}
		if state < p.State {
			p.State, p.Addresses, p.Load, p.Weight, nodes[name] = state, nil, 0, 0, 0
		}
		p.Addresses = append(p.Addresses, addressesOf(m.Meta)...)
		nodes[name]++
		weight, load := 1.0, 0.0
		if m.Meta.Site.Told {
			weight, load = float64(m.Meta.Site.Weight)/100, float64(m.Meta.Site.Load)/100
		}
		p.Weight = max(p.Weight, weight)
		p.Load += (load - p.Load) / float64(nodes[name])
	}
	return pops
}

func (p *PoP) place(s fleet.Site) {
	if s.Located && !p.Located {
		p.Located, p.Latitude, p.Longitude = true, s.Latitude, s.Longitude
	}
}

func stateOf(m fleet.Member) State {
	switch {
	case m.Health != fleet.Alive:
		return Dead
	case m.Meta.Leaving || m.Meta.Draining:
		return Draining
	}
	return Serving
}

// addressesOf are those a node's users reach it at: what it says for DNS, else
// its public address if that is an IP address.
func addressesOf(m fleet.Meta) (all []netip.AddrPort) {
	public, err := netip.ParseAddrPort(m.Public)
	port := public.Port()
	if err != nil {
		port = defaultPort
	}
	for _, a := range []netip.Addr{m.Site.V4, m.Site.V6} {
		if a.IsValid() {
			all = append(all, netip.AddrPortFrom(a, port))
		}
	}
	if len(all) == 0 && err == nil {
		all = append(all, netip.AddrPortFrom(public.Addr().Unmap().WithZone(""), port))
	}
	return all
}
