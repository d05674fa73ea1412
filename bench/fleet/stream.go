package fleet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// Bounds of connections, those of control/peer.
const (
	dialTime   = 5 * time.Second  // for TCP to connect
	shakeTime  = 10 * time.Second // for that and TLS
	answerTime = 15 * time.Second // for all until an answer's head has come
	deadAfter  = 25 * time.Second // without a word: an unanswered ping
	window     = 256 << 10        // bytes that may be under way
)

var (
	errReset   = errors.New("connection reset")
	errTimeout = errors.New("timeout")
)

// host is where handlers are served until it is killed.
type host struct {
	mesh    *mesh
	at      place
	ctx     context.Context
	kill    context.CancelFunc
	handler http.Handler
	running sync.WaitGroup // requests, and what carries their answers
	mu      sync.Mutex     // held where running grows, and to kill
	silent  bool           // once killed, nobody hears that connections ended
}

func newHost(m *mesh, at place, h http.Handler) *host {
	s := &host{mesh: m, at: at, handler: h}
	s.ctx, s.kill = context.WithCancel(context.Background())
	return s
}

// end kills the host and waits for what ran there.
func (s *host) end(silently bool) {
	s.mu.Lock()
	s.silent = silently
	s.kill()
	s.mu.Unlock()
	s.running.Wait()
}

// run runs what belongs to a request, unless the host was killed.
func (s *host) run(all ...func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return errReset
	}
	for _, f := range all {
		s.running.Go(f)
	}
	return nil
}

// road is the way from a place to a host: it does requests, whose answers come as their handlers
// write them, in order, late where packets are lost and not before a cut is healed.
type road struct {
	from place
	to   func() *host // nil: nobody is there
}

// Do implements agent.Doer.
func (r road) Do(q *http.Request) (*http.Response, error) {
	to := r.to()
	if to == nil || to.ctx.Err() != nil && !to.silent {
		return nil, errReset
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return nil, err
	}
	to.mesh.sent(len(body) + 200 + handshake) // its head, compressed
	ctx, cancel := context.WithTimeout(q.Context(), answerTime)
	defer cancel()
	if err := to.mesh.connect(ctx, r.from, to.at); err != nil {
		return nil, err
	}
	p := newPipe(to, r.from)
	q = q.Clone(p.ctx)
	q.Body = io.NopCloser(bytes.NewReader(body))
	err = to.run(func() { p.serve(q) }, p.bring)
	if err == nil {
		select {
		case <-p.begun:
			return &http.Response{StatusCode: p.status, Header: p.header, Body: p}, nil
		case <-to.ctx.Done():
			err = errReset
		case <-ctx.Done():
			err = errTimeout
		}
	}
	if to.ctx.Err() != nil && to.silent {
		<-ctx.Done()
		err = errTimeout
	}
	p.Close()
	return nil, err
}

// connect takes as long as the handshakes of TCP and TLS 1.3, and a request on its way: each
// request has a connection of its own.
func (m *mesh) connect(ctx context.Context, from, to place) error {
	if err := m.shake(ctx, from, to); err != nil {
		return err
	}
	return m.carry(ctx, from, to)
}

func (m *mesh) shake(ctx context.Context, from, to place) error {
	ctx, cancel := context.WithTimeout(ctx, shakeTime)
	defer cancel()
	if err := m.dial(ctx, from, to); err != nil {
		return err
	}
	return errors.Join(m.carry(ctx, from, to), m.carry(ctx, to, from))
}

// dial waits until TCP is connected: lost packets cost a second and more, as SYNs do.
func (m *mesh) dial(ctx context.Context, from, to place) error {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	for again := time.Second; m.unanswered(from, to); again *= 2 {
		if err := sleep(ctx, again); err != nil {
			return err
		}
	}
	return sleep(ctx, 2*latency(from, to))
}

