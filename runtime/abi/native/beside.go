package native

import (
	"io"

	"github.com/selvage-edge/selvage/sdk/abi"
)

// pieceBytes is how much of a body is read before the guest asks for it.
const pieceBytes = 16 << 10

// A bell wakes the session's goroutine where it waits for what runs beside it.
type bell chan struct{}

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default: // whoever waits will look at everything
	}
}

// work is at most one piece of work that runs beside the session's goroutine,
// which alone calls its methods. The zero value is none.
type work struct{ under chan struct{} }

// begin starts do, which must return once the invocation's context is over.
func (w *work) begin(b bell, do func()) {
	over := make(chan struct{})
	w.under = over
	go func() {
		do()
		close(over)
		b.ring()
	}()
}

// idle reports whether nothing is under way: what it did can be seen then.
func (w *work) idle() bool {
	select {
	case <-w.under:
		w.under = nil
	default:
	}
	return w.under == nil
}

// join waits until nothing is under way.
func (w *work) join() {
	if w.under != nil {
		<-w.under
		w.under = nil
	}
}

// inbound is a body that the guest reads. A guest that waits for it has one
// piece read ahead, and the next only after it took that one.
type inbound struct {
	work
	src   io.Reader // from when it is first asked for
	piece []byte
	have  []byte // of piece: not yet taken
	err   error  // what came after it; every later read gives it
}

// ready reports whether Read would not wait; if it would, a piece is on its way.
func (i *inbound) ready(b bell) bool {
	if !i.idle() {
		return false
	}
	if len(i.have) > 0 || i.err != nil {
		return true
	}
	if i.piece == nil {
		i.piece = make([]byte, pieceBytes)
	}
	i.begin(b, func() {
		n := 0
		for n == 0 && i.err == nil {
			n, i.err = i.src.Read(i.piece)
		}
		i.have = i.piece[:n]
	})
	return false
}

// Read takes what was read ahead, or else reads into p.
func (i *inbound) Read(p []byte) (int, error) {
	i.join()
	switch {
	case len(i.have) > 0:
		n := copy(p, i.have)
		i.have = i.have[n:]
		return n, nil
	case i.err != nil:
		return 0, i.err
	}
	return i.src.Read(p)
}

// outbound is a body that the guest writes. After a wait that found it ready the
// next write goes on behind the guest, from a copy; any other is waited for.
type outbound struct {
	work
	behind bool // the next one is to
	copied []byte
	err    error // of one that went on behind
}

// ready reports whether nothing is under way; then the next write may go on behind.
func (o *outbound) ready() bool {
	o.behind = o.idle()
	return o.behind
}

// may waits for the write before and reports whether one of n bytes may go on
// behind the guest.
func (o *outbound) may(n int) (bool, error) {
	o.join()
	behind := o.behind && n <= abi.WaitBytes
	o.behind = false
	return behind, o.err
}

// write has write send a copy of the parts behind the guest.
func (o *outbound) write(b bell, write func([]byte) error, parts ...[]byte) {
	o.copied = o.copied[:0]
	for _, p := range parts {
		o.copied = append(o.copied, p...)
	}
	o.begin(b, func() { o.err = write(o.copied) })
}
