package invoke

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/edge/geo"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
)

var _ guest.Exchange = (*exchange)(nil)

// exchange is one HTTP request and its answer, as a guest sees them.
type exchange struct {
	w       http.ResponseWriter
	r       *http.Request
	version *function.Version
	meta    telemetry.Meta
	where   Locator       // nil: not known
	place   *geo.Place    // where the client is, if that is known already
	body    io.ReadCloser // nil: no body
	bodyEnd atomic.Bool   // it was read to its end
	invited bool          // the client was told to send it

	// The answer. Its head is held back until bytes must go, so that a fault
	// before that still becomes a status.
	head      answerHead
	hasHead   bool
	committed atomic.Bool
	length    [1]string     // the Content-Length header's value
	written   int64         // body bytes the guest gave
	trailers  []native.Pair // named as net/http wants them

	// heads is held while the answer's header is touched: the body may be read
	// meanwhile, and a read that fails has something to say there too.
	heads sync.Mutex

	mu struct {
		sync.Mutex
		interrupted bool
		reading     bool
		writing     int // one at most, and an invitation beside it
		patience    patience
	}
}

func newExchange(w http.ResponseWriter, r *http.Request, v *function.Version, m telemetry.Meta) *exchange {
	x := &exchange{w: w, r: r, version: v, meta: m}
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return x
	}
	// Without w: it would touch the header, from whatever goroutine reads.
	x.body = http.MaxBytesReader(nil, r.Body, v.Limits.WithDefaults().RequestBody)
	return x
}

// admit refuses a request that says itself that it is too large.
func (x *exchange) admit() error {
	if x.body != nil && x.r.ContentLength > x.version.Limits.WithDefaults().RequestBody {
		return x.tooLarge(nil)
	}
	return nil
}

func (x *exchange) tooLarge(cause error) *fault.Error {
	limit := x.version.Limits.WithDefaults().RequestBody
	return &fault.Error{
		Kind: fault.BodyTooLarge, Limit: strconv.FormatInt(limit, 10) + " bytes",
		Knob: fault.BodyTooLarge.Knob(), Cause: cause,
	}
}

// RequestID names the exchange in the function's log.
func (x *exchange) RequestID() string { return x.meta.RequestID }

// StartBy is when the request has waited too long to be started.
func (x *exchange) StartBy() time.Time { return x.meta.StartBy }

// AppendHead encodes the request head.
func (x *exchange) AppendHead(b []byte) []byte {
	var place geo.Place
	switch {
	case x.place != nil:
		place = *x.place
	case x.where != nil:
		place = x.where.Lookup(x.meta.Client.Addr())
	}
	return appendRequestHead(b, x.r, x.version, &x.meta, &place, x.body != nil)
}

// control is for what is rare: most exchanges need nothing of it.
func (x *exchange) control() *http.ResponseController { return http.NewResponseController(x.w) }

// HasBody reports whether the client may send a body.
func (x *exchange) HasBody() bool { return x.body != nil }

// ReadBody reads from the client.
func (x *exchange) ReadBody(p []byte) (int, error) {
	if x.body == nil {
		return 0, io.EOF
	}
	if err := x.invite(); err != nil {
		return 0, err
	}
	if err := x.beginRead(); err != nil {
		return 0, err
	}
	n, err := x.body.Read(p)
	if err == io.EOF {
		x.bodyEnd.Store(true)
	}
	x.endRead(n)
	if n > 0 || err == nil || err == io.EOF {
		return n, dropAfterBytes(n, err)
	}
	return 0, x.readFault(err)
}

// invite sends the 100 that a client waits for with its body (RFC 9110 §10.1.1).
// net/http does so by itself; http3 leaves it to the handler.
func (x *exchange) invite() error {
	if x.r.ProtoMajor != 3 || x.invited {
		return nil
	}
	x.invited = true
	if len(x.r.Header["Expect"]) == 0 {
		return nil
	}
	return x.inform(answerHead{status: http.StatusContinue, declared: -1})
}

