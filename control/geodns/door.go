package geodns

import (
	"net"
	"net/netip"
	"sync"
)

// door bounds the connections open at once, in all and from one network: one more is
// closed unread.
type door struct {
	net.Listener
	most, fromOne int
	mu            struct {
		sync.Mutex
		open int
		from map[netip.Prefix]int
	}
}

// networkPart is the part of the places that one network may have, and atLeast how many those are at least.
const (
	networkPart = 16
	atLeast     = 2
)

func newDoor(l net.Listener, most int) *door {
	d := &door{Listener: l, most: most, fromOne: max(most/networkPart, atLeast)}
	d.mu.from = map[netip.Prefix]int{}
	return d
}

// Accept returns the next connection that there is a place for.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		network := networkOf(c.RemoteAddr())
		if d.enter(network) {
			return &guest{Conn: c, leave: sync.OnceFunc(func() { d.leave(network) })}, nil
		}
		c.Close()
	}
}

// networkOf is what answers depend on: an IPv4 /24, or an IPv6 /56.
func networkOf(a net.Addr) netip.Prefix {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	return (&client{addr: t.AddrPort().Addr().Unmap()}).network()
}

func (d *door) enter(network netip.Prefix) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.open >= d.most || d.mu.from[network] >= d.fromOne {
		return false
	}
	d.mu.open++
	d.mu.from[network]++
	return true
}

func (d *door) leave(network netip.Prefix) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.open--
	if d.mu.from[network]--; d.mu.from[network] == 0 {
		delete(d.mu.from, network)
	}
}

// guest is a connection that gives its place back.
type guest struct {
	net.Conn
	leave func()
}

// Close closes it.
func (g *guest) Close() error {
	defer g.leave()
	return g.Conn.Close()
}
