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
	setBody(r, flags&flagBody != 0, x)
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), infoKey{}, info))
	return r.WithContext(ctx), cancel, nil
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
	r.Body = &requestBody{x: x}
}

// requestBody reads the request's body from the host.
type requestBody struct {
	x   exchange
	err error // sticky
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
	return n, err
}

func (b *requestBody) Close() error {
	if b.err == nil || b.err == io.EOF {
		b.err = http.ErrBodyReadAfterClose
	}
	return nil
}
