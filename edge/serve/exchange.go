package serve

import (
	"io"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/edge/guard"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/fault"
)

// exchange is what is known of one request on its way through the stages.
type exchange struct {
	r        *http.Request
	w        response
	body     requestBody
	id       [1]string // as the values of its header
	client   netip.AddrPort
	protocol string // the client's
	start    time.Time
	canon    guard.Canon
	target   *Target
	startBy  time.Time
	ticket   limit.Ticket
	span     *telemetry.Span // nil: it is not traced
	usage    Usage
	ran      bool // its function was begun here
	passing
}

// response counts what is sent, and remembers whether a head was.
type response struct {
	http.ResponseWriter
	exchange *exchange
	status   int // 0 until a final head was written
	bytes    int64
	first    time.Duration // until the head was written
	aborted  bool
	duplex   bool // the body may be read after the answer began
	closes   bool // the connection ends with the answer, for the body's sake
}

// WriteHeader sends a head; informational ones may come before the final one.
func (w *response) WriteHeader(status int) {
	if status >= 200 && w.status == 0 {
		w.commit(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

// commit settles the request's body, notes the final head and sets the headers
// every response has: last, so that no function can claim another request's identity.
func (w *response) commit(status int) {
	w.settle()
	w.status = status
	w.first = time.Since(w.exchange.start)
	h := w.Header()
	h[RequestIDHeader] = w.exchange.id[:]
	w.exchange.mark(h)
	if h["Server"] == nil {
		h["Server"] = serverHeader
	}
}

// Write sends body bytes, after a head of status 200 if there was none.
func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.commit(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// FlushError sends what is buffered, with a head if there was none.
func (w *response) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// requestBody counts what is received. An invoker may read it on a goroutine of
// its own, up to the end of Invoke.
type requestBody struct {
	io.ReadCloser
	bytes   atomic.Int64
	ended   atomic.Bool   // it was read to its end
	request *http.Request // the server's own, which gets the trailers
}

// Trailer is what came after the body, once it was read to its end.
func (b *requestBody) Trailer() http.Header { return b.request.Trailer }

func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes.Add(int64(n))
	if err == io.EOF {
		b.ended.Store(true)
	}
	return n, err
}

// refusal is an answer of the node's own: no function was found or asked.
type refusal struct {
	status int
	reason string
	detail string
}

func (r *refusal) Error() string { return r.detail }

// records are those of exchanges that are over, which nobody keeps: a part of the
// exchange, one would take a third of what a request that waits costs here.
var records = sync.Pool{New: func() any { return new(telemetry.Record) }}

// tell states the exchange as a fact, to whoever keeps count.
func (h *Handler) tell(x *exchange, err error) {
	rec := records.Get().(*telemetry.Record)
	x.record(rec, err)
	h.cfg.Telemetry.End(x.span, rec)
	*rec = telemetry.Record{}
	records.Put(rec)
}

func (x *exchange) record(rec *telemetry.Record, err error) {
	*rec = telemetry.Record{
		Time:      x.start,
		RequestID: x.id[0],
		Method:    x.r.Method,
		Host:      x.canon.Host,
		Path:      x.canon.Path,
		Protocol:  x.protocol,
		PassedTo:  x.to,
		PassedBy:  x.by,
		Client:    x.client,
		Status:    x.w.status,
		BytesIn:   x.body.bytes.Load(),
		BytesOut:  x.w.bytes,
		FirstByte: x.w.first,
		Duration:  time.Since(x.start),
		Usage:     x.usage,
	}
	if x.target != nil {
		rec.Project, rec.Function, rec.Version = x.target.Version.ID.Project, x.target.Version.ID.Name, x.target.Version.Digest
	}
	switch e := err.(type) {
	case nil:
	case *guard.Error:
		rec.Refused = e.Reason
	case *refusal:
		rec.Refused = e.reason
	default:
		rec.Fault = fault.Of(err)
		if rec.Fault.Kind == fault.Canceled {
			rec.Status = rec.Fault.Kind.Status()
		}
	}
}
