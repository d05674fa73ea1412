package fetch

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

// TestOwnAddresses: a port of the fleet that listens on every address is not
// reached through any of this machine's own, public or allowed as they may be.
func TestOwnAddresses(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	everything := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	g := newGate(everything, []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:9001")})
	for _, a := range addrs {
		ip := netip.MustParsePrefix(a.String()).Addr()
		var no *denied
		if err := g.check(netip.AddrPortFrom(ip, 9001)); !errors.As(err, &no) {
			t.Errorf("%s, port 9001: %v", ip, err)
		}
		if err := g.check(netip.AddrPortFrom(ip, 9002)); err != nil {
			t.Errorf("%s, port 9002: %v", ip, err)
		}
	}
	if err := g.check(netip.MustParseAddrPort("9.9.9.9:9001")); err != nil {
		t.Errorf("another machine: %v", err)
	}
}
