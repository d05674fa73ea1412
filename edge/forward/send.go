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
	"github.com/selvage-edge/selvage/edge/guard"
	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/fault"
)

// errRefused is the answer of a node that has not touched the request.
var errRefused = errors.New("it may not answer")

// body is the client's, which several nodes may be offered until one reads of it.
// What reads it must not close it: the server does.
type body struct {
	io.Reader
	from    *http.Request
	trailer http.Header // the request's to the other node: gets its values at the end
	read    atomic.Bool
}

func bodyOf(r *http.Request) *body {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil
	}
	return &body{Reader: r.Body, from: r}
}

func (b *body) touched() bool { return b != nil && b.read.Load() }

func (b *body) Close() error { return nil }

func (b *body) Read(p []byte) (int, error) {
	b.read.Store(true)
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		trailer := b.from.Trailer
		if t, ok := b.from.Body.(interface{ Trailer() http.Header }); ok {
			trailer = t.Trailer()
		}
		for name := range b.trailer {
			b.trailer[name] = trailer[name]
		}
	}
	return n, err
}

// send offers the exchange to a node, and returns the head of its answer.
func (f *Forwarder) send(ctx context.Context, x Exchange, p Peer, b *body) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	hints := &hints{w: x.W}
	defer hints.end()
	trace := &httptrace.ClientTrace{Got1xxResponse: hints.got}
	out, err := f.request(httptrace.WithClientTrace(ctx, trace), x, b)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	l := x.Version.Limits.WithDefaults()
	late := time.AfterFunc(l.QueueWait+l.Wall+headSlack, func() { cancel(ErrLate) })
	resp, err := p.Node.Do(out)
	if !late.Stop() && err != nil && errors.Is(context.Cause(ctx), ErrLate) {
		err = ErrLate
	}
	if err != nil {
		cancel(nil)
		if errors.Is(err, ErrLate) || f.config.Unsent(err) {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		return nil, fmt.Errorf("%w: %s: %w", ErrBroken, p.Name, err)
	}
	resp.Body = &ending{resp.Body, cancel}
	if why := resp.Header.Get(refusedHeader); why != "" {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %w: %s", p.Name, errRefused, why)
	}
	return resp, nil
}

// ending frees what a request holds with its answer's body.
type ending struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (e *ending) Close() error {
	err := e.ReadCloser.Close()
	e.cancel(nil)
	return err
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
	if err := x.Envelope.set(out.Header); err != nil {
		return nil, err
	}
	if b == nil {
		return out, nil
	}
	out.Body, out.ContentLength = b, x.R.ContentLength
	if len(x.R.Trailer) > 0 {
		out.Trailer = http.Header{}
		for name := range x.R.Trailer {
			if name = textproto.CanonicalMIMEHeaderKey(name); guard.MayTrail(name) {
				out.Trailer[name] = nil
			}
		}
	}
	b.trailer = out.Trailer
	return out, nil
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

// pieces are buffers for answers' bodies.
var pieces = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// answer passes the other node's answer on as it comes.
func (f *Forwarder) answer(ctx context.Context, w http.ResponseWriter, resp *http.Response) error {
	defer resp.Body.Close()
	h := w.Header()
	delete(resp.Header, "Alt-Svc") // this node says its own
	endToEnd(h, resp.Header)
	if len(resp.Trailer) > 0 {
		delete(h, "Content-Length") // HTTP/1.1 has trailers after chunks only
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http guesses one
	}
	w.WriteHeader(resp.StatusCode)
	flush := http.NewResponseController(w).Flush
	buf := pieces.Get().(*[32 << 10]byte)
	defer pieces.Put(buf)
	for {
		n, err := resp.Body.Read(buf[:])
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return fault.New(fault.Canceled, "", werr)
			}
		}
		switch {
		case err == io.EOF:
			for name, values := range resp.Trailer {
				if guard.MayTrail(name) {
					h[http.TrailerPrefix+name] = values
				}
			}
			return nil
		case errors.Is(ctx.Err(), context.Canceled):
			return fault.New(fault.Canceled, "", err)
		case err != nil:
			return fmt.Errorf("%w: %w", ErrBroken, err)
		case n < len(buf):
			if err := flush(); err != nil {
				return fault.New(fault.Canceled, "", err)
			}
		}
	}
}
