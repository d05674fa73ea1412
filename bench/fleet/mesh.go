package fleet

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// mesh is the network: sites on a sphere, with latency by distance, loss, and cuts
// between sites. Its time is that of the bubble it is used in.
type mesh struct {
	bytes atomic.Int64 // sent by all, on the wire
	mu    struct {
		sync.Mutex
		r     *rand.Rand
		ports map[netip.AddrPort]*port
		loss  float64
		cut   map[string]bool // sites that reach, and are reached from, only one another
	}
}

// place is where something stands: nodes of one site are near one another.
type place struct {
	site    string
	x, y, z float64 // on the unit sphere
}

const (
	inside   = 250 * time.Microsecond // one way, in a site
	farthest = 130 * time.Millisecond // one way, to the other side of the earth
)

func newMesh(r *rand.Rand) *mesh {
	m := &mesh{}
	m.mu.r, m.mu.ports, m.mu.cut = r, map[netip.AddrPort]*port{}, map[string]bool{}
	return m
}

// somewhere is a place drawn from all of the sphere.
func somewhere(r *rand.Rand, site string) place {
	z, a := 2*r.Float64()-1, 2*math.Pi*r.Float64()
	h := math.Sqrt(1 - z*z)
	return place{site, h * math.Cos(a), h * math.Sin(a), z}
}

func latency(a, b place) time.Duration {
	dot := a.x*b.x + a.y*b.y + a.z*b.z
	return inside + time.Duration(math.Acos(max(-1, min(1, dot)))/math.Pi*float64(farthest))
}

func (m *mesh) setLoss(loss float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.loss = loss
}

// split cuts sites off from the others; none heals the cut.
func (m *mesh) split(sites ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.mu.cut)
	for _, s := range sites {
		m.mu.cut[s] = true
	}
}

func (m *mesh) blocked(a, b place) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.cut[a.site] != m.mu.cut[b.site]
}

// lost draws whether a packet between places is.
func (m *mesh) lost(a, b place) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.cut[a.site] != m.mu.cut[b.site] || a.site != b.site && m.mu.r.Float64() < m.mu.loss
}

// unanswered draws whether a packet is lost, or what answers it.
func (m *mesh) unanswered(a, b place) bool { return m.lost(a, b) || m.lost(b, a) }

// Headers on the wire.
const (
	ipUDP   = 28
	segment = 1400                     // bytes of a stream in a packet
	ipTCP   = 52                       // of it, and of an acknowledgement
	record  = 22                       // TLS
	frame   = 9                        // HTTP/2
	beside  = 2*ipTCP + record + frame // of a packet with data and its acknowledgement

	handshake = 4 << 10 // TCP and TLS with a certificate from each side
)

// sent counts a piece of a stream.
func (m *mesh) sent(n int) { m.bytes.Add(int64(n + (n+segment-1)/segment*beside)) }

// retransmission is how long after it was sent a lost packet of a stream is sent again:
// first about when one that came later was acknowledged (RACK), then by the timer, which doubles.
func retransmission(a, b place, times int) time.Duration {
	rtt := 2 * latency(a, b)
	if times == 0 {
		return rtt + rtt/4 + 10*time.Millisecond
	}
	return min((rtt+200*time.Millisecond)<<min(times-1, 12), 2*time.Minute)
}

// port is where a member's gossip is reached: memberlist's transport.
type port struct {
	mesh    *mesh
	at      place
	addr    netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

var _ memberlist.NodeAwareTransport = (*port)(nil)

func (m *mesh) open(at place, addr netip.AddrPort) *port {
	p := &port{mesh: m, at: at, addr: addr, packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn, 64), closed: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.ports[addr] = p
	return p
}

func (p *port) other(addr string) *port {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil
	}
	p.mesh.mu.Lock()
	defer p.mesh.mu.Unlock()
	return p.mesh.mu.ports[to]
}

// FinalAdvertiseAddr implements memberlist.Transport, as the other methods do.
func (p *port) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return p.addr.Addr().AsSlice(), int(p.addr.Port()), nil
}

// WriteTo sends a packet, which may be lost.
func (p *port) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	p.mesh.bytes.Add(int64(len(b) + ipUDP))
	to := p.other(addr)
	if to == nil || p.mesh.lost(p.at, to.at) {
		return now, nil
	}
	packet := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(p.addr)}
	time.AfterFunc(latency(p.at, to.at), func() {
		packet.Timestamp = time.Now()
		select {
		case to.packets <- packet:
		case <-to.closed:
		default:
		}
	})
	return now, nil
}

// WriteToAddress is WriteTo.
func (p *port) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return p.WriteTo(b, a.Addr)
}

// PacketCh is where packets come.
func (p *port) PacketCh() <-chan *memberlist.Packet { return p.packets }

// StreamCh is where connections come.
func (p *port) StreamCh() <-chan net.Conn { return p.streams }

// DialTimeout connects; lost packets of the handshake cost a second and more, as SYNs do.
// What then goes over the connection comes at once.
func (p *port) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to := p.other(addr)
	if to == nil {
		time.Sleep(inside)
		return nil, fmt.Errorf("dial %s: refused", addr)
	}
	wait := 4 * latency(p.at, to.at)
	for again := time.Second; wait < timeout && p.mesh.unanswered(p.at, to.at); again *= 2 {
		wait += again
	}
	select {
	case <-time.After(min(wait, timeout)):
	case <-p.closed:
		return nil, errors.New("closed")
	}
	if wait >= timeout || p.mesh.blocked(p.at, to.at) {
		return nil, fmt.Errorf("dial %s: timeout", addr)
	}
	near, far := net.Pipe()
	select {
	case to.streams <- gossipConn{far, p.mesh, net.TCPAddrFromAddrPort(p.addr)}:
		to.hangUp() // if it has closed meanwhile, nobody will
		return gossipConn{near, p.mesh, net.TCPAddrFromAddrPort(to.addr)}, nil
	case <-to.closed:
		return nil, errors.New("refused")
	}
}

// DialAddressTimeout is DialTimeout.
func (p *port) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return p.DialTimeout(a.Addr, timeout)
}

// Shutdown closes the port; who dials it is refused.
func (p *port) Shutdown() error {
	p.once.Do(func() {
		p.mesh.mu.Lock()
		if p.mesh.mu.ports[p.addr] == p {
			delete(p.mesh.mu.ports, p.addr)
		}
		p.mesh.mu.Unlock()
		close(p.closed)
		p.hangUp()
	})
	return nil
}

// hangUp closes, once p is closed, the connections that nobody accepted: who
// writes to one would wait for ever.
func (p *port) hangUp() {
	select {
	case <-p.closed:
	default:
		return
	}
	for {
		select {
		case c := <-p.streams:
			c.Close()
		default:
			return
		}
	}
}

// gossipConn counts what is written to it.
type gossipConn struct {
	net.Conn
	mesh *mesh
	peer net.Addr
}

func (c gossipConn) RemoteAddr() net.Addr { return c.peer }

func (c gossipConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.mesh.sent(n)
	return n, err
}
