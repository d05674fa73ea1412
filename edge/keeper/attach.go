package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/selvage-edge/selvage/runtime/jail"
	"github.com/selvage-edge/selvage/runtime/sealed"
)

// ErrAlone says that this process was not started by a keeper.
var ErrAlone = errors.New("keeper: this process was not started by a keeper; start `selvage edge` instead")

// Attached is the server's side: the sockets it inherited and its keeper. Run
// and Ready are safe for use by many; sockets are taken by one.
type Attached struct {
	files   map[string]*os.File
	role    role
	link    *link
	lost    chan struct{} // closed when the keeper is gone
	ended   chan struct{} // closed when the process that Launch started is; nil without one
	reigns  *bell
	retires *bell
	seats   chan struct{} // taken by a request until its answer is here, also when nobody waits for it
	mu      struct {
		sync.Mutex
		next    uint64
		waiting map[uint64]chan jail.Outcome // nil when the keeper is gone
	}
}

var _ jail.Runner = (*Attached)(nil)

// Attach takes over what the keeper left for this process. Call it once, early;
// it removes its trace from the environment. ErrAlone when there is no keeper.
func Attach() (*Attached, error) {
	files, l, err := inherited()
	if err != nil {
		return nil, err
	}
	role, err := parseRole(os.Getenv(roleVariable))
	if err != nil {
		return nil, err
	}
	if err := os.Unsetenv(roleVariable); err != nil {
		return nil, fmt.Errorf("keeper: attach: %w", err)
	}
	a := attach(files, l)
	a.role = role
	return a, l.send(message{kind: hello, number: speaks}, nil)
}

func attach(files map[string]*os.File, l *link) *Attached {
	a := &Attached{files: files, link: l, lost: make(chan struct{}), seats: make(chan struct{}, maxPending),
		reigns: newBell(), retires: newBell()}
	a.mu.waiting = map[uint64]chan jail.Outcome{}
	go a.listen()
	return a
}

// bell rings once; that it has is seen by all.
type bell struct {
	rung chan struct{}
	once sync.Once
}

func newBell() *bell  { return &bell{rung: make(chan struct{})} }
func (b *bell) ring() { b.once.Do(func() { close(b.rung) }) }

// Listener hands over the inherited TCP listener of that name, once. When it is
// closed and the keeper has closed its own, the port is.
func (a *Attached) Listener(name string) (net.Listener, error) {
	return hand(a, name, net.FileListener)
}

// PacketConn hands over the inherited UDP socket of that name, a *net.UDPConn, once.
func (a *Attached) PacketConn(name string) (net.PacketConn, error) {
	return hand(a, name, net.FilePacketConn)
}

// hand gives a socket away. The file goes, so that nothing but what was
// handed out keeps the socket open.
func hand[T any](a *Attached, name string, open func(*os.File) (T, error)) (T, error) {
	var none T
	f, ok := a.files[name]
	if !ok {
		return none, fmt.Errorf("keeper: no socket %q was handed down, or it is taken already", name)
	}
	delete(a.files, name)
	defer f.Close()
	s, err := open(f)
	if err != nil {
		return none, fmt.Errorf("keeper: socket %s: %w", name, err)
	}
	return s, nil
}

// Has reports whether a socket of that name was handed down and is not yet taken.
func (a *Attached) Has(name string) bool { return a.files[name] != nil }

// Beside reports whether another server serves while this one gets ready: there
// is no hurry, and what clients get from it must be no less.
func (a *Attached) Beside() bool { return a.role.beside }

// Held reports that servers of this node died again and again with what they
// were told to serve: serve what last served well.
func (a *Attached) Held() bool { return a.role.held }

// ConnectionPrefix is how this server's QUIC connection IDs begin, so that the
// kernel hands each packet to the server whose connection it is.
func (a *Attached) ConnectionPrefix() [4]byte { return a.role.prefix }

// Reign is closed when what only one server of a node may do at a time is this
// one's. That is at once when there is no other.
func (a *Attached) Reign() <-chan struct{} { return a.reigns.rung }

// Retire is closed when another server has taken over: give up what only one
// may do, call Retired, finish what is under way, end.
func (a *Attached) Retire() <-chan struct{} { return a.retires.rung }

