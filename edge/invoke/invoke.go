// Package invoke carries a request into a guest and the answer back out.
//
// It builds the head the guest reads, streams both bodies with the client's and
// the guest's back-pressure, keeps what belongs to one connection (RFC 9110
// §7.6.1) from crossing, and refuses an answer that is not HTTP.
package invoke

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/selvage-edge/selvage/edge/fetch"
	"github.com/selvage-edge/selvage/edge/geo"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
)

// Function is one loaded function version; *pool.Function is one.
type Function interface {
	Version() *function.Version
	// Invoke runs one invocation. It fails with a *fault.Error.
	Invoke(ctx context.Context, ports guest.Ports, x guest.Exchange) (guest.Usage, error)
}

// Locator says where an address is; *geo.DB is one.
type Locator interface {
	Lookup(netip.Addr) geo.Place
}

// Target invokes one function for HTTP requests.
type Target struct {
	// Where tells guests where their clients are; nil: they are told nothing. It is set before the first request.
	Where Locator

	fn    Function
	ports guest.Ports
}

// New returns a target that runs fn with ports.
func New(fn Function, ports guest.Ports) *Target { return &Target{fn: fn, ports: ports} }

// Version is the function version behind the target.
func (t *Target) Version() *function.Version { return t.fn.Version() }

// Invoke answers one request. It fails with a *fault.Error. A response head is
// sent as late as can be: if none was, w is untouched and the failure is still
// the caller's to answer; if one was, the caller must break the response off.
func (t *Target) Invoke(ctx context.Context, w http.ResponseWriter, r *http.Request, m telemetry.Meta) (telemetry.Usage, error) {
	x := newExchange(w, r, t.fn.Version(), m)
	x.where, x.place = t.Where, geo.PlaceOf(ctx)
	if err := x.admit(); err != nil {
		return telemetry.Usage{}, err
	}
	if x.body != nil {
		defer x.forget()
	}
	u, err := t.fn.Invoke(fetch.WithLoop(ctx, r.Header), t.ports, x)
	return telemetry.Usage{
		Queued: u.Queued, CPU: u.CPU, MemoryBytes: u.MemoryBytes, HostCalls: u.HostCalls, Crossings: u.Crossings, Refused: u.Refused,
	}, err
}
