package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// flagBody in a request head (and in a fetch request) says that a body follows.
const flagBody = 1

// An exchange carries one request and its answer: the host's calls, or during
// start-up the SDK's own rehearsal.
type exchange interface {
	readBody(p []byte) (int, error) // io.EOF at the end
	writeHead(status int, headers []byte) error
	writeBody(p []byte) error
	flush() error
	readTrailers() (string, error) // a list of pairs, after the body's end
	writeTrailers(trailers []byte) error
	abort() // ends the guest: what was sent must not look complete
}

// newRequest builds the request that head describes; its body comes from x. The
// request keeps parts of head.
func newRequest(head string, x exchange) (*http.Request, context.CancelFunc, error) {
	d := decoder{s: head}
	flags := d.u32()
	r := &http.Request{ContentLength: int64(d.u64()), Method: d.string()}
	scheme := d.string()
	r.Host = d.string()
	r.RequestURI = d.string()
	r.Proto = d.string()
	info := new(Metadata)
	d.pairs(info.set)
	r.Header = readHeader(&d)
	announceTrailers(r)
	if d.err != nil {
		return nil, nil, d.err
	}
	if err := setTarget(r); err != nil {
		return nil, nil, err
	}
	if scheme == "https" {
		r.TLS = connectionState(r)
	}
	r.RemoteAddr = remoteAddr(info)
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), infoKey{}, info))
	r = r.WithContext(ctx)
	setBody(r, flags&flagBody != 0, x)
	return r, cancel, nil
}

// readHeader reads the headers as net/http's server shows them: canonical names,
// no Host and no Transfer-Encoding.
func readHeader(d *decoder) http.Header {
	n := d.count(8)
	h := make(http.Header, n)
	values := make([]string, n) // one piece of memory for all values
	for i := range values {
		name, value := textproto.CanonicalMIMEHeaderKey(d.string()), d.string()
		if name == "Host" || name == "Transfer-Encoding" {
			continue
		}
		if have, ok := h[name]; ok {
			h[name] = append(have, value)
			continue
		}
		values[i] = value
		h[name] = values[i : i+1 : i+1]
	}
	return h
}

func setTarget(r *http.Request) (err error) {
	var ok bool
	if r.ProtoMajor, r.ProtoMinor, ok = http.ParseHTTPVersion(r.Proto); !ok {
		return fmt.Errorf("edge: request head: protocol %q", r.Proto)
	}
	if r.URL, err = url.ParseRequestURI(r.RequestURI); err != nil {
		return fmt.Errorf("edge: request head: target: %w", err)
	}
	return nil
}

// connectionState says what is known of the client's TLS: that there is one, the
// name it asked for and the protocol they agreed on.
func connectionState(r *http.Request) *tls.ConnectionState {
	name := r.Host
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, ']') {
		name = name[:i]
	}
	s := &tls.ConnectionState{HandshakeComplete: true, ServerName: name, NegotiatedProtocol: "http/1.1"}
	switch r.ProtoMajor {
	case 2:
		s.NegotiatedProtocol = "h2"
	case 3:
		s.NegotiatedProtocol = "h3"
	}
	return s
}

func remoteAddr(m *Metadata) string {
	if !m.Client.IsValid() {
		return ""
	}
	return m.Client.String()
}

func setBody(r *http.Request, follows bool, x exchange) {
	if !follows {
		r.Body, r.ContentLength = http.NoBody, 0
		return
	}
	if r.ContentLength < 0 && r.ProtoMajor == 1 {
		r.TransferEncoding = []string{"chunked"}
	}
	r.Body = &requestBody{x: x, r: r}
}

// announceTrailers makes room for the trailers that the request announces, as
// net/http does: copies of the request share it.
func announceTrailers(r *http.Request) {
	for _, line := range r.Header["Trailer"] {
		for name := range strings.SplitSeq(line, ",") {
			if r.Trailer == nil {
				r.Trailer = http.Header{}
			}
			r.Trailer[textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))] = nil
		}
	}
	delete(r.Header, "Trailer")
}

// requestBody reads the request's body from the host.
type requestBody struct {
	x   exchange
	r   *http.Request // gets the trailers
	err error         // sticky
}

func (b *requestBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := b.x.readBody(p)
	if errors.Is(err, ErrClosed) {
		err = fmt.Errorf("edge: the client left: %w", io.ErrUnexpectedEOF)
	}
	b.err = err
	if err == io.EOF {
		b.readTrailers()
	}
	return n, err
}

// readTrailers reads what came after the body, once.
func (b *requestBody) readTrailers() {
	s, err := b.x.readTrailers()
	if err != nil {
		return
	}
	d := decoder{s: s}
	for name, values := range readHeader(&d) {
		if b.r.Trailer == nil {
			b.r.Trailer = http.Header{}
		}
		b.r.Trailer[name] = values
	}
}

func (b *requestBody) Close() error {
	if b.err == nil || b.err == io.EOF {
		b.err = http.ErrBodyReadAfterClose
	}
	return nil
}
