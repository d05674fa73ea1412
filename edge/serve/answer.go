package serve

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/selvage-edge/selvage/edge/guard"
	"github.com/selvage-edge/selvage/runtime/fault"
)

// problem is the body of every answer of the node's own (RFC 9457).
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitempty"`
	Reason    string `json:"reason"` // a stable word
	RequestID string `json:"request_id"`
}

// answer completes an exchange whose stages failed, and reports whether the
// response must be cut off instead, because its head is already on its way.
func (h *Handler) answer(x *exchange, err error) (cut bool) {
	switch {
	case x.w.aborted:
		return true
	case err == nil:
		if x.w.status == 0 {
			x.w.WriteHeader(http.StatusOK) // what net/http would send for it, but with our headers
		}
		return false
	case x.w.status != 0:
		return true
	}
	p := describe(err)
	if p.Status == fault.Canceled.Status() {
		return true // nobody is there to read it
	}
	if p.Status == http.StatusServiceUnavailable {
		x.w.Header().Set("Retry-After", strconv.Itoa(int(h.cfg.Limiter.RetryAfter().Seconds())))
	}
	p.Type, p.Title, p.RequestID = "about:blank", http.StatusText(p.Status), x.id[0]
	x.writeProblem(p)
	return false
}

// describe says what the client may know. What a guest did wrong is for its
// developer, in the log: the client sees the kind alone.
func describe(err error) problem {
	switch e := err.(type) {
	case *guard.Error:
		return problem{Status: e.Status, Reason: e.Reason, Detail: e.Detail}
	case *refusal:
		return problem{Status: e.status, Reason: e.reason, Detail: e.detail}
	}
	kind := fault.Of(err).Kind
	return problem{Status: kind.Status(), Reason: kind.String(), Detail: fault.New(kind, "", nil).Error()}
}

func (x *exchange) writeProblem(p problem) {
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and a number
	}
	body = append(body, '\n')
	h := x.w.Header()
	clearFor(h)
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	x.w.WriteHeader(p.Status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write(body) // a client that left is recorded by its status alone
	}
}

// clearFor removes what an invoker had set for the answer it did not send.
func clearFor(h http.Header) {
	for name := range h {
		switch name {
		case "Alt-Svc", "Connection", "Retry-After":
		default:
			delete(h, name)
		}
	}
}
