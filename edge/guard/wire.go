package guard

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// Wire returns conn with its HTTP/1 requests checked before net/http parses
// them. net/http accepts, and hides from handlers, what RFC 9112 calls an
// attack: both body sizes at once, bare LF, folded fields, thousands of lines.
//
// A head is held back until it is complete and sound; one that is not is
// replaced by a request that Guard.Request refuses, and is the last of its
// connection. Bodies pass through; broken chunk framing is a read error. A head
// that is not complete headTimeout after its first byte (0: never) is refused
// too; net/http cannot tell, since it sees no byte of an incomplete head.
func Wire(conn net.Conn, headTimeout time.Duration) net.Conn {
	return &wire{Conn: conn, headTimeout: headTimeout}
}

// wire is read by one goroutine at a time, as net/http does.
type wire struct {
	net.Conn
	headTimeout time.Duration

	buf     []byte // read from the connection, not yet handed on
	passed  int    // how many bytes of buf may be handed on
	seen    int    // where the last, incomplete line of a head in buf begins
	body    body
	refused bool // the last head, or what broke a body, was replaced: nothing more is handed on

	deadline deadline
}

// deadline is the earlier of net/http's read deadline, which any goroutine may
// set, and the one of an incomplete head.
type deadline struct {
	sync.Mutex
	outer, head time.Time
}

// errBody says that a body's framing is broken.
var errBody = errors.New("malformed chunked body")

// lingerTime and lingerBytes bound how long a refused client is listened to, so
// that what it still sends does not reset the connection under our answer.
const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 256 << 10
	minRead     = 2 << 10 // room for one read
)

// ConnectionState tells net/http that this connection is encrypted.
func (w *wire) ConnectionState() tls.ConnectionState {
	if c, ok := w.Conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		return c.ConnectionState()
	}
	return tls.ConnectionState{}
}

// Read hands on checked bytes only. A deadline that passes while a head is
// incomplete loses nothing.
func (w *wire) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for w.passed == 0 {
		switch {
		case w.refused:
			return 0, io.EOF
		case w.body.remains > 0 && len(w.buf) == 0:
			n, err := w.Conn.Read(p[:min(int64(len(p)), w.body.remains)])
			w.body.skip(n)
			return n, err
		}
		if err := w.more(); err != nil {
			return 0, err
		}
	}
	n := copy(p, w.buf[:w.passed])
	w.passed -= n
	w.buf = w.buf[:copy(w.buf, w.buf[n:])]
	return n, nil
}

// more checks what is there, and reads when it is not enough.
func (w *wire) more() error {
	if len(w.buf) > 0 && w.check() {
		return nil
	}
	w.buf = slices.Grow(w.buf, minRead)
	n, err := w.Conn.Read(w.buf[len(w.buf):cap(w.buf)])
	w.buf = w.buf[:len(w.buf)+n]
	if n > 0 {
		return nil // an error will come again
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && w.headIsLate() {
		w.refuse(errSlowHead)
		return nil
	}
	return err
}

// check moves passed on, and reports whether it, or the fate of the connection, is decided.
func (w *wire) check() bool {
	if w.body.open() {
		n, err := w.body.scan(w.buf)
		if w.passed = n; err != nil {
			w.poison()
		}
		return w.passed > 0
	}
	n, seen := headEnd(w.buf, w.seen)
	if n == 0 {
		if w.seen = seen; len(w.buf) > MaxHeadBytes {
			w.refuse(tooLarge(w.buf))
		}
		w.startHead()
		return w.refused
	}
	w.seen = 0
	w.endHead()
	f, verdict := checkWireHead(w.buf[:n])
	if n > MaxHeadBytes && verdict == nil {
		verdict = errHead
	}
	if verdict != nil {
		w.refuse(verdict)
		return true
	}
	w.passed, w.body = n, newBody(f)
	return true
}

// brokenChunk is what net/http takes for broken wherever framing may go on.
const brokenChunk = "\r\x00\r\n"

// poison puts broken framing of our own in the place of the client's. An error
// from Read would make net/http take the client for gone, and cancel the request
// whose handler could still say 400.
func (w *wire) poison() {
	w.refused = true
	w.buf = append(w.buf[:w.passed], brokenChunk...)
	w.passed = len(w.buf)
}

func (w *wire) refuse(verdict *Error) {
	w.refused = true
	w.buf = verdictHead(verdict)
	w.passed = len(w.buf)
}

// tooLarge says which part of an endless head is.
func tooLarge(head []byte) *Error {
	if i := bytes.IndexByte(head, '\n'); i < 0 || i > MaxURLBytes+64 {
		return errURL
	}
	return errHead
}

// headEnd returns the length of the head that b begins with, its blank line
// included, or 0 and where to go on from. A bare LF ends a line here: the check
// then refuses it.
func headEnd(b []byte, from int) (n, seen int) {
	for i := from; ; {
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			return 0, i
		}
		if line := b[i : i+j]; len(line) == 0 || len(line) == 1 && line[0] == '\r' {
			return i + j + 1, 0
		}
		i += j + 1
	}
}

// startHead starts the clock of an incomplete head, once.
func (w *wire) startHead() {
	w.deadline.Lock()
	defer w.deadline.Unlock()
	if w.headTimeout > 0 && w.deadline.head.IsZero() {
		w.deadline.head = time.Now().Add(w.headTimeout)
		_ = w.applyDeadlineLocked()
	}
}

// headIsLate reports whether a head has begun and its time, or net/http's, is
// over. A deadline of before the head is how net/http wakes whoever reads.
func (w *wire) headIsLate() bool {
	w.deadline.Lock()
	defer w.deadline.Unlock()
	head, outer, now := w.deadline.head, w.deadline.outer, time.Now()
	return !head.IsZero() && (!now.Before(head) || outer.After(head.Add(-w.headTimeout)) && !now.Before(outer))
}

func (w *wire) endHead() {
	w.deadline.Lock()
	defer w.deadline.Unlock()
	if !w.deadline.head.IsZero() {
		w.deadline.head = time.Time{}
		_ = w.applyDeadlineLocked()
	}
}

// SetReadDeadline sets net/http's deadline.
func (w *wire) SetReadDeadline(t time.Time) error {
	w.deadline.Lock()
	defer w.deadline.Unlock()
	w.deadline.outer = t
	return w.applyDeadlineLocked()
}

// SetDeadline sets both directions'.
func (w *wire) SetDeadline(t time.Time) error {
	return errors.Join(w.SetReadDeadline(t), w.SetWriteDeadline(t))
}

func (w *wire) applyDeadlineLocked() error {
	t := w.deadline.outer
	if head := w.deadline.head; !head.IsZero() && (t.IsZero() || head.Before(t)) {
		t = head
	}
	return w.Conn.SetReadDeadline(t)
}

// Close closes the connection; after a refusal it first lets the client finish
// what it is sending, for a bounded time.
func (w *wire) Close() error {
	if w.refused {
		w.linger()
	}
	return w.Conn.Close()
}

func (w *wire) linger() {
	if c, ok := w.Conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		_ = w.Conn.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, w.Conn, lingerBytes)
	}
}
