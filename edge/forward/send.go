package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/edge/fetch"
	"github.com/selvage-edge/selvage/runtime/abi/native"
)

// errRefused is the answer of a node that has not touched the request.
var errRefused = errors.New("it may not answer")

// errUnreached means that no connection to the node was had in time: nothing was sent.
var errUnreached = errors.New("it was not reached in time")

// send offers the exchange to a node, which is to be reached within a time, and returns
// the head of its answer.
func (f *Forwarder) send(ctx context.Context, x Exchange, p Peer, b *body, reach time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	hints := &hints{w: x.W}
	defer hints.end()
	far := time.AfterFunc(reach, func() { cancel(errUnreached) })
	defer far.Stop()
	var connected atomic.Bool
	trace := &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true); far.Stop() },
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			if code == http.StatusContinue {
				b.take()
			}
			return hints.got(code, h)
		},
	}
	out, err := f.request(httptrace.WithClientTrace(ctx, trace), x, b)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	l := x.Version.Limits.WithDefaults()
	late := time.AfterFunc(l.QueueWait+l.Wall+headSlack, func() { cancel(ErrLate) })
	resp, err := p.Node.Do(out)
	late.Stop()
	if err != nil {
		cause := context.Cause(ctx)
		cancel(nil)
		return nil, f.failed(p, err, cause, connected.Load())
	}
	resp.Body = &ending{resp.Body, cancel}
	if why := resp.Header.Get(refusedHeader); why != "" {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %w: %s", p.Name, errRefused, why)
	}
	b.take()
	return resp, nil
}

// failed says what an error of a Doer means.
func (f *Forwarder) failed(p Peer, err, cause error, connected bool) error {
	switch {
	case !connected && errors.Is(cause, errUnreached), f.config.Unsent(err):
		return fmt.Errorf("%s: %w: %w", p.Name, errUnreached, err)
	case errors.Is(cause, ErrLate):
		return fmt.Errorf("%s: %w", p.Name, ErrLate)
	}
	return fmt.Errorf("%w: %s: %w", ErrBroken, p.Name, err)
}

// ending frees what a request holds with its answer's body.
type ending struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

// Close gives the request up first: or it would wait until all of its body is sent,
// which an answer need not.
func (e *ending) Close() error {
	e.cancel(nil)
	return e.ReadCloser.Close()
}

func (f *Forwarder) request(ctx context.Context, x Exchange, b *body) (*http.Request, error) {
	out, err := http.NewRequestWithContext(ctx, x.R.Method, Path, nil)
	if err != nil {
		return nil, err
	}
	endToEnd(out.Header, x.R.Header)
	if _, said := out.Header["User-Agent"]; !said {
		out.Header["User-Agent"] = nil // or the transport says its own
	}
	loop := append(slices.Clone(out.Header["Cdn-Loop"]), fetch.CDN+";pop="+f.config.PoP)
	out.Header["Cdn-Loop"] = []string{strings.Join(loop, ", ")}
	if x.Trace != nil {
		x.Trace(out.Header)
	}
	if err := x.Envelope.set(out.Header); err != nil {
		return nil, err
	}
	if b == nil {
		return out, nil
	}
	out.Header["Expect"] = []string{"100-continue"} // which says that the node has begun to read it
	out.ContentLength, out.Trailer = x.R.ContentLength, b.trailers()
	out.GetBody = func() (io.ReadCloser, error) { return b.offer(out.Trailer) }
	out.Body, err = out.GetBody()
	return out, err
}

// endToEnd copies the fields that do not belong to one connection (RFC 9110 §7.6.1).
func endToEnd(dst, src http.Header) {
	named := map[string]bool{}
	for _, line := range src["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			named[textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	for name, values := range src {
		if !native.HopByHop(name) && !named[name] && name != "Expect" {
			dst[name] = slices.Clone(values)
		}
	}
}

// hints passes on what comes before an answer: 103, but not 100, which each hop says
// by itself.
type hints struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	ended bool
}

func (h *hints) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
}

func (h *hints) got(code int, header textproto.MIMEHeader) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended || code != http.StatusEarlyHints {
		return nil
	}
	dst := h.w.Header()
	endToEnd(dst, http.Header(header))
	h.w.WriteHeader(code)
	for name := range header {
		delete(dst, name)
	}
	return nil
}
