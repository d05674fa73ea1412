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
	if err == nil {
		return resp, nil
	}
	if errors.Is(err, context.DeadlineExceeded) || r.Context().Err() != nil {
		return nil, cmp.Or(r.Context().Err(), context.DeadlineExceeded) // as it is: http.Client asks it for Timeout
	}
	return nil, fmt.Errorf("edge: fetch %s %s: %w", r.Method, r.URL.Redacted(), err)
}

func roundTrip(r *http.Request) (*http.Response, error) {
	s, err := startFetch(r)
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // the RoundTripper's duty, whatever happened
		}
		return nil, err
	}
	resp, err := s.exchange()
	if err == nil {
		err = r.Context().Err()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return resp, nil
}

func startFetch(r *http.Request) (*subrequest, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	s := &subrequest{r: r, hasBody: r.Body != nil && r.Body != http.NoBody}
	s.handle = hostFetchStart(of(encodeFetch(r, s.hasBody)))
	return s, failure(s.handle)
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

// A subrequest is one under way, and in the end its response's body.
type subrequest struct {
	handle   int32 // the host's
	r        *http.Request
	hasBody  bool
	response *http.Response // gets its Trailer at the end
	closed   bool
	broken   error // why the request's body could not be sent
	err      error // of Read: sticky
}

// exchange sends the body and waits for the response's head. A body that is in
// memory is sent first: it waits for nothing but the backend.
func (s *subrequest) exchange() (*http.Response, error) {
	switch {
	case !s.hasBody:
	case s.r.GetBody == nil:
		go s.sendBeside()
	default:
		if err := s.send(); err != nil {
			return nil, err
		}
	}
	return s.await()
}

// sendBeside cancels what would otherwise look whole to the backend.
func (s *subrequest) sendBeside() {
	if err := s.send(); err != nil && !s.closed {
		s.broken = err
		s.close()
	}
}

// send streams the request's body. A backend that answers without taking all of
// it closes the body: that is no failure, its answer tells more.
func (s *subrequest) send() error {
	defer s.r.Body.Close() // the RoundTripper's duty, whatever happens
	buf := make([]byte, 16<<10)
	for {
		n, err := s.r.Body.Read(buf)
		if n > 0 {
			if err := s.write(buf[:n]); err != nil {
				return ignoreClosed(err)
			}
		}
		if err == io.EOF {
			return ignoreClosed(s.write(nil))
		}
		if err != nil {
			return fmt.Errorf("request body: %w", err)
		}
	}
}

func (s *subrequest) write(b []byte) error {
	if err := s.ready(waitWrite); err != nil {
		return err
	}
	p, size := of(b)
	return failure(hostFetchWrite(s.handle, p, size))
}

func ignoreClosed(err error) error {
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

// ready waits until a call for events would not hold up other goroutines.
func (s *subrequest) ready(events uint32) error {
	ctx := s.r.Context()
	err := ctx.Err()
	if err == nil && !alone(ctx) {
		err = await(ctx, s.handle, events)
	}
	switch {
	case err != nil:
		return err
	case s.broken != nil:
		return s.broken
	case s.closed:
		return http.ErrBodyReadAfterClose
	}
	return nil
}

// await waits for the head.
func (s *subrequest) await() (*http.Response, error) {
	if err := s.ready(waitHead); err != nil {
		return nil, err
	}
	head, err := gather(func(buf unsafe.Pointer, size uint32) int32 { return hostFetchHead(s.handle, buf, size) })
	if err != nil {
		return nil, err
	}
	d := decoder{s: head}
	status, length := int(d.u32()), int64(d.u64())
	header := readHeader(&d)
	if d.err != nil {
		return nil, d.err
	}
	s.response = &http.Response{
		Status:        strconv.Itoa(status) + " " + http.StatusText(status),
		StatusCode:    status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header,
		ContentLength: length,
		Request:       s.r,
		Body:          s,
	}
	return s.response, nil
}

// trailer is what came after the response's body; nil if nothing did.
func (s *subrequest) trailer() http.Header {
	list, err := gather(func(buf unsafe.Pointer, size uint32) int32 { return hostFetchTrailers(s.handle, buf, size) })
	if err != nil {
		return nil
	}
	d := decoder{s: list}
	if header := readHeader(&d); d.err == nil && len(header) > 0 {
		return header
	}
	return nil
}

// Read streams the response's body.
func (s *subrequest) Read(p []byte) (int, error) {
	if s.err != nil || len(p) == 0 {
		return 0, s.err
	}
	if s.err = s.ready(waitRead); s.err != nil {
		return 0, s.err
	}
	buf, size := of(p)
	n := hostFetchRead(s.handle, buf, size)
	switch {
	case n == 0:
		s.err = io.EOF
		s.response.Trailer = s.trailer()
	case Status(n) == ErrClosed:
		s.err = io.ErrUnexpectedEOF
	default:
		s.err = failure(n)
	}
	return int(max(n, 0)), s.err
}

// Close implements io.Closer for the response's body.
func (s *subrequest) Close() error {
	s.close()
	s.err = http.ErrBodyReadAfterClose
	return nil
}

// close gives the handle back, and cancels what is still under way.
func (s *subrequest) close() {
	if !s.closed {
		s.closed = true
		hostFetchClose(s.handle)
	}
}
