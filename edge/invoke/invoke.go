// Package invoke carries a request into a guest and the answer back out.
//
// It builds the head the guest reads, streams both bodies with the client's and
// the guest's back-pressure, keeps what belongs to one connection (RFC 9110
// §7.6.1) from crossing, refuses an answer that is not HTTP, and turns a fault
// into one status, once.
package invoke

import (
	"context"
	"net/http"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
)

// Function is one loaded function version; *pool.Function is one.
type Function interface {
	Version() *function.Version
	// Invoke runs one invocation. It fails with a *fault.Error.
	Invoke(ctx context.Context, ports guest.Ports, x guest.Exchange) (guest.Usage, error)
}

// Meta is what the edge knows of a request besides the request itself.
type Meta struct {
	RequestID string
	Client    string // ip:port
	Scheme    string // "https" or "http"; empty: by whether the connection has TLS
	Host      string // canonical authority; empty: the request's Host
	Target    string // canonical path and query; empty: the request's URI
	PoP       string
	Node      string
	Region    string
}

// Usage is what one exchange took, for its access record.
type Usage struct {
	guest.Usage
	Status   int // what the client was sent; 0: nothing
	BytesIn  int64
	BytesOut int64
	Duration time.Duration
	// Aborted tells that the answer broke off after its head was sent. The
	// caller must end the handler with panic(http.ErrAbortHandler), so that the
	// client does not take half an answer for a whole one.
	Aborted bool
}

// Target invokes one function for HTTP requests.
type Target struct {
	fn    Function
	ports guest.Ports
}

// New returns a target that runs fn with ports.
func New(fn Function, ports guest.Ports) *Target { return &Target{fn: fn, ports: ports} }

// Version is the function version behind the target.
func (t *Target) Version() *function.Version { return t.fn.Version() }

// Invoke answers one request. Whatever happens, the client has been answered
// when it returns, or Usage.Aborted is set; the error, for the record, is a *fault.Error.
func (t *Target) Invoke(ctx context.Context, w http.ResponseWriter, r *http.Request, m Meta) (Usage, error) {
	start := time.Now()
	x := newExchange(w, r, t.fn.Version(), m)
	u, err := t.run(ctx, x)
	f := fault.Of(err)
	x.settle(f)
	usage := Usage{
		Usage: u, Status: x.status, BytesIn: x.in, BytesOut: x.out,
		Duration: time.Since(start), Aborted: f != nil && !x.finished,
	}
	if f == nil {
		return usage, nil
	}
	return usage, f
}

func (t *Target) run(ctx context.Context, x *exchange) (guest.Usage, error) {
	if err := x.admit(); err != nil {
		return guest.Usage{}, err
	}
	return t.fn.Invoke(ctx, t.ports, x)
}
