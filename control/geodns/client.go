package geodns

import (
	"errors"
	"net/netip"

	"github.com/miekg/dns"
)

// How much of an address tells one client's network from another: what EDNS
// Client Subnet gives at most (RFC 7871 §11.1), and where an answer is good.
const (
	bits4 = 24
	bits6 = 56
)

// client is who asks, as far as an answer depends on it.
type client struct {
	addr    netip.Addr
	subnet  *dns.EDNS0_SUBNET // as it was sent; nil if none was
	byPlace bool              // the answer depended on addr
	from    *Table            // what the name is answered from: it is the one that was asked for, also after aliases
}

var errSubnet = errors.New("a client subnet that is not well-formed")

// clientOf reads EDNS Client Subnet (RFC 7871): it is the client if it says
// anything; who sent the query is, otherwise.
func clientOf(opt *dns.OPT, from netip.Addr) (client, error) {
	c := client{addr: from.Unmap().WithZone("")}
	if opt == nil {
		return c, nil
	}
	for _, o := range opt.Option {
		s, ok := o.(*dns.EDNS0_SUBNET)
		if !ok {
			continue
		}
		if c.subnet != nil || s.SourceScope != 0 {
			return c, errSubnet
		}
		c.subnet = s
		if s.Family == 0 && s.SourceNetmask == 0 {
			continue
		}
		p, err := subnetOf(s)
		if err != nil {
			return c, err
		}
		if p.Bits() > 0 {
			c.addr = p.Addr()
		}
	}
	return c, nil
}

func subnetOf(s *dns.EDNS0_SUBNET) (netip.Prefix, error) {
	ip := s.Address
	if s.Family == 1 {
		ip = ip.To4() // a slice of 16 bytes, after unpacking
	}
	a, ok := netip.AddrFromSlice(ip)
	if s.Family == 1 && ok && !a.Is4() || s.Family == 2 && ok && a.Is4() || s.Family != 1 && s.Family != 2 {
		return netip.Prefix{}, errSubnet
	}
	p := netip.PrefixFrom(a, int(s.SourceNetmask))
	if !ok || !p.IsValid() || p.Masked() != p { // bits beyond the mask must be 0 (§6)
		return netip.Prefix{}, errSubnet
	}
	return p, nil
}

// network returns the part of the address that answers depend on.
func (c *client) network() netip.Prefix {
	bits := bits6
	if c.addr.Is4() {
		bits = bits4
	}
	p, _ := c.addr.Prefix(bits) // of a valid address
	return p
}

// key is the same on every server, so that all pass the same clients on.
func (c *client) key() uint64 {
	b := c.network().Addr().As16()
	var h uint64
	for i := 0; i < 16; i += 8 {
		var w uint64
		for _, x := range b[i : i+8] {
			w = w<<8 | uint64(x)
		}
		h = mix(h, w)
	}
	return h
}

// answered is the option to send back: the client's own, with how much of it the
// answer is good for.
func (c *client) answered() *dns.EDNS0_SUBNET {
	s := *c.subnet
	s.SourceScope = 0
	if c.byPlace {
		most := uint8(bits6)
		if s.Family == 1 {
			most = bits4
		}
		s.SourceScope = min(s.SourceNetmask, most)
	}
	return &s
}
