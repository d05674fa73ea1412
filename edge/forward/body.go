package forward

import (
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"sync"

	"github.com/selvage-edge/selvage/edge/guard"
)

// keep is how much of a request's body is kept, so that another node can be offered
// it from its start.
const keep = 64 << 10

// errWithdrawn ends the reads of an offer that no longer stands.
var errWithdrawn = errors.New("the request's body is offered to another")

// body is the client's, which is read once and can be offered again while what was
// read of it is kept. Whoever reads may be cut short at any time, and the client
// be slow: so it is read on goroutines of its own, one at a time, when somebody
// wants more. One may go on until the server ends the request.
type body struct {
	from   *http.Request
	trails []string // what may come after it, as the request's head names it
	mu     struct {
		sync.Mutex
		buf  []byte        // what was read and may be read by an offer
		base int64         // bytes of the body before buf
		more chan struct{} // a read is under way; closed when it is over
		err  error         // after buf
		last *offer
	}
}

// bodyOf returns nil if the request has none.
func bodyOf(r *http.Request) *body {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil
	}
	source := *r // r gets another body if nobody takes it
	b := &body{from: &source}
	for name := range r.Trailer { // now: the server writes there as it reads the body
		if name = textproto.CanonicalMIMEHeaderKey(name); guard.MayTrail(name) {
			b.trails = append(b.trails, name)
		}
	}
	return b
}

// trailers are those of a request to another node, without their values yet.
func (b *body) trailers() http.Header {
	if len(b.trails) == 0 {
		return nil
	}
	h := http.Header{}
	for _, name := range b.trails {
		h[name] = nil
	}
	return h
}

// touched reports whether any of it was asked for.
func (b *body) touched() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.buf != nil
}

// lost reports whether it can no longer be offered.
func (b *body) lost() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.base > 0
}

// offer returns the body from its start, and ends the offer before. No more than is
// kept can be read before it is taken. Trailers get their values at its end.
func (b *body) offer(trailers http.Header) (*offer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.last != nil {
		b.mu.last.withdraw()
	}
	if b.mu.base > 0 {
		return nil, errWithdrawn
	}
	b.mu.last = &offer{body: b, trailers: trailers, gone: make(chan struct{}), taken: make(chan struct{})}
	return b.mu.last, nil
}

// take lets the last offer be read beyond what is kept.
func (b *body) take() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.last.took.Do(func() { close(b.mu.last.taken) })
}

// want returns what is closed when there is more. b.mu is held; all of buf was read.
func (b *body) want() <-chan struct{} {
	if b.mu.more != nil {
		return b.mu.more
	}
	if b.mu.buf == nil {
		b.mu.buf = make([]byte, 0, b.room())
	}
	if b.mu.base > 0 || len(b.mu.buf) == cap(b.mu.buf) {
		b.mu.base += int64(len(b.mu.buf))
		b.mu.buf = b.mu.buf[:0]
	}
	b.mu.more = make(chan struct{})
	go b.fill(b.mu.buf[len(b.mu.buf):cap(b.mu.buf)], b.mu.more)
	return b.mu.more
}

// room is what the buffer has, with one byte more than a small body for its end to be seen.
func (b *body) room() int64 {
	if n := b.from.ContentLength; n > 0 && n < keep {
		return n + 1
	}
	return keep
}

func (b *body) fill(room []byte, done chan<- struct{}) {
	n, err := b.from.Body.Read(room)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.buf = b.mu.buf[:len(b.mu.buf)+n]
	b.mu.err, b.mu.more = err, nil
	close(done)
}

// Trailer is what came after the body, once it was read to its end.
func (b *body) Trailer() http.Header {
	if t, ok := b.from.Body.(interface{ Trailer() http.Header }); ok {
		return t.Trailer()
	}
	return b.from.Trailer
}

// offer is the body as one node reads it.
type offer struct {
	*body
	trailers http.Header
	at       int64
	gone     chan struct{}
	closed   sync.Once
	taken    chan struct{}
	took     sync.Once
}

// Read returns as soon as the offer is closed.
func (o *offer) Read(p []byte) (int, error) {
	for {
		select {
		case <-o.gone:
			return 0, errWithdrawn
		default:
		}
		n, more, err := o.next(p)
		if more == nil {
			if err == io.EOF {
				o.trail()
			}
			return n, err
		}
		select {
		case <-more:
		case <-o.gone:
			return 0, errWithdrawn
		}
	}
}

// next copies what there is, or says what to wait for.
func (o *offer) next(p []byte) (n int, more <-chan struct{}, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if left := o.mu.buf[max(o.at-o.mu.base, 0):]; len(left) > 0 || len(p) == 0 {
		n = copy(p, left)
		o.at += int64(n)
		return n, nil, nil
	}
	if o.mu.err != nil {
		return 0, nil, o.mu.err
	}
	if full := len(o.mu.buf) > 0 && len(o.mu.buf) == cap(o.mu.buf); full && o.mu.base == 0 {
		select {
		case <-o.taken:
		default:
			return 0, o.taken, nil
		}
	}
	return 0, o.want(), nil
}

func (o *offer) trail() {
	for name := range o.trailers {
		o.trailers[name] = o.Trailer()[name]
	}
}

func (o *offer) withdraw() { o.closed.Do(func() { close(o.gone) }) }

// Close ends the offer and the reads of it, not the client's body, which is the server's.
func (o *offer) Close() error {
	o.withdraw()
	return nil
}
