package native

import (
	"context"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// fetch is one subrequest under way. A goroutine of its own waits for the
// response's head; the session's waits for that goroutine before the instance goes.
type fetch struct {
	cancel context.CancelFunc
	upload *io.PipeWriter // nil: no request body, or it has ended
	ready  chan struct{}  // closed once res and err are set
	res    *http.Response
	err    error
	head   []byte // encoded, once asked for
}

// fetchStart(req, req_len).
func (s *Session) fetchStart(ctx context.Context, a args) (int64, error) {
	b, err := s.borrow("req", a, 0)
	if err != nil {
		return 0, err
	}
	decoded, err := DecodeFetchRequest(b.Bytes())
	b.Release()
	switch {
	case err != nil:
		return abi.StatusInvalid, nil
	case s.Fetch == nil:
		return abi.StatusDenied, nil
	case s.subrequests >= s.Limits.Subrequests, len(s.fetches) >= s.Limits.SubrequestsNow:
		return abi.StatusLimit, nil
	}
	r, err := httpRequest(&decoded)
	if err != nil {
		return abi.StatusInvalid, nil
	}
	s.subrequests++
	return s.addFetch(s.begin(ctx, r, decoded.Body)), nil
}

func (s *Session) addFetch(f *fetch) int64 {
	if s.fetches == nil {
		s.fetches = map[int32]*fetch{}
	}
	s.lastFetch++
	s.fetches[s.lastFetch] = f
	return int64(s.lastFetch)
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
	go func() {
		defer close(f.ready)
		f.res, f.err = s.Fetch.Fetch(ctx, s.Version, r.WithContext(ctx))
		if f.err != nil && source != nil {
			source.CloseWithError(f.err)
		}
	}()
	return f
}

// end cancels the subrequest and waits until nothing of it is left.
func (f *fetch) end() {
	f.cancel()
	<-f.ready
	if f.res != nil {
		f.res.Body.Close()
	}
}

// httpRequest turns a guest's request into an http.Request whose body is still open.
func httpRequest(f *FetchRequest) (*http.Request, error) {
	u, err := url.Parse(f.URL)
	if err != nil {
		return nil, err
	}
	if u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" || f.Method == http.MethodConnect {
		return nil, hostcall.ErrInvalid
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
		case !ValidName(p.Name) || IllegalAt(p.Value) >= 0:
			return hostcall.ErrInvalid
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
		return abi.StatusInvalid, nil
	case f.upload == nil:
		return abi.StatusState, nil
	case len(b.Bytes()) == 0:
		f.upload.Close()
		f.upload = nil
		return 0, nil
	}
	if _, err := f.upload.Write(b.Bytes()); err != nil {
		return abi.StatusClosed, ctx.Err()
	}
	return length(len(b.Bytes())), nil
}

// await waits for the response of handle h. A status below zero is the call's answer.
func (s *Session) await(ctx context.Context, h int32) (*fetch, int64, error) {
	f := s.fetches[h]
	if f == nil {
		return nil, abi.StatusInvalid, nil
	}
	select {
	case <-f.ready:
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	if f.err != nil {
		refused, err := status(ctx, f.err)
		return nil, refused, err
	}
	return f, abi.StatusOK, nil
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
	n, err := readInto(b.Bytes(), f.res.Body.Read)
	if err != nil {
		return abi.StatusClosed, ctx.Err()
	}
	return n, nil
}

// fetchClose(h).
func (s *Session) fetchClose(a args) (int64, error) {
	if !s.dropFetch(a.i32(0)) {
		return abi.StatusInvalid, nil
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
