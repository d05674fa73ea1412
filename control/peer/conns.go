package peer

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// connSet holds a client's open connections, so that closing it ends them all:
// a transport forgets only those that are idle.
type connSet struct {
	began time.Time
	heard atomic.Int64 // when something came last, in nanoseconds since began; 0: never
	mu    struct {
		sync.Mutex
		closed bool
		open   map[*countedConn]struct{}
	}
}

func newConnSet() *connSet {
	s := &connSet{began: time.Now()}
	s.mu.open = map[*countedConn]struct{}{}
	return s
}

type countedConn struct {
	net.Conn
	set  *connSet
	made time.Time
}

// add takes c into the set; it closes c and fails if the set is closed.
func (s *connSet) add(c net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		c.Close()
		return nil, ErrClosed
	}
	counted := &countedConn{c, s, time.Now()}
	s.mu.open[counted] = struct{}{}
	return counted, nil
}

// Read notes when something came.
func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.set.heard.Store(int64(time.Since(c.set.began)))
	}
	return n, err
}

// lastHeard is when something came on any of them; the zero time: never.
func (s *connSet) lastHeard() time.Time {
	after := s.heard.Load()
	if after == 0 {
		return time.Time{}
	}
	return s.began.Add(time.Duration(after))
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

// drop closes those that were made before a time.
func (s *connSet) drop(before time.Time) {
	var old []*countedConn
	s.mu.Lock()
	for c := range s.mu.open {
		if c.made.Before(before) {
			old = append(old, c)
			delete(s.mu.open, c)
		}
	}
	s.mu.Unlock()
	for _, c := range old {
		c.Conn.Close()
	}
}
