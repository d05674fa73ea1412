package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"unsafe"
)

// RoundTrip makes one request and returns when its response head is there.
func (Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := roundTrip(r)
	if r.Body != nil {
		_ = r.Body.Close() // the RoundTripper's duty, whatever happened
	}
	if err == nil {
		return resp, nil
	}
	if errors.Is(err, context.DeadlineExceeded) || r.Context().Err() != nil {
		return nil, cmp.Or(r.Context().Err(), context.DeadlineExceeded) // as it is: http.Client asks it for Timeout
	}
	return nil, fmt.Errorf("edge: fetch %s %s: %w", r.Method, r.URL.Redacted(), err)
}

func roundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	hasBody := r.Body != nil && r.Body != http.NoBody
	h := subrequest(hostFetchStart(of(encodeFetch(r, hasBody))))
	if err := failure(int32(h)); err != nil {
		return nil, err
	}
	resp, err := h.exchange(r, hasBody)
	if err == nil {
		err = r.Context().Err()
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return resp, nil
}

// encodeFetch writes the fetch request of sdk/abi.
func encodeFetch(r *http.Request, hasBody bool) []byte {
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	var headers pairList
	if r.Host != "" && r.Host != r.URL.Host {
		headers.add("Host", r.Host)
	}
	var flags uint32
	if hasBody {
		flags = flagBody
		if r.ContentLength > 0 {
			headers.add("Content-Length", strconv.FormatInt(r.ContentLength, 10))
		}
	}
	for name, values := range r.Header {
		for _, v := range values {
			headers.add(name, v)
		}
	}
	url := *r.URL
	url.Fragment, url.RawFragment = "", ""
	b := appendString(appendString(nil, method), url.String())
	return appendU32(append(b, headers.bytes()...), flags)
}

// A subrequest is the host's handle of one.
type subrequest int32

func (h subrequest) exchange(r *http.Request, hasBody bool) (*http.Response, error) {
	if hasBody {
		if err := h.send(r.Body); err != nil {
			return nil, err
		}
	}
	return h.response(r)
}

// send streams the request's body. A backend that answers without taking all of
// it closes the body: that is no failure, its answer tells more.
func (h subrequest) send(body io.Reader) error {
	buf := make([]byte, 16<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if err := h.write(buf[:n]); err != nil {
				return ignoreClosed(err)
			}
		}
		if err == io.EOF {
			return ignoreClosed(h.write(nil))
		}
		if err != nil {
			return fmt.Errorf("request body: %w", err)
		}
	}
}

func (h subrequest) write(b []byte) error {
	p, size := of(b)
	return failure(hostFetchWrite(int32(h), p, size))
}

func ignoreClosed(err error) error {
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

// response waits for the head.
func (h subrequest) response(r *http.Request) (*http.Response, error) {
	if err := h.await(r.Context()); err != nil {
		return nil, err
	}
	s, err := gather(h.head)
	if err != nil {
		return nil, err
	}
	d := decoder{s: s}
	status, length := int(d.u32()), int64(d.u64())
	header := readHeader(&d)
	if d.err != nil {
		return nil, d.err
	}
	resp := &http.Response{
		Status:        strconv.Itoa(status) + " " + http.StatusText(status),
		StatusCode:    status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header,
		ContentLength: length,
		Request:       r,
	}
	resp.Body = &responseBody{h: h, response: resp}
	return resp, nil
}

// trailer is what came after the response's body; nil if nothing did.
func (h subrequest) trailer() http.Header {
	s, err := gather(func(buf unsafe.Pointer, size uint32) int32 { return hostFetchTrailers(int32(h), buf, size) })
	if err != nil {
		return nil
	}
	d := decoder{s: s}
	if header := readHeader(&d); d.err == nil && len(header) > 0 {
		return header
	}
	return nil
}

// close gives the handle back, and cancels what is still under way.
// head is fetch_head of this handle.
func (h subrequest) head(buf unsafe.Pointer, size uint32) int32 {
	return hostFetchHead(int32(h), buf, size)
}

func (h subrequest) close() { hostFetchClose(int32(h)) }

// responseBody streams a subrequest's response.
type responseBody struct {
	h        subrequest
	response *http.Response // gets its Trailer at the end
	closed   bool
	err      error // sticky
}

func (b *responseBody) Read(p []byte) (int, error) {
	switch {
	case b.closed:
		return 0, http.ErrBodyReadAfterClose
	case b.err != nil || len(p) == 0:
		return 0, b.err
	}
	if b.err = b.response.Request.Context().Err(); b.err != nil {
		return 0, b.err
	}
	buf, size := of(p)
	n := hostFetchRead(int32(b.h), buf, size)
	switch {
	case n == 0:
		b.err = io.EOF
		b.response.Trailer = b.h.trailer()
	case Status(n) == ErrClosed:
		b.err = io.ErrUnexpectedEOF
	default:
		b.err = failure(n)
	}
	return int(max(n, 0)), b.err
}

func (b *responseBody) Close() error {
	if !b.closed {
		b.closed = true
		b.h.close()
	}
	return nil
}