// dropAfterBytes hides an error that came with bytes: the next read gives it again.
func dropAfterBytes(n int, err error) error {
	if n > 0 {
		return nil
	}
	return err
}

func (x *exchange) readFault(err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		x.hangUp()
		return x.tooLarge(err)
	case x.late():
		return x.slow(err)
	case x.gone(), x.r.ProtoMajor > 1, brokenOff(err):
		return fault.New(fault.Canceled, "while its body was read", err)
	}
	return fault.New(fault.BodyBroken, "", err)
}

// hangUp has the connection end with this exchange: or net/http waits for the
// rest of the request before it answers.
func (x *exchange) hangUp() {
	x.heads.Lock()
	defer x.heads.Unlock()
	if x.r.ProtoMajor == 1 && !x.committed.Load() {
		x.w.Header().Set("Connection", "close")
	}
}

// brokenOff tells a connection that ended from a body that is not well-formed:
// HTTP/1 has chunks that can be. In HTTP/2 and 3 only the stream can end.
func brokenOff(err error) bool {
	var n net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &n)
}

// gone reports whether the client, or the invocation, is no more.
func (x *exchange) gone() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.mu.interrupted || x.r.Context().Err() != nil
}

// WriteHead checks a head. A final one is held back until the body begins.
func (x *exchange) WriteHead(status int, headers []byte) error {
	head, err := checkHead(status, headers)
	if err != nil {
		return err
	}
	if x.hasHead {
		return badResponse("a second response head, status %d after %d", status, x.head.status)
	}
	if status < 200 {
		return x.inform(head)
	}
	x.head, x.hasHead = head, true
	return nil
}

// inform sends a 1xx head at once. HTTP/1.0 has none (RFC 9110 §15.2).
func (x *exchange) inform(head answerHead) error {
	if !x.r.ProtoAtLeast(1, 1) {
		return nil
	}
	if err := x.beginWrite(); err != nil {
		return err
	}
	defer x.endWrite()
	x.heads.Lock()
	defer x.heads.Unlock()
	if x.committed.Load() {
		return nil
	}
	dst := x.w.Header()
	before := dst.Clone()
	head.apply(dst)
	x.w.WriteHeader(head.status)
	clear(dst)
	for name, values := range before {
		dst[name] = values
	}
	return nil
}

// WriteBody sends bytes and waits until the connection took them.
func (x *exchange) WriteBody(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if err := x.count(p); err != nil {
		return err
	}
	x.commit(true)
	return x.send(p)
}

// Flush sends the head and what was written.
func (x *exchange) Flush() error {
	if err := x.beginWrite(); err != nil {
		return err
	}
	defer x.endWrite()
	x.commit(true)
	if x.r.Method == http.MethodHead && x.r.ProtoMajor == 2 {
		return nil // it would end the stream, and with it the guest: net/http takes both for one
	}
	if err := x.control().Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fault.New(fault.Canceled, "while its answer was sent", err)
	}
	return nil
}

// Finish sends the last bytes. An answer that was not begun until now has a
// known length, and says it.
func (x *exchange) Finish(p []byte) error {
	if err := x.count(p); err != nil {
		return err
	}
	if !x.bodyless() && x.head.declared >= 0 && x.written != x.head.declared {
		return badResponse("content-length %d, but the body has %d bytes", x.head.declared, x.written)
	}
	x.trail()
	if !x.committed.Load() && x.head.declared < 0 && len(x.trailers) == 0 && x.lengthKnown(p) {
		x.head.declared = int64(len(p))
	}
	x.commit(x.reading())
	if len(p) == 0 {
		return nil
	}
	return x.send(p)
}

// lengthKnown reports whether p is all a GET would be answered with. A HEAD
// answered without any bytes says nothing about that.
func (x *exchange) lengthKnown(p []byte) bool {
	if x.r.Method == http.MethodHead {
		return len(p) > 0
	}
	return !x.bodyless()
}

