package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/runtime/jail"
	"github.com/selvage-edge/selvage/runtime/sealed"
)

// maxPending bounds the requests of one server that run or wait for their turn.
const maxPending = 64

// broker answers one server: it runs helpers of the server's own program, and
// hears how the server is.
type broker struct {
	link    *link
	helpers Helpers
	exe     string            // the helpers' program
	told    func(fact, error) // what the server says of itself; from one goroutine
	ctx     context.Context
	stop    context.CancelFunc
	jobs    sync.WaitGroup
	speaks  atomic.Uint64 // the newest protocol the server knows; 0 until it said so
	mu      struct {
		sync.Mutex
		pending map[uint64]context.CancelFunc
		served  chan struct{} // closed when serve is done
	}
}

func newBroker(l *link, h Helpers, exe string, told func(fact, error)) *broker {
	b := &broker{link: l, helpers: h, exe: exe, told: told}
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.mu.pending = map[uint64]context.CancelFunc{}
	b.mu.served = make(chan struct{})
	return b
}

// served is closed when the serve that runs, or is about to, is done.
func (b *broker) served() chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.served
}

// serve reads requests until the server is gone or cannot be trusted, or pause.
func (b *broker) serve() {
	defer close(b.served())
	for {
		m, f, err := b.link.receive()
		if err == nil {
			err = b.handle(m, f)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			b.told(broke, err)
			return
		}
	}
}

func (b *broker) handle(m message, f *os.File) error {
	switch m.kind {
	case hello:
		if b.speaks.CompareAndSwap(0, max(m.number, 1)) {
			b.told(greeted, nil)
		}
	case ready:
		b.told(serves, nil)
	case retired:
		b.told(gaveUp, nil)
	case run:
		return b.begin(m, f)
	case cancel:
		b.cancel(m.number)
	case unknown:
		// Nothing is sent to a server that it must know.
	default:
		if f != nil {
			f.Close()
		}
		return fmt.Errorf("%w: a server does not send that", errMessage)
	}
	return nil
}

// pause stops reading, and returns when no helper runs any more. What the server
// asks meanwhile waits in the socket, for serve or for another keeper.
func (b *broker) pause() {
	_ = b.link.conn.SetReadDeadline(time.Unix(1, 0))
	<-b.served()
	b.jobs.Wait()
}

// resume undoes pause; serve follows.
func (b *broker) resume() {
	_ = b.link.conn.SetReadDeadline(time.Time{})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.served = make(chan struct{})
}

// begin runs a request on its own; f becomes the job's.
func (b *broker) begin(m message, f *os.File) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, twice := b.mu.pending[m.number]; twice || len(b.mu.pending) == maxPending {
		f.Close()
		return fmt.Errorf("%w: request %d is there already, or too many are", errMessage, m.number)
	}
	ctx, stop := context.WithCancel(b.ctx)
	b.mu.pending[m.number] = stop
	b.jobs.Go(func() {
		defer f.Close()
		b.reply(m.number, b.work(ctx, m.verb, f))
	})
	return nil
}

func (b *broker) cancel(request uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if stop, ok := b.mu.pending[request]; ok { // else its answer is under way
		stop()
	}
}

// work runs the helper; what kept it from being run is told in words.
func (b *broker) work(ctx context.Context, verb jail.Verb, input *os.File) jail.Outcome {
	o, err := b.helpers.RunFileOf(ctx, b.exe, verb, input)
	if err == nil {
		if o.Status == jail.Killed && b.speaks.Load() < knowsKilled {
			o.Status = jail.Crashed // it knows no other; the text says it
		}
		return o
	}
	o.Close()
	status := jail.Crashed
	if no := new(jail.Refused); errors.As(err, &no) {
		status = jail.Declined
	}
	text, terr := sealed.New("selvage-text", []byte(err.Error()))
	if terr != nil {
		text = nil
	}
	return jail.Outcome{Status: status, File: text}
}

// reply forgets the request and sends how it ended. A server that cannot be
// told is gone or will be found broken by the reader.
func (b *broker) reply(request uint64, o jail.Outcome) {
	defer o.Close()
	b.mu.Lock()
	b.mu.pending[request]()
	delete(b.mu.pending, request)
	b.mu.Unlock()
	m := message{kind: done, status: o.Status, number: request, wall: o.Wall, cpu: o.CPU}
	if err := b.link.send(m, o.File); err != nil {
		b.link.close()
	}
}

// close ends what runs for a server that is gone.
func (b *broker) close() {
	b.stop()
	b.link.close()
	<-b.served()
	b.jobs.Wait()
}
