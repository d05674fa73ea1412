package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/selvage-edge/selvage/runtime/jail"
	"github.com/selvage-edge/selvage/runtime/sealed"
)

// maxPending bounds the requests of one server that run or wait for their turn.
const maxPending = 64

// broker answers one server: it runs helpers and hears that it is ready.
type broker struct {
	link    *link
	helpers FileRunner
	ready   chan struct{} // closed by the first ready
	broken  chan error    // the server broke the protocol
	ctx     context.Context
	stop    context.CancelFunc
	jobs    sync.WaitGroup
	served  chan struct{} // closed when serve is done
	mu      struct {
		sync.Mutex
		pending map[uint64]context.CancelFunc
	}
}

func newBroker(l *link, h FileRunner) *broker {
	b := &broker{link: l, helpers: h,
		ready: make(chan struct{}), broken: make(chan error, 1), served: make(chan struct{})}
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.mu.pending = map[uint64]context.CancelFunc{}
	return b
}

// serve reads requests until the server is gone or cannot be trusted.
func (b *broker) serve() {
	defer close(b.served)
	isReady := false
	for {
		m, f, err := b.link.receive()
		if err == nil {
			err = b.handle(m, f, &isReady)
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			b.broken <- err
			return
		}
	}
}

func (b *broker) handle(m message, f *os.File, isReady *bool) error {
	switch m.kind {
	case ready:
		if !*isReady {
			*isReady = true
			close(b.ready)
		}
	case run:
		return b.begin(m, f)
	case cancel:
		b.cancel(m.request)
	default:
		if f != nil {
			f.Close()
		}
		return fmt.Errorf("%w: a server does not send that", errMessage)
	}
	return nil
}

// begin runs a request on its own; f becomes the job's.
func (b *broker) begin(m message, f *os.File) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, twice := b.mu.pending[m.request]; twice || len(b.mu.pending) == maxPending {
		f.Close()
		return fmt.Errorf("%w: request %d is there already, or too many are", errMessage, m.request)
	}
	ctx, stop := context.WithCancel(b.ctx)
	b.mu.pending[m.request] = stop
	b.jobs.Go(func() {
		defer f.Close()
		b.reply(m.request, b.work(ctx, m.verb, f))
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
	o, err := b.helpers.RunFile(ctx, verb, input)
	if err == nil {
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
	m := message{kind: done, status: o.Status, request: request, wall: o.Wall, cpu: o.CPU}
	if err := b.link.send(m, o.File); err != nil {
		b.link.close()
	}
}

// close ends what runs for a server that is gone.
func (b *broker) close() {
	b.stop()
	b.link.close()
	<-b.served
	b.jobs.Wait()
}