// bodyless reports whether the answer has no body, whatever the guest wrote:
// the client would take it for the next answer (RFC 9110 §6.4.1).
func (x *exchange) bodyless() bool {
	return x.r.Method == http.MethodHead || x.head.status == http.StatusNoContent || x.head.status == http.StatusNotModified
}

// count counts the guest's bytes against the length it declared.
func (x *exchange) count(p []byte) error {
	x.written += int64(len(p))
	if !x.bodyless() && x.head.declared >= 0 && x.written > x.head.declared {
		return badResponse("content-length %d, but the body is longer", x.head.declared)
	}
	return nil
}

// duplex lets the guest read on after its answer has begun. HTTP/1 in net/http
// swallows the rest of the request at that point, unless told not to; then
// again it does not look where the request ends before it takes the next one
// from the connection, so the connection has to end with this exchange.
func (x *exchange) duplex() {
	if x.body == nil || x.bodyEnd.Load() || x.r.ProtoMajor != 1 {
		return
	}
	if x.control().EnableFullDuplex() == nil {
		x.w.Header().Set("Connection", "close")
	}
}

// reading reports whether the body is being read: by the node, ahead of a guest
// that has returned meanwhile.
func (x *exchange) reading() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.mu.reading
}

// commit hands the head to the connection. From here on a fault can only break
// the answer off. readOn says that the body may still be read.
func (x *exchange) commit(readOn bool) {
	if x.committed.Load() {
		return
	}
	x.heads.Lock()
	defer x.heads.Unlock()
	if readOn {
		x.duplex()
	}
	x.committed.Store(true)
	x.head.apply(x.w.Header())
	if x.head.declared >= 0 && x.head.status != http.StatusNoContent && x.head.status != http.StatusNotModified {
		// A 204 must not say a length (RFC 9110 §8.6), a 304 need not, and clients are known to wait for its body.
		x.length[0] = strconv.FormatInt(x.head.declared, 10)
		x.w.Header()["Content-Length"] = x.length[:]
	}
	x.w.WriteHeader(x.head.status)
}

func (x *exchange) send(p []byte) error {
	if x.bodyless() {
		return nil
	}
	if err := x.beginWrite(); err != nil {
		return err
	}
	defer x.endWrite()
	if x.r.ProtoMajor == 2 {
		// p is lent by a guest. When a stream is reset, net/http's HTTP/2 comes
		// back from Write while its connection still reads p: by then p may be
		// another guest's memory. It is never reused, so the copy may stay behind.
		p = bytes.Clone(p)
	}
	if _, err := x.w.Write(p); err != nil {
		return fault.New(fault.Canceled, "while its answer was sent", err)
	}
	return nil
}

// long past is a deadline that wakes whoever waits on the connection.
var longPast = time.Unix(1, 0)

// Interrupt wakes a waiting read or write, for good. It may come from any goroutine.
func (x *exchange) Interrupt() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mu.interrupted = true
	if x.mu.reading {
		_ = x.control().SetReadDeadline(longPast) // not supported: the read ends with the client
	}
	if x.mu.writing > 0 {
		_ = x.control().SetWriteDeadline(longPast)
		if x.body != nil && x.r.ProtoMajor == 1 {
			// net/http may read what is left of the request before it sends a head.
			_ = x.control().SetReadDeadline(longPast)
		}
	}
}

// beginWrite marks a wait on the connection, which Interrupt may cut short. The
// write deadline is touched only in the middle of a write: a TLS connection
// whose write timed out is of no more use, and a fault still needs its status sent.
func (x *exchange) beginWrite() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.interruptedLocked(); err != nil {
		return err
	}
	x.mu.writing++
	return nil
}

func (x *exchange) endWrite() {
	x.mu.Lock()
	x.mu.writing--
	x.mu.Unlock()
}

func (x *exchange) interruptedLocked() error {
	if x.mu.interrupted {
		return fault.New(fault.Canceled, "", context.Canceled)
	}
	return nil
}