// carry waits until a packet sent now, again if it is lost, has come.
func (m *mesh) carry(ctx context.Context, from, to place) error {
	for times := 0; m.lost(from, to); times++ {
		if err := sleep(ctx, retransmission(from, to, times)); err != nil {
			return err
		}
	}
	return sleep(ctx, latency(from, to))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// pipe is one answer on its way: a ResponseWriter at the host, a body at the other end.
type pipe struct {
	host   *host
	reader place
	ctx    context.Context // the handler's: ends when the reader is known to have gone
	gone   context.CancelFunc
	left   context.Context // ends when the reader closes
	leave  context.CancelFunc

	header http.Header
	status int
	once   sync.Once
	begun  chan struct{} // the head has come

	pending  bytes.Buffer // written, not flushed; the handler's
	deadline time.Time
	queue    chan piece
	room     chan struct{} // a token when less is under way
	mu       struct {
		sync.Mutex
		under int // bytes under way
	}
	come chan []byte // at the reader
	rest []byte
}

// piece is what one flush sent.
type piece struct {
	b    []byte
	sent time.Time
}

func newPipe(h *host, reader place) *pipe {
	p := &pipe{host: h, reader: reader, header: http.Header{}, status: http.StatusOK,
		begun: make(chan struct{}), queue: make(chan piece, 512), room: make(chan struct{}, 1), come: make(chan []byte, 64)}
	p.ctx, p.gone = context.WithCancel(h.ctx)
	p.left, p.leave = context.WithCancel(context.Background())
	return p
}

func (p *pipe) serve(q *http.Request) {
	p.host.handler.ServeHTTP(p, q)
	_ = p.FlushError() // the reader may have gone
	close(p.queue)
}

// Header implements http.ResponseWriter, as the next two do.
func (p *pipe) Header() http.Header { return p.header }

// WriteHeader sets the status.
func (p *pipe) WriteHeader(status int) { p.status = status }

// Write keeps b until Flush.
func (p *pipe) Write(b []byte) (int, error) { return p.pending.Write(b) }

// SetWriteDeadline implements what http.ResponseController looks for.
func (p *pipe) SetWriteDeadline(t time.Time) error {
	p.deadline = t
	return nil
}

// FlushError sends what was written, when there is room under way; it fails at the deadline.
func (p *pipe) FlushError() error {
	if p.pending.Len() == 0 {
		return nil
	}
	if err := p.admit(p.pending.Len()); err != nil {
		return err
	}
	p.host.mesh.sent(p.pending.Len())
	next := piece{append([]byte(nil), p.pending.Bytes()...), time.Now()}
	p.pending.Reset()
	select {
	case p.queue <- next: // it has room for more than fits a window
		return nil
	case <-p.ctx.Done():
		return errReset
	}
}

// admit waits until there is less than a window under way.
func (p *pipe) admit(n int) error {
	for {
		p.mu.Lock()
		if p.mu.under == 0 || p.mu.under+n <= window {
			p.mu.under += n
			p.mu.Unlock()
			return nil
		}
		p.mu.Unlock()
		select {
		case <-p.room:
		case <-p.ctx.Done():
			return errReset
		case <-time.After(time.Until(p.deadline)):
			return os.ErrDeadlineExceeded
		}
	}
}

// bring takes pieces to the reader, in order. It ends with the answer, the host or the reader's leave.
func (p *pipe) bring() {
	defer p.gone()
	defer p.hangUp()
	for {
		var next piece
		ok := false
		select {
		case next, ok = <-p.queue:
		case <-p.left.Done():
		case <-p.host.ctx.Done():
		}
		if !ok || p.pass(next) != nil {
			break
		}
		p.once.Do(func() { close(p.begun) })
		p.arrived(next)
	}
	p.farewell()
}

// hangUp tells the reader that there is no more.
func (p *pipe) hangUp() {
	if p.host.ctx.Err() == nil || !p.host.silent {
		close(p.come)
	}
}

// arrived hands the piece to the reader.
func (p *pipe) arrived(next piece) {
	p.mu.Lock()
	p.mu.under -= len(next.b)
	p.mu.Unlock()
	select {
	case p.room <- struct{}{}:
	default:
	}
	select {
	case p.come <- next.b:
	case <-p.left.Done():
	case <-p.host.ctx.Done():
	}
}

// pass waits until the piece has come: counted from when it was sent, for others may be under way at once.
func (p *pipe) pass(next piece) error {
	at, m := next.sent.Add(latency(p.host.at, p.reader)), p.host.mesh
	for times := 0; m.lost(p.host.at, p.reader); times++ {
		at = at.Add(retransmission(p.host.at, p.reader, times))
		if err := p.wait(at); err != nil { // it is lost or not when it is sent
			return err
		}
	}
	return p.wait(at)
}

func (p *pipe) wait(until time.Time) error {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-p.left.Done():
		return io.EOF
	case <-p.host.ctx.Done():
		return errReset
	}
}

// farewell lets the host know that the reader has left: as soon as it can be told, or it does not answer.
func (p *pipe) farewell() {
	if p.left.Err() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(p.host.ctx, deadAfter)
	defer cancel()
	_ = p.host.mesh.carry(ctx, p.reader, p.host.at) // either way it is over
}

// Read implements the body.
func (p *pipe) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		dead := time.NewTimer(deadAfter)
		defer dead.Stop()
		select {
		case next, ok := <-p.come:
			if !ok {
				return 0, io.EOF
			}
			p.rest = next
		case <-p.left.Done():
			return 0, errReset
		case <-dead.C:
			return 0, errTimeout
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// Close implements the body.
func (p *pipe) Close() error {
	p.leave()
	return nil
}
