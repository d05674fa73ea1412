package forward

import (
	"sync"
	"time"
)

// How long connections to other nodes may take to be made, for one exchange: a client
// waits. One that takes longer is still made, and serves the exchanges after.
const (
	reachPlaced   = 2 * time.Second
	reachOverflow = 500 * time.Millisecond
)

// How long a node that was not reached is not tried again: twice as long each time.
const (
	shyFirst = 2 * time.Second
	shyMost  = 16 * time.Second
)

// shy remembers which nodes were not reached, by name.
type shy struct {
	now func() time.Time
	mu  struct {
		sync.Mutex
		of map[string]spell
	}
}

type spell struct {
	until time.Time
	wait  time.Duration
}

// from returns the peers that are to be tried now, at most maxTries.
func (s *shy) from(peers []Peer) (some []Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for _, p := range peers {
		if !now.Before(s.mu.of[p.Name].until) {
			some = append(some, p)
		}
		if len(some) == maxTries {
			break
		}
	}
	return some
}

// missed notes that a node was not reached. Exchanges that found so together count once.
func (s *shy) missed(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for other, sp := range s.mu.of {
		if now.Sub(sp.until) > shyMost {
			delete(s.mu.of, other) // long ago, or no more
		}
	}
	if s.mu.of == nil {
		s.mu.of = map[string]spell{}
	}
	sp := s.mu.of[name]
	if now.Before(sp.until) {
		return
	}
	sp.wait = min(max(2*sp.wait, shyFirst), shyMost)
	sp.until = now.Add(sp.wait)
	s.mu.of[name] = sp
}

// reached forgets that it was not.
func (s *shy) reached(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.of, name)
}
