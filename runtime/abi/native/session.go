package native

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// Exchange is the request and its answer. Its errors end the invocation. One
// goroutine may be in ReadBody while another is in one of the others.
type Exchange interface {
	ReadBody(p []byte) (int, error) // io.EOF at the end
	WriteHead(status int, headers []byte) error
	WriteBody(p []byte) error
	Flush() error
	Finish(p []byte) error
	RequestTrailers() (list []byte, ended bool)
	SetTrailers(list []byte) error
	Interrupt() // ends what waits, for good
}

// Config is what one invocation's calls work on. A nil port answers as if
// nothing were bound.
type Config struct {
	Instance *engine.Instance
	Version  *function.Version
	Limits   *function.Limits // with defaults
	Exchange Exchange
	KV       hostcall.KV
	Fetch    hostcall.Fetcher
}

// Session answers one invocation's calls. It is for one goroutine. Set Config;
// close it before its instance.
type Session struct {
	Config
	headSent     bool
	kvOperations int
	kvAnswer     kvAnswer
	subrequests  int
	fetches      map[int32]*fetch
	asks         map[int32]*ask
	lastHandle   int32    // handles are not given twice: one that was closed stays closed
	in           inbound  // the request's body
	out          outbound // the response's
	bell         bell     // nil before the first fetch or wait
	refused      fault.Tally
}

// KVOperations is how many KV calls the guest made.
func (s *Session) KVOperations() int { return s.kvOperations }

// Subrequests is how many fetches the guest started.
func (s *Session) Subrequests() int { return s.subrequests }

// PointerError says that a guest passed a pointer or a length outside its memory.
type PointerError struct {
	Argument string
	Ptr, Len uint32
}

func (e *PointerError) Error() string {
	return fmt.Sprintf("%s: %d bytes at %#x are not all inside the guest's memory", e.Argument, e.Len, e.Ptr)
}

// Do answers the pending call of ev, any but OpSleep, and returns the result for Resume. It waits
// in the guest's stead, until ctx ends at the latest. An error ends the
// invocation: a *PointerError, a *fault.Error or ctx's.
func (s *Session) Do(ctx context.Context, ev *engine.Event) (int64, error) {
	s.dropKept()
	a := args{ev.Args[:]}
	switch ev.Op {
	case OpRequestRead:
		return s.requestRead(a)
	case OpResponseHead:
		return s.responseHead(a)
	case OpResponseWrite:
		return s.responseWrite(a)
	case OpResponseFlush:
		return s.responseFlush()
	case OpRequestTrailers:
		return s.requestTrailers(a)
	case OpResponseTrailers:
		return s.responseTrailers(a)
	case OpKVOpen:
		return s.kvOpen(a)
	case OpKVGet:
		return s.kvGet(ctx, a)
	case OpKVAsk:
		return s.kvAsk(ctx, a)
	case OpKVTake:
		return s.kvTake(ctx, a)
	case OpKVPut:
		return s.kvPut(ctx, a)
	case OpKVDelete:
		return s.kvDelete(ctx, a)
	case OpKVList:
		return s.kvList(ctx, a, encodePage)
	case OpKVKeys:
		return s.kvList(ctx, a, encodeKeys)
	case OpKVRead:
		return s.kvRead(ctx, a)
	case OpKVWrite:
		return s.kvWrite(ctx, a)
	case OpKVIncrement:
		return s.kvIncrement(ctx, a)
	case OpFetchStart:
		return s.fetchStart(ctx, a)
	case OpFetchWrite:
		return s.fetchWrite(ctx, a)
	case OpFetchHead:
		return s.fetchHead(ctx, a)
	case OpFetchRead:
		return s.fetchRead(ctx, a)
	case OpFetchClose:
		return s.fetchClose(a)
	case OpFetchTrailers:
		return s.fetchTrailers(ctx, a)
	case OpFetchWait:
		return s.fetchWait(ctx, a)
	case OpWait:
		return s.wait(ctx, a)
	}
	return 0, fault.New(fault.Internal, fmt.Sprintf("no native call has number %d", ev.Op), nil)
}

// ReadFault is how reading ahead of the guest failed, if it did. Call it once
// the invocation's context is over: it waits for the read under way.
func (s *Session) ReadFault() error {
	s.in.join()
	return s.in.err
}

// Close ends what the guest left under way and waits for it.
func (s *Session) Close() {
	if !s.in.idle() || !s.out.idle() {
		s.Exchange.Interrupt()
		s.in.join()
		s.out.join()
	}
	for h := range s.fetches {
		s.dropFetch(h)
	}
	for h := range s.asks {
		s.dropAsk(h)
	}
}

// args are a call's arguments, as Wasm passed them.
type args struct{ raw []uint64 }

func (a args) u32(i int) uint32 { return uint32(a.raw[i]) }
func (a args) i32(i int) int32  { return int32(a.raw[i]) }
func (a args) i64(i int) int64  { return int64(a.raw[i]) }

// borrow lends the n bytes at the pointer that is argument i, with their length in argument i+1.
func (s *Session) borrow(name string, a args, i int) (engine.Borrow, error) {
	return s.borrowN(name, a.u32(i), a.u32(i+1))
}

func (s *Session) borrowN(name string, ptr, n uint32) (engine.Borrow, error) {
	b, ok := s.Instance.Borrow(ptr, n)
	if !ok {
		return b, &PointerError{Argument: name, Ptr: ptr, Len: n}
	}
	return b, nil
}

// text copies a string argument out of the guest's memory.
func (s *Session) text(name string, a args, i int) (string, error) {
	b, err := s.borrow(name, a, i)
	if err != nil {
		return "", err
	}
	defer b.Release()
	return string(b.Bytes()), nil
}

// status turns a port's error into what the guest is told. An error that came
// with the invocation's own end is passed on instead.
func status(ctx context.Context, err error) (int64, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	return statusOf(err), nil
}

func statusOf(err error) int64 {
	var refused net.Error
	switch {
	case err == nil:
		return abi.StatusOK
	case errors.Is(err, hostcall.ErrNotFound):
		return abi.StatusNotFound
	case errors.Is(err, hostcall.ErrConflict):
		return abi.StatusConflict
	case errors.Is(err, hostcall.ErrDenied):
		return abi.StatusDenied
	case errors.Is(err, hostcall.ErrTooLarge):
		return abi.StatusTooLarge
	case errors.Is(err, hostcall.ErrInvalid):
		return abi.StatusInvalid
	case errors.Is(err, hostcall.ErrUnavailable), errors.As(err, &refused):
		return abi.StatusUnavailable
	}
	return abi.StatusInternal
}
