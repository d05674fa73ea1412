package fleet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// mesh is a network in memory with latency, loss and partitions. In a synctest
// bubble its time is virtual.
type mesh struct {
	mu struct {
		sync.Mutex
		ports   map[string]*meshTransport
		loss    float64
		blocked func(a, b netip.Addr) bool
	}
}

const meshLatency = 20 * time.Millisecond

func newMesh() *mesh {
	m := &mesh{}
	m.mu.ports = map[string]*meshTransport{}
	m.mu.blocked = func(netip.Addr, netip.Addr) bool { return false }
	return m
}

// split makes packets and connections between addresses fail that blocked names.
func (m *mesh) split(blocked func(a, b netip.Addr) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.blocked = blocked
}

func (m *mesh) heal() { m.split(func(netip.Addr, netip.Addr) bool { return false }) }

// meshTransport is one node's place in the mesh.
type meshTransport struct {
	mesh    *mesh
	addr    netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

var _ memberlist.NodeAwareTransport = (*meshTransport)(nil)

func (m *mesh) open(addr netip.AddrPort) *meshTransport {
	t := &meshTransport{
		mesh: m, addr: addr, packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn, 64), closed: make(chan struct{}),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.ports[addr.String()] = t
	return t
}

// reach returns who is at addr, nil if a packet from t does not arrive.
func (t *meshTransport) reach(addr string, lossy bool) *meshTransport {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil
	}
	t.mesh.mu.Lock()
	defer t.mesh.mu.Unlock()
	if t.mesh.mu.blocked(t.addr.Addr(), to.Addr()) || lossy && rand.Float64() < t.mesh.mu.loss {
		return nil
	}
	return t.mesh.mu.ports[addr]
}

func (t *meshTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.addr.Addr().AsSlice(), int(t.addr.Port()), nil
}

func (t *meshTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	to := t.reach(addr, true)
	if to == nil {
		return now, nil
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(t.addr)}
	time.AfterFunc(meshLatency+rand.N(meshLatency), func() {
		p.Timestamp = time.Now()
		select {
		case to.packets <- p:
		case <-to.closed:
		default:
		}
	})
	return now, nil
}

func (t *meshTransport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

func (t *meshTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *meshTransport) StreamCh() <-chan net.Conn           { return t.streams }

func (t *meshTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to := t.reach(addr, false)
	if to == nil {
		select {
		case <-time.After(timeout):
		case <-t.closed:
		}
		return nil, fmt.Errorf("dial %s: timeout", addr)
	}
	time.Sleep(2 * meshLatency)
	near, far := net.Pipe()
	select {
	case to.streams <- meshConn{far, net.TCPAddrFromAddrPort(t.addr)}:
		to.hangUp() // if it has closed meanwhile, nobody will
		return near, nil
	case <-to.closed:
		return nil, errors.New("refused")
	}
}

func (t *meshTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

func (t *meshTransport) Shutdown() error {
	t.once.Do(func() {
		close(t.closed)
		t.hangUp()
		t.mesh.mu.Lock()
		defer t.mesh.mu.Unlock()
		if t.mesh.mu.ports[t.addr.String()] == t {
			delete(t.mesh.mu.ports, t.addr.String())
		}
	})
	return nil
}

// hangUp closes, once t is closed, the connections that nobody accepted: who
// writes to one would wait for ever.
func (t *meshTransport) hangUp() {
	select {
	case <-t.closed:
	default:
		return
	}
	for {
		select {
		case c := <-t.streams:
			c.Close()
		default:
			return
		}
	}
}

type meshConn struct {
	net.Conn
	from net.Addr
}

func (c meshConn) RemoteAddr() net.Addr { return c.from }
