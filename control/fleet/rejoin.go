package fleet

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// rejoin looks, for as long as the fleet is open, for members that are missing.
// It is what heals a partition that lasted longer than memberlist remembers.
func (f *Fleet) rejoin() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-timer.C:
		}
		f.seek()
		if err := f.seeds.save(); err != nil {
			f.config.Log.Warn("seeds are not saved; a restart starts with the configured ones", "component", "fleet", "err", err)
		}
		timer.Reset(f.config.Rejoin/2 + rand.N(f.config.Rejoin))
	}
}

// seek tries one missing member, or, when this node is alone, one after the
// other until somebody answers.
func (f *Fleet) seek() {
	missing := f.missing()
	rand.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
	if f.view.alive() > 1 && len(missing) > 1 {
		missing = missing[:1]
	}
	for _, a := range missing {
		if f.ctx.Err() != nil {
			return
		}
		n, err := f.list.Join([]string{a.String()})
		if n > 0 {
			f.seeds.rejoins.Add(1)
			return
		}
		f.seeds.failures.Add(1)
		f.config.Log.Debug("a member that should be there does not answer; it is tried again", "address", a, "err", err)
	}
}

// missing lists the addresses where a member may be and none is known alive.
func (f *Fleet) missing() []netip.AddrPort {
	skip := map[netip.AddrPort]bool{}
	for _, m := range f.view.snapshot(func(m *Member) bool { return m.Health == Alive }) {
		skip[m.Gossip] = true
	}
	var list []netip.AddrPort
	add := func(a netip.AddrPort) {
		if !skip[a] {
			skip[a] = true
			list = append(list, a)
		}
	}
	for _, s := range f.config.Seeds {
		for _, a := range f.lookup(s) {
			add(a)
		}
	}
	for _, s := range f.seeds.list() {
		if m, ok := f.view.get(s.Name); !ok || m.Health != Alive {
			add(s.Address)
		}
	}
	return list
}

// lookup returns a configured seed's addresses, none when it has none now.
func (f *Fleet) lookup(s string) []netip.AddrPort {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return nil // Validate saw it; nothing to look for
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return nil
	}
	ips := []netip.Addr{}
	if ip, err := netip.ParseAddr(host); err == nil {
		ips = append(ips, ip)
	} else if ips, err = f.config.Resolver.LookupNetIP(f.ctx, "ip", host); err != nil {
		f.config.Log.Warn("a seed's name does not resolve", "component", "fleet", "seed", s, "err", err)
		return nil
	}
	var list []netip.AddrPort
	for _, ip := range ips {
		list = append(list, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	return list
}
