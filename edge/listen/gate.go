package listen

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

// gate bounds the connections that are open: of the node, and of each client, so
// that nobody can take them all. A client is an IPv4 address, or the /64 network
// of an IPv6 address, which is what one subscriber gets.
type gate struct {
	most, each int
	mu         struct {
		sync.Mutex
		open    int
		clients map[netip.Addr]int // no entry for a client without connections
	}
	node, client atomic.Int64 // refused, by bound
}

func newGate(most, each int) *gate {
	g := &gate{most: most, each: each}
	g.mu.clients = map[netip.Addr]int{}
	return g
}

// enter reports whether a connection from addr may be opened; if so, leave must
// be called once when it ends.
func (g *gate) enter(addr net.Addr) bool {
	client := clientOf(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.mu.open >= g.most:
		g.node.Add(1)
		return false
	case g.mu.clients[client] >= g.each:
		g.client.Add(1)
		return false
	}
	g.mu.open++
	g.mu.clients[client]++
	return true
}

func (g *gate) leave(addr net.Addr) {
	client := clientOf(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.open--
	if g.mu.clients[client]--; g.mu.clients[client] == 0 {
		delete(g.mu.clients, client)
	}
}

// taken is how many connections are open.
func (g *gate) taken() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return int64(g.mu.open)
}

// crowded reports whether so much is taken that a source address should be
// proven first: one that is forged must not use up what is its owner's, or the
// node's.
func (g *gate) crowded(addr net.Addr) bool {
	client := clientOf(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.open >= (g.most+1)/2 || g.mu.clients[client] >= (g.each+3)/4
}

// enterQUIC is enter for a connection whose context is done when it has ended,
// or its handshake has.
func (g *gate) enterQUIC(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	if !g.enter(info.RemoteAddr) {
		return nil, errCrowded
	}
	context.AfterFunc(ctx, func() { g.leave(info.RemoteAddr) })
	return ctx, nil
}

var errCrowded = errors.New("listen: too many connections")

// clientOf is whom a connection from addr is counted for.
func clientOf(addr net.Addr) netip.Addr {
	var ap netip.AddrPort
	switch a := addr.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() {
		p, _ := ip.Prefix(64) // 64 bits there are
		return p.Addr()
	}
	return ip
}

// spareDescriptors are left to everything but clients' connections: images,
// code, files, backends, the fleet.
const spareDescriptors = 1024

// affordable is how many connections the process's descriptors are enough for.
func affordable() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<30 {
		return 1 << 30
	}
	n := int(limit.Cur)
	return max(n-spareDescriptors, n/2, 1)
}
