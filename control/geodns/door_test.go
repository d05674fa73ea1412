package geodns

import (
	"net"
	"net/netip"
	"testing"
)

// queue is a listener at which connections of these addresses come.
type queue struct{ from []string }

func (q *queue) Accept() (net.Conn, error) {
	if len(q.from) == 0 {
		return nil, net.ErrClosed
	}
	at := netip.AddrPortFrom(netip.MustParseAddr(q.from[0]), 5353)
	q.from = q.from[1:]
	ours, _ := net.Pipe()
	return &from{ours, net.TCPAddrFromAddrPort(at)}, nil
}

func (*queue) Close() error   { return nil }
func (*queue) Addr() net.Addr { return nil }

type from struct {
	net.Conn
	addr net.Addr
}

func (f *from) RemoteAddr() net.Addr { return f.addr }

// accepted are those that d lets in of the connections that come.
func accepted(d *door, q *queue, come ...string) (in []net.Conn) {
	q.from = come
	for {
		c, err := d.Accept()
		if err != nil {
			return in
		}
		in = append(in, c)
	}
}

// A client, and who is in its network, has a part of the places and leaves the rest to others.
func TestOneNetworkHasAPartOfThePlaces(t *testing.T) {
	for _, c := range []struct{ one, same, other string }{
		{"192.0.2.1", "192.0.2.77", "192.0.3.1"},
		{"::ffff:192.0.2.1", "192.0.2.77", "192.0.3.1"},
		{"2001:db8:0:100::1", "2001:db8:0:1ff::77", "2001:db8:0:200::1"},
	} {
		q := &queue{}
		d := newDoor(q, 48) // of which a network has 3
		in := accepted(d, q, c.one, c.one, c.same, c.same, c.one, c.other, c.other)
		if len(in) != 5 {
			t.Fatalf("%s and %s have %d of 48 places, want 3 and 2", c.one, c.other, len(in))
		}
		in[0].Close()
		in[0].Close() // a place is given back once
		if again := accepted(d, q, c.same, c.one); len(again) != 1 {
			t.Errorf("%s has %d places for one given back", c.one, len(again))
		}
	}
}

func TestPlacesAreBoundedInAll(t *testing.T) {
	q := &queue{}
	d := newDoor(q, 3)
	in := accepted(d, q, "192.0.2.1", "192.0.2.2", "198.51.100.1", "203.0.113.1")
	if len(in) != 3 {
		t.Errorf("%d have a place of 3", len(in))
	}
	for _, c := range in {
		c.Close()
	}
	if d.mu.open != 0 || len(d.mu.from) != 0 {
		t.Errorf("left: %d, %v", d.mu.open, d.mu.from)
	}
}