// Retired tells the keeper that this server does nothing any more that only one may do.
func (a *Attached) Retired() error { return a.link.send(message{kind: retired}, nil) }

// Ready tells the keeper that the server serves.
func (a *Attached) Ready() error { return a.link.send(message{kind: ready}, nil) }

// Lost is closed when the keeper is gone; the kernel kills this process then,
// unless it was started by hand.
func (a *Attached) Lost() <-chan struct{} { return a.lost }

// Close leaves the keeper, which ends its helpers for us, and closes the
// sockets that nobody took.
func (a *Attached) Close() error {
	a.link.close()
	<-a.lost
	for _, f := range a.files {
		f.Close()
	}
	return a.awaitEnd()
}

// Run implements jail.Runner: the keeper runs the helper.
func (a *Attached) Run(ctx context.Context, verb jail.Verb, input []byte) (jail.Result, error) {
	if !verb.Valid() {
		return jail.Result{}, fmt.Errorf("keeper: there is no verb %d", verb)
	}
	if int64(len(input)) > verb.MaxInput() {
		return jail.Result{}, &jail.Refused{Reason: fmt.Sprintf("the module has %d bytes; at most %d are taken", len(input), verb.MaxInput())}
	}
	f, err := sealed.New("selvage-input", input)
	if err != nil {
		return jail.Result{}, err
	}
	defer f.Close()
	o, err := a.request(ctx, verb, f)
	if err != nil {
		return jail.Result{}, err
	}
	return o.Result(verb)
}

func (a *Attached) request(ctx context.Context, verb jail.Verb, f *os.File) (jail.Outcome, error) {
	number, answer, err := a.expect(ctx)
	if err != nil {
		return jail.Outcome{}, err
	}
	if err := a.link.send(message{kind: run, verb: verb, number: number}, f); err != nil {
		a.take(number)
		<-a.seats
		return jail.Outcome{}, err
	}
	select {
	case o, ok := <-answer:
		if !ok {
			return jail.Outcome{}, errLost
		}
		return o, nil
	case <-ctx.Done():
		a.abandon(number, answer)
		return jail.Outcome{}, context.Cause(ctx)
	}
}

var errLost = errors.New("keeper: the keeper is gone")

// expect takes a seat and a number for a request.
func (a *Attached) expect(ctx context.Context) (uint64, <-chan jail.Outcome, error) {
	select {
	case a.seats <- struct{}{}:
	case <-a.lost:
		return 0, nil, errLost
	case <-ctx.Done():
		return 0, nil, context.Cause(ctx)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.waiting == nil {
		return 0, nil, errLost
	}
	a.mu.next++
	c := make(chan jail.Outcome, 1)
	a.mu.waiting[a.mu.next] = c
	return a.mu.next, c, nil
}

// abandon gives a request up, or drops the answer that is just being delivered.
func (a *Attached) abandon(number uint64, answer <-chan jail.Outcome) {
	if a.take(number) != nil {
		_ = a.link.send(message{kind: cancel, number: number}, nil) // a keeper that is gone has cancelled it
		return
	}
	if o, ok := <-answer; ok {
		o.Close()
	}
}

func (a *Attached) take(number uint64) chan jail.Outcome {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.mu.waiting[number]
	delete(a.mu.waiting, number)
	return c
}

// listen hears the keeper until it is gone.
func (a *Attached) listen() {
	defer close(a.lost)
	for {
		m, f, err := a.link.receive()
		if err != nil || !a.hear(m, f) {
			break
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.mu.waiting {
		close(c)
	}
	a.mu.waiting = nil
}

// hear takes one message; false when it is not a keeper's.
func (a *Attached) hear(m message, f *os.File) bool {
	switch m.kind {
	case done:
		a.deliver(m, f)
	case reign:
		a.reigns.ring()
	case retire:
		a.retires.ring()
	case hello, unknown:
		// An older keeper does without what it does not know.
	default:
		if f != nil {
			f.Close()
		}
		return false
	}
	return true
}

// deliver hands an answer to who waits for it, if somebody does.
func (a *Attached) deliver(m message, f *os.File) {
	<-a.seats
	o := jail.Outcome{Status: m.status, File: f, Wall: m.wall, CPU: m.cpu}
	if c := a.take(m.number); c != nil {
		c <- o
		return
	}
	o.Close()
}
