package pool

import (
	"context"
	"errors"
	"sync"

	"github.com/selvage-edge/selvage/runtime/function"
)

// thing is what takes memory until it is closed.
type thing interface {
	Close()
	Bytes() int64
}

// shelf holds one thing per digest for as long as somebody has hold of it.
type shelf[T thing] struct {
	mu struct {
		sync.Mutex
		held  map[function.Digest]*hold[T]
		bytes int64 // of what is held
	}
}

// hold is one thing on a shelf.
type hold[T thing] struct {
	shelf  *shelf[T]
	digest function.Digest
	users  int           // guarded by the shelf
	ready  chan struct{} // closed once thing and err are set
	thing  T
	err    error
}

// take returns the thing with that digest, made by load if it is not there. Of
// those that want it at once one loads, and the others wait for that.
func (s *shelf[T]) take(ctx context.Context, digest function.Digest, load func(context.Context) (T, error)) (*hold[T], error) {
	for {
		h, mine := s.find(digest)
		if mine {
			if h.thing, h.err = load(ctx); h.err != nil {
				s.forget(h) // the next who wants it tries anew
			} else {
				s.weigh(h.thing.Bytes())
			}
			close(h.ready)
		}
		err := h.wait(ctx)
		if err == nil {
			return h, nil
		}
		h.release()
		if ctx.Err() != nil || mine || !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			return nil, err
		}
		// The one who was loading gave up; that is no reason for this one to.
	}
}

func (h *hold[T]) wait(ctx context.Context) error {
	select {
	case <-h.ready:
		return h.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// find returns the hold for digest, one user more; mine if the caller has to load it.
func (s *shelf[T]) find(digest function.Digest) (h *hold[T], mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h = s.mu.held[digest]; h == nil {
		if s.mu.held == nil {
			s.mu.held = map[function.Digest]*hold[T]{}
		}
		h, mine = &hold[T]{shelf: s, digest: digest, ready: make(chan struct{})}, true
		s.mu.held[digest] = h
	}
	h.users++
	return h, mine
}

// has reports whether there is something for digest, which nobody has to wait for.
func (s *shelf[T]) has(digest function.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.mu.held[digest]
	if h == nil {
		return false
	}
	select {
	case <-h.ready:
		return true
	default:
		return false
	}
}

// release gives one user's hold back; the last one closes the thing.
func (h *hold[T]) release() {
	s := h.shelf
	s.mu.Lock()
	h.users--
	last := h.users == 0
	if last {
		s.drop(h)
	}
	s.mu.Unlock()
	if last && h.err == nil {
		s.weigh(-h.thing.Bytes())
		h.thing.Close()
	}
}

// forget takes h from the shelf although others may still hold it.
func (s *shelf[T]) forget(h *hold[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(h)
}

// drop needs the lock.
func (s *shelf[T]) drop(h *hold[T]) {
	if s.mu.held[h.digest] == h {
		delete(s.mu.held, h.digest)
	}
}

func (s *shelf[T]) weigh(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.bytes += bytes
}

// size is how many things are held, and their bytes.
func (s *shelf[T]) size() (n int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.held), s.mu.bytes
}
