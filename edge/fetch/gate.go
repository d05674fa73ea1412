package fetch

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
)

// gate decides, for each address about to be dialled, whether it may be. It
// stands at the socket, after DNS, so that no name, redirect or answer that
// changes between two lookups gets around it.
type gate struct {
	allow  []netip.Prefix
	refuse map[netip.AddrPort]bool
	why    string                // of an address that is neither public nor allowed
	local  func(netip.Addr) bool // whether an address is this machine's
}

// denied says why an address is not dialled.
type denied struct {
	addr netip.AddrPort
	why  string
}

func (d *denied) Error() string { return fmt.Sprintf("address %s: %s", d.addr, d.why) }

func newGate(allow []netip.Prefix, refuse []netip.AddrPort) *gate {
	g := &gate{allow: allow, refuse: map[netip.AddrPort]bool{}, local: isLocal,
		why: "not a public address; the operator may allow its network (fetch.allow)"}
	for _, a := range refuse {
		g.refuse[netip.AddrPortFrom(a.Addr().Unmap(), a.Port())] = true
	}
	return g
}

// public is the gate of backends that are not bound as private: whatever the
// operator allows, a name that somebody else may point elsewhere does not lead there.
func (g *gate) public() *gate {
	return &gate{refuse: g.refuse, local: g.local, why: "not a public address; bind the backend with private = true, if it is meant to be there"}
}

// control is a net.Dialer's ControlContext.
func (g *gate) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !strings.HasPrefix(network, "tcp") {
		return &denied{a, "not a TCP address: " + network + " " + address}
	}
	return g.check(a)
}

func (g *gate) check(a netip.AddrPort) error {
	zone := a.Addr().Zone() != ""
	ip := a.Addr().Unmap()
	a = netip.AddrPortFrom(ip, a.Port())
	switch {
	case zone:
		return &denied{a, "an address with a zone"}
	case g.refuse[a] || g.everywhere(a.Port()) && g.local(ip):
		return &denied{a, "one of the fleet's own ports"}
	case isMetadata(ip):
		if g.names(ip) {
			return nil
		}
		return &denied{a, "a cloud's metadata service; the operator may allow it by its full address"}
	case public(ip) || g.allows(ip):
		return nil
	}
	return &denied{a, g.why}
}

// everywhere reports whether one of the fleet's ports listens on every address.
func (g *gate) everywhere(port uint16) bool {
	return g.refuse[netip.AddrPortFrom(netip.IPv4Unspecified(), port)] || g.refuse[netip.AddrPortFrom(netip.IPv6Unspecified(), port)]
}

// isLocal asks the kernel each time: addresses come and go. When it cannot tell,
// every address counts as ours.
func isLocal(ip netip.Addr) bool {
	if ip.IsLoopback() || ip.IsUnspecified() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == ip {
			return true
		}
	}
	return false
}

func (g *gate) allows(ip netip.Addr) bool {
	for _, p := range g.allow {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

func (g *gate) names(ip netip.Addr) bool {
	for _, p := range g.allow {
		if p.IsSingleIP() && p.Addr() == ip {
			return true
		}
	}
	return false
}

// metadata are where clouds hand credentials to whoever asks. Some of them are
// public addresses.
var metadata = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), // most
	netip.MustParseAddr("169.254.169.253"),
	netip.MustParseAddr("169.254.170.2"), // container credentials
	netip.MustParseAddr("169.254.170.23"),
	netip.MustParseAddr("169.254.0.23"),
	netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("168.63.129.16"),
	netip.MustParseAddr("192.0.0.192"),
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("fd00:ec2::23"),
	netip.MustParseAddr("fd20:ce::254"),
}

func isMetadata(ip netip.Addr) bool {
	for _, m := range metadata {
		if ip == m {
			return true
		}
	}
	return false
}

// special are the parts of the public ranges that are not: IANA's registries
// of special-purpose addresses (RFC 6890 and those after it), and IPv6 forms
// that carry an IPv4 address to whoever translates them.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16",
	"192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)

// global6 is all of IPv6 that is given out; everything else, also 64:ff9b::/96
// and fc00::/7, lies outside.
var global6 = netip.MustParsePrefix("2000::/3")

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// public reports whether ip is a unicast address of the public internet.
func public(ip netip.Addr) bool {
	if ip.Is6() && !global6.Contains(ip) {
		return false
	}
	for _, p := range special {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}
