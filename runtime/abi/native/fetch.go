package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// fetch is one subrequest under way. A goroutine of its own waits for the
// response's head; the session's waits for that goroutine before the instance goes.
type fetch struct {
	cancel context.CancelFunc
	upload *io.PipeWriter // nil: no request body, or it has ended
	out    outbound       // to upload
	ready  chan struct{}  // closed once res and err are set
	res    *http.Response
	in     inbound // from res.Body
	err    error
	head   []byte // encoded, once asked for
	read   int64  // bytes of the response's body the guest took
	ended  bool   // it took them all
	told   bool   // a refusal was counted
}

// fetchStart(req, req_len).
func (s *Session) fetchStart(ctx context.Context, a args) (int64, error) {
	b, err := s.borrow("req", a, 0)
	if err != nil {
		return 0, err
	}
	decoded, err := DecodeFetchRequest(b.Bytes())
	b.Release()
	if err != nil {
		return s.refuse(fault.BadSubrequest, abi.StatusInvalid, err), nil
	}
	r, err := httpRequest(&decoded)
	switch {
	case s.Fetch == nil:
		return s.refuse(fault.NotBound, abi.StatusDenied, hostcall.ErrDenied), nil
	case s.subrequests >= s.Limits.Subrequests:
		s.refused.Add(fault.Subrequests, 1, strconv.Itoa(s.Limits.Subrequests), "")
		return abi.StatusLimit, nil
	case len(s.fetches) >= s.Limits.SubrequestsNow:
		s.refused.Add(fault.SubrequestsNow, 1, strconv.Itoa(s.Limits.SubrequestsNow), "")
		return abi.StatusLimit, nil
	case err != nil:
		return s.refuse(fault.BadSubrequest, abi.StatusInvalid, err), nil
	}
	s.subrequests++
	return s.addFetch(s.begin(ctx, r, decoded.Body)), nil
}

// refuse counts a refusal with its reason and returns its status.
func (s *Session) refuse(r fault.Refusal, status int64, why error) int64 {
	s.refused.Add(r, 1, "", why.Error())
	return status
}

func (s *Session) addFetch(f *fetch) int64 {
	if s.fetches == nil {
		s.fetches = map[int32]*fetch{}
	}
	s.lastHandle++
	s.fetches[s.lastHandle] = f
	return int64(s.lastHandle)
}

// begin sends the request off.
func (s *Session) begin(ctx context.Context, r *http.Request, body bool) *fetch {
	ctx, cancel := context.WithCancel(ctx)
	f := &fetch{cancel: cancel, ready: make(chan struct{})}
	var source *io.PipeReader
	if body {
		source, f.upload = io.Pipe()
		r.Body = source
		// A guest that waits in fetch_write has lent its memory: it must come
		// back when the fetch ends, even if nobody ever reads the pipe.
		context.AfterFunc(ctx, func() { source.CloseWithError(ctx.Err()) })
	}
	if s.bell == nil {
		s.bell = make(bell, 1)
	}
	go func() {
		defer s.bell.ring()
		defer close(f.ready)
		f.res, f.err = s.Fetch.Fetch(ctx, s.Version, r.WithContext(ctx))
		if f.err == nil && r.Method != http.MethodHead && f.res.ContentLength > s.Limits.SubrequestBody {
			f.res.Body.Close()
			f.res, f.err = nil, errLargeAnswer
		}
		switch {
		case f.err == nil:
			f.in.src = f.res.Body
		case source != nil:
			source.CloseWithError(f.err)
		}
	}()
	return f
}

// arrived reports whether the response, or its failure, is there.
func (f *fetch) arrived() bool {
	select {
	case <-f.ready:
		return true
	default:
		return false
	}
}

// readable reports whether fetch_read would not wait.
func (f *fetch) readable(b bell) bool {
	return f.arrived() && (f.err != nil || f.in.ready(b))
}

// end cancels the subrequest and waits until nothing of it is left.
func (f *fetch) end() {
	f.cancel()
	<-f.ready
	if f.res != nil {
		f.res.Body.Close()
	}
	f.in.join()
	f.out.join()
}

// httpRequest turns a guest's request into an http.Request whose body is still open.
func httpRequest(f *FetchRequest) (*http.Request, error) {
	u, err := url.Parse(f.URL)
	if err != nil {
		return nil, err
	}
	if u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("want an http or https URL with a host and no user")
	}
	if f.Method == http.MethodConnect {
		return nil, errors.New("CONNECT: a function makes requests, not tunnels")
	}
	r, err := http.NewRequest(f.Method, f.URL, nil)
	if err != nil {
		return nil, err
	}
	return r, setHeaders(r, f)
}

// setHeaders copies the end-to-end headers. Host is the URL's: the binding
// allows a host by it, and a header must not name another.
func setHeaders(r *http.Request, f *FetchRequest) error {
	if f.Body {
		r.ContentLength = -1
	}
	for _, p := range f.Headers {
		name := textproto.CanonicalMIMEHeaderKey(p.Name)
		switch {
		case !ValidName(p.Name):
			return fmt.Errorf("header name %.80q", p.Name)
		case IllegalAt(p.Value) >= 0:
			return fmt.Errorf("header %.80q: byte %#02x of its value is not allowed", p.Name, p.Value[IllegalAt(p.Value)])
		case name == "Content-Length":
			n, err := strconv.ParseUint(p.Value, 10, 63)
			if err != nil {
				return err
			}
			if f.Body && n > 0 { // net/http reads 0 with a body as "unknown"
				r.ContentLength = int64(n)
			}
		case name != "Host" && !HopByHop(name):
			r.Header[name] = append(r.Header[name], p.Value)
		}
	}
	return nil
}

