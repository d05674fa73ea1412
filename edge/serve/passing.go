package serve

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/selvage-edge/selvage/edge/forward"
	"github.com/selvage-edge/selvage/edge/geo"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
)

// passing is an exchange's way between nodes.
type passing struct {
	by       string            // the node that handed it on to this one; "" if a client sent it
	envelope *forward.Envelope // what that node told of it
	notHere  string            // why this node has not touched it
	to       string            // the node that it was handed on to
}

var (
	errNotHere = &refusal{http.StatusServiceUnavailable, "placement", "the function may not run here"}
	errNowhere = &refusal{http.StatusServiceUnavailable, "placement", "the function may not run here, and no node that may run it can be reached"}
	errBroken  = &refusal{http.StatusBadGateway, "forward", "the node that may run the function broke off"}
	errLate    = &refusal{http.StatusGatewayTimeout, "forward", "the node that may run the function did not answer in time"}
	errOther   = &refusal{http.StatusServiceUnavailable, "placement", "this node has another function for this host and path"}
)

// ServePassed serves an exchange that the node of that name hands on. The caller
// has authenticated it as one of the fleet: what it says of the client is believed.
func (h *Handler) ServePassed(w http.ResponseWriter, r *http.Request, node string) {
	e, err := forward.Unpack(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	x := h.begin(w, r)
	x.by, x.envelope = node, e
	x.id[0], x.client, x.protocol = e.RequestID, e.Client, e.Protocol
	x.start = x.start.Add(-e.Age)
	h.serve(x)
}

// expected refuses what is routed to another function here than where it came from.
func (x *exchange) expected() error {
	if x.envelope != nil && x.envelope.Function != x.target.Version.ID {
		x.notHere = "another function"
		return errOther
	}
	x.notHere = ""
	return nil
}

// mark tells the node that handed the exchange on whether it was touched.
func (x *exchange) mark(h http.Header) {
	if x.envelope != nil {
		forward.Mark(h, x.notHere)
	}
}

// located gives the function the place that the first node found.
func (x *exchange) located(ctx context.Context) context.Context {
	if x.envelope == nil || x.envelope.Place == nil {
		return ctx
	}
	return geo.WithPlace(ctx, x.envelope.Place)
}

// placed hands the exchange on if its function is placed elsewhere: once, and never
// on from there. Where no such node lives it is answered here, unless it is pinned.
func (h *Handler) placed(x *exchange) (done bool, err error) {
	if h.cfg.Forward != nil && x.envelope == nil {
		h.cfg.Forward.Seen()
	}
	mayRun := x.target.Invoker != nil
	switch {
	case !x.target.Away:
		return false, nil
	case x.envelope != nil && !mayRun:
		x.notHere = "placement"
		return true, errNotHere
	case x.envelope != nil:
		return false, nil
	case h.cfg.Forward == nil:
		return !mayRun, errOf(mayRun, errNowhere)
	}
	ticket, err := h.goOn(x, x.start.Add(x.target.Version.Limits.WithDefaults().QueueWait))
	if err != nil {
		return true, err
	}
	defer ticket.Release()
	x.to, err = h.cfg.Forward.Placed(x.r.Context(), x.onward())
	if errors.Is(err, forward.ErrNowhere) {
		x.to = ""
		return !mayRun, errOf(mayRun, errNowhere)
	}
	return true, passed(err)
}

// goOn admits an exchange to those that go on, of which a project can have half. It waits
// until by at most.
func (h *Handler) goOn(x *exchange, by time.Time) (limit.Ticket, error) {
	v, most := x.target.Version, max(1, h.cfg.Onward.Places()/2)
	limits := function.Limits{Concurrency: most, QueueWait: v.Limits.QueueWait}
	ticket, err := h.cfg.Onward.Admit(x.r.Context(), function.ID{Project: v.ID.Project}, limits, by)
	x.usage.Queued = ticket.Waited
	if err != nil && fault.Of(err).Kind == fault.Busy {
		err = &fault.Error{Kind: fault.Capacity, Limit: strconv.Itoa(most), Knob: "limits.concurrency of the node",
			Detail: "so many of this project's requests go on from here to other nodes", Cause: err}
	}
	return ticket, err
}

func errOf(fine bool, err error) error {
	if fine {
		return nil
	}
	return err
}

// overflow hands an exchange that found no room here on to a node that may have some;
// err is what is said otherwise.
func (h *Handler) overflow(x *exchange, err error) error {
	if h.cfg.Forward == nil || x.envelope != nil || !fault.Of(err).Kind.Shed() {
		return err
	}
	ticket, full := h.goOn(x, x.start) // it has waited
	if full != nil {
		return err
	}
	defer ticket.Release()
	to, ferr := h.cfg.Forward.Overflow(x.r.Context(), x.onward())
	if errors.Is(ferr, forward.ErrNowhere) {
		return err
	}
	x.to = to
	return passed(ferr)
}

// passed is what is answered when another node could not.
func passed(err error) error {
	switch {
	case errors.Is(err, forward.ErrLate):
		return errLate
	case errors.Is(err, forward.ErrBroken):
		return errBroken
	}
	return err
}

func (x *exchange) onward() forward.Exchange {
	return forward.Exchange{W: &x.w, R: x.r, Version: x.target.Version, Trace: x.span.Inject, Envelope: forward.Envelope{
		RequestID: x.id[0], Function: x.target.Version.ID, Authority: x.canon.Authority(), Target: x.canon.Target(),
		Protocol: x.protocol, Client: x.client, Age: time.Since(x.start),
	}}
}
