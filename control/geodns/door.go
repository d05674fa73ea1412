package geodns

import (
	"net"
	"sync"
)

// door bounds the connections open at once: one more is closed unread.
type door struct {
	net.Listener
	places chan struct{}
}

func newDoor(l net.Listener, most int) *door {
	return &door{l, make(chan struct{}, most)}
}

// Accept returns the next connection that there is a place for.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case d.places <- struct{}{}:
			return &guest{Conn: c, leave: sync.OnceFunc(func() { <-d.places })}, nil
		default:
			c.Close()
		}
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