// fetchWrite(h, ptr, len).
func (s *Session) fetchWrite(ctx context.Context, a args) (int64, error) {
	b, err := s.borrow("ptr", a, 1)
	if err != nil {
		return 0, err
	}
	defer b.Release()
	f := s.fetches[a.i32(0)]
	switch {
	case f == nil:
		return s.unknown(a.i32(0)), nil
	case f.upload == nil:
		return s.refuse(fault.Ended, abi.StatusState, errUploadEnded), nil
	}
	if err := f.write(s.bell, b.Bytes()); err != nil {
		return abi.StatusClosed, ctx.Err()
	}
	return length(len(b.Bytes())), nil
}

// write writes p, or ends the body if that is empty.
func (f *fetch) write(bell bell, p []byte) error {
	behind, err := f.out.may(len(p))
	write := func(p []byte) error {
		_, err := f.upload.Write(p)
		return err
	}
	switch {
	case len(p) == 0:
		f.upload.Close()
		f.upload = nil
		return err
	case err != nil:
		return err
	case behind:
		f.out.write(bell, write, p)
		return nil
	}
	return write(p)
}

// unknown is the status of a call on a handle that is not there.
func (s *Session) unknown(h int32) int64 {
	return s.refuse(fault.Ended, abi.StatusInvalid, fmt.Errorf("subrequest %d was given back, or never was", h))
}

// await waits for the response of handle h. A status below zero is the call's answer.
func (s *Session) await(ctx context.Context, h int32) (*fetch, int64, error) {
	f := s.fetches[h]
	if f == nil {
		return nil, s.unknown(h), nil
	}
	select {
	case <-f.ready:
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	if f.err != nil {
		refused, err := s.failedFetch(ctx, f)
		return nil, refused, err
	}
	return f, abi.StatusOK, nil
}

var (
	errUploadEnded = errors.New("the request's body has ended")
	errLargeAnswer = fmt.Errorf("the response's content-length: %w", hostcall.ErrTooLarge)
)

// failedFetch returns the status of a fetch that failed, and counts what was refused.
func (s *Session) failedFetch(ctx context.Context, f *fetch) (int64, error) {
	refused, err := status(ctx, f.err)
	if err != nil || f.told {
		return refused, err
	}
	f.told = true
	switch {
	case f.err == errLargeAnswer:
		s.refused.Add(fault.LargeAnswer, 1, bytesOf(s.Limits.SubrequestBody), f.err.Error())
	case refused == abi.StatusInvalid, refused == abi.StatusTooLarge:
		s.refuse(fault.BadSubrequest, refused, f.err)
	case errors.Is(f.err, hostcall.ErrAddress):
		s.refuse(fault.Address, refused, f.err)
	case refused == abi.StatusDenied:
		s.refuse(fault.NotBound, refused, f.err)
	}
	return refused, nil
}

// fetchHead(h, buf, cap).
func (s *Session) fetchHead(ctx context.Context, a args) (int64, error) {
	b, err := s.borrow("buf", a, 1)
	if err != nil {
		return 0, err
	}
	defer b.Release()
	f, refused, err := s.await(ctx, a.i32(0))
	if err != nil || refused < 0 {
		return refused, err
	}
	if f.head == nil {
		f.head = appendFetchHead(nil, f.res.StatusCode, f.res.ContentLength, responsePairs(f.res.Header))
	}
	if len(f.head) <= len(b.Bytes()) {
		copy(b.Bytes(), f.head)
	}
	return length(len(f.head)), nil
}

// responsePairs lists the end-to-end headers in the order of their names.
func responsePairs(h http.Header) []Pair {
	var pairs []Pair
	for name, values := range h {
		if HopByHop(name) {
			continue
		}
		for _, v := range values {
			pairs = append(pairs, Pair{name, v})
		}
	}
	slices.SortStableFunc(pairs, func(a, b Pair) int { return strings.Compare(a.Name, b.Name) })
	return pairs
}

// fetchRead(h, buf, cap) fills the guest's buffer straight from the response.
func (s *Session) fetchRead(ctx context.Context, a args) (int64, error) {
	b, err := s.borrow("buf", a, 1)
	if err != nil {
		return 0, err
	}
	defer b.Release()
	f, refused, err := s.await(ctx, a.i32(0))
	if err != nil || refused < 0 {
		return refused, err
	}
	n, err := readInto(b.Bytes(), f.in.Read)
	f.read += n
	switch {
	case err != nil:
		return abi.StatusClosed, ctx.Err()
	case f.read > s.Limits.SubrequestBody:
		f.res.Body.Close()
		s.refused.Add(fault.LargeAnswer, 1, bytesOf(s.Limits.SubrequestBody), "")
		return abi.StatusTooLarge, nil
	case n == 0 && len(b.Bytes()) > 0:
		f.ended = true
	}
	return n, nil
}

// fetchClose(h).
func (s *Session) fetchClose(a args) (int64, error) {
	if !s.dropFetch(a.i32(0)) && !s.dropAsk(a.i32(0)) {
		return s.unknown(a.i32(0)), nil
	}
	return abi.StatusOK, nil
}

func (s *Session) dropFetch(h int32) bool {
	f := s.fetches[h]
	if f == nil {
		return false
	}
	delete(s.fetches, h)
	f.end()
	return true
}
