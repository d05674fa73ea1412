package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/store"
	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/jail"
)

// Problem is an error as a client sees it (RFC 9457).
type Problem struct {
	Type     string         `json:"type"` // "urn:selvage:problem:NAME"; stable
	Title    string         `json:"title"`
	Status   int            `json:"status"`
	Detail   string         `json:"detail,omitempty"` // what happened this time
	Hint     string         `json:"hint,omitempty"`   // what to do next
	Instance string         `json:"instance,omitempty"`
	Faults   []bundle.Fault `json:"faults,omitempty"` // of a manifest
}

func (p *Problem) Error() string {
	return strings.TrimRight(p.Title+": "+p.Detail, ": ")
}

// Name is the last part of Type.
func (p *Problem) Name() string { return strings.TrimPrefix(p.Type, problemPrefix) }

const (
	problemPrefix = "urn:selvage:problem:"
	problemMedia  = "application/problem+json"
)

// problem makes a Problem; name is stable, clients test for it.
func problem(status int, name, hint, detail string, args ...any) *Problem {
	return &Problem{
		Type: problemPrefix + name, Title: strings.ReplaceAll(name, "-", " "),
		Status: status, Detail: fmt.Sprintf(detail, args...), Hint: hint,
	}
}

func invalid(detail string, args ...any) *Problem {
	return problem(http.StatusBadRequest, "invalid-request", "see /v1/openapi.json for the request's form", detail, args...)
}

func notFound(hint, detail string, args ...any) *Problem {
	return problem(http.StatusNotFound, "not-found", hint, detail, args...)
}

// problemOf turns any error into what the client is told, once. What is not
// known here is ours, and its text stays here.
func problemOf(err error) (p *Problem, ours bool) {
	if errors.As(err, &p) {
		return p, false
	}
	if p := problemOfUpload(err); p != nil {
		return p, false
	}
	if p := problemOfStore(err); p != nil {
		return p, false
	}
	return problem(http.StatusInternalServerError, "internal", "try again; if it stays, give the operator the request ID", "something failed inside the control node"), true
}

func problemOfUpload(err error) *Problem {
	var (
		faults  *bundle.Faults
		taken   *catalog.RouteTaken
		refused *jail.Refused
	)
	const unfit = http.StatusUnprocessableEntity
	switch {
	case errors.As(err, &faults):
		p := problem(unfit, "bad-manifest", "correct "+faults.File+" and deploy again", "%v", faults)
		p.Faults = faults.List
		return p
	case errors.As(err, &taken):
		return problem(http.StatusConflict, "route-taken", "choose another route, or give it up there first: deploy "+taken.Owner.String()+" without it, or 'selvage remove' it", "%v", err)
	case errors.Is(err, bundle.ErrTooLarge):
		return problem(http.StatusRequestEntityTooLarge, "bundle-too-large", "build a smaller module: strip debug information, drop what is not used", "%v", err)
	case errors.Is(err, identity.ErrUntrusted):
		return problem(http.StatusForbidden, "untrusted", "sign with a publisher key that the fleet's root delegated for this project", "%v", err)
	case errors.Is(err, identity.ErrToken):
		return problem(http.StatusUnauthorized, "bad-token", "ask an operator for a new token", "%v", err)
	case errors.As(err, &refused):
		return problem(unfit, "module-refused", "correct the module and deploy again", "%s", refused.Reason)
	case errors.Is(err, jail.ErrKilled):
		return problem(http.StatusServiceUnavailable, "helper-killed", "deploy again; if it stays, see what kills processes on the control node, such as a lack of memory", "preparing the module was broken off: %v", err)
	case errors.Is(err, jail.ErrTime), errors.Is(err, jail.ErrMemory), errors.Is(err, jail.ErrCrash):
		return problem(unfit, "module-refused", "make the module smaller or its start-up shorter", "preparing the module failed: %v", err)
	}
	return nil
}

// kvLimits is the hint to who is over one of them.
var kvLimits = fmt.Sprintf("KV takes keys of up to %d bytes, values of up to %d MiB, metadata of up to %d KiB; one answer has values of up to %d MiB",
	hostcall.MaxKeyBytes, hostcall.MaxValueBytes>>20, hostcall.MaxMetadataBytes>>10, hostcall.MaxReadBytes>>20)

// kvNumbers is the hint to who increments what cannot be.
const kvNumbers = "an increment takes a value that is a decimal number of 64 bits and nothing else, such as 41 or -7, or a key that is not there; the value stays as it was"

// words is an error of the store without the room it comes from, of which the client knows nothing.
func words(err error) string { return strings.TrimPrefix(err.Error(), "store: ") }

func problemOfStore(err error) *Problem {
	said := words(err)
	switch {
	case errors.Is(err, store.ErrFull):
		return problem(http.StatusInsufficientStorage, "store-full", "free space on the control node's volume, or raise store.max_bytes; reads still work", "%s", said)
	case errors.Is(err, store.ErrRolledBack):
		return problem(http.StatusConflict, "store-rolled-back", "stop the control node, run 'selvage control new-epoch' and start it again; reads still work", "%s", said)
	case errors.Is(err, hostcall.ErrNotFound):
		return notFound("", "there is no such thing")
	case errors.Is(err, hostcall.ErrConflict):
		return problem(http.StatusConflict, "conflict", "read it again and decide anew", "%s", said)
	case errors.Is(err, hostcall.ErrDenied):
		return problem(http.StatusForbidden, "denied", "bind it in the function's manifest", "%s", said)
	case errors.Is(err, hostcall.ErrTooLarge):
		return problem(http.StatusRequestEntityTooLarge, "too-large", kvLimits, "%s", said)
	case errors.Is(err, hostcall.ErrNotNumber), errors.Is(err, hostcall.ErrOverflow):
		return problem(http.StatusBadRequest, "invalid-request", kvNumbers, "%s", said)
	case errors.Is(err, hostcall.ErrInvalid):
		return invalid("%s", said)
	case errors.Is(err, hostcall.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return problem(http.StatusServiceUnavailable, "unavailable", "try again in a moment; if it was a change, it may have been made", "the store did not answer in time")
	}
	return nil
}

// write sends the problem as the whole answer.
func (p *Problem) write(w http.ResponseWriter, requestID string) {
	q := *p
	q.Instance = requestID
	b, err := json.Marshal(&q)
	if err != nil {
		b = []byte(`{"title":"internal","status":500}`)
	}
	h := w.Header()
	h.Set("Content-Type", problemMedia)
	h.Set("Cache-Control", "no-store")
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="selvage"`)
	}
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(p.Status)
	w.Write(append(b, '\n'))
}
