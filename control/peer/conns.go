package peer

import (
	"net"
	"sync"
)

// connSet holds a client's open connections, so that closing it ends them all:
// a transport forgets only those that are idle.
type connSet struct {
	mu struct {
		sync.Mutex
		closed bool
		open   map[*countedConn]struct{}
	}
}

func newConnSet() *connSet {
	s := &connSet{}
	s.mu.open = map[*countedConn]struct{}{}
	return s
}

type countedConn struct {
	net.Conn
	set *connSet
}

// add takes c into the set; it closes c and fails if the set is closed.
func (s *connSet) add(c net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		c.Close()
		return nil, ErrClosed
	}
	counted := &countedConn{c, s}
	s.mu.open[counted] = struct{}{}
	return counted, nil
}

// Close closes the connection and takes it out of the set.
func (c *countedConn) Close() error {
	c.set.mu.Lock()
	delete(c.set.mu.open, c)
	c.set.mu.Unlock()
	return c.Conn.Close()
}

func (s *connSet) close() {
	s.mu.Lock()
	s.mu.closed = true
	open := s.mu.open
	s.mu.open = map[*countedConn]struct{}{}
	s.mu.Unlock()
	for c := range open {
		c.Conn.Close()
	}
}
