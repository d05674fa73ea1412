// Package fault is the closed catalogue of the ways a guest can fail. Each kind
// maps once to an HTTP status; the error names the limit that fired, its value
// and the manifest key that raises it.
package fault

import (
	"errors"
	"fmt"
	"net/http"
)

// Kind is one way to fail.
type Kind uint8

// The catalogue. Names (String) are stable: logs, metrics and alerts use them.
const (
	CPU          Kind = iota + 1 // used its processor time: 504
	Wall                         // used its wall time: 504
	Calls                        // made more calls of the host than it may: 500
	Memory                       // trapped after memory.grow was refused: 500
	Stack                        // recursed past the Wasm stack: 500
	Table                        // used a table's element that is not there: 500
	Trap                         // any other trap: 500
	Exit                         // called proc_exit before it answered: 500
	Pointer                      // passed a pointer or length outside its memory: 500
	NoResponse                   // returned without answering: 500
	BadResponse                  // answered what is not HTTP: illegal header, status, or two heads: 500
	BodyTooLarge                 // the client sent more than the function takes: 413
	BodyBroken                   // the client's body broke off or is malformed: 400
	BodySlow                     // the client sent its body too slowly: 408
	Canceled                     // the client left; nobody sees a status: 499 in the log
	Start                        // could not be instantiated: 500
	Busy                         // too many invocations of this function: 503
	Capacity                     // the node has no room: 503
	Shed                         // waited too long to be started: 503
	Internal                     // our fault, not the guest's: 500
)

var kinds = [...]struct {
	name   string
	status int
	text   string
	knob   string // the manifest key of the limit behind it; empty if there is none
	fixed  string // a limit of the platform's, for which there is no key
}{
	CPU:          {"cpu", http.StatusGatewayTimeout, "used its processor time", "limits.cpu", ""},
	Wall:         {"wall", http.StatusGatewayTimeout, "used its wall time", "limits.wall", ""},
	Calls:        {"calls", http.StatusInternalServerError, "made too many host calls", "limits.host_calls", ""},
	Memory:       {"memory", http.StatusInternalServerError, "ran out of memory", "limits.memory", ""},
	Stack:        {"stack", http.StatusInternalServerError, "overflowed its stack", "", "2097152 bytes"},
	Table:        {"table", http.StatusInternalServerError, "used a table element that is not there", "", "131072 elements"},
	Trap:         {"trap", http.StatusInternalServerError, "trapped", "", ""},
	Exit:         {"exit", http.StatusInternalServerError, "exited before it answered", "", ""},
	Pointer:      {"pointer", http.StatusInternalServerError, "passed a pointer outside its memory", "", ""},
	NoResponse:   {"no-response", http.StatusInternalServerError, "returned without answering", "", ""},
	BadResponse:  {"bad-response", http.StatusInternalServerError, "answered what is not HTTP", "", ""},
	BodyTooLarge: {"body-too-large", http.StatusRequestEntityTooLarge, "was sent too large a body", "limits.request_body", ""},
	BodyBroken:   {"body-broken", http.StatusBadRequest, "was sent a malformed body", "", ""},
	BodySlow:     {"body-slow", http.StatusRequestTimeout, "was sent its body too slowly", "", "10s, and 1 KiB a second"},
	Canceled:     {"canceled", 499, "was cancelled: the client left", "", ""},
	Start:        {"start", http.StatusInternalServerError, "could not be started", "", ""},
	Busy:         {"busy", http.StatusServiceUnavailable, "has too many requests at once", "limits.concurrency", ""},
	Capacity:     {"capacity", http.StatusServiceUnavailable, "found no room on this node", "", ""},
	Shed:         {"shed", http.StatusServiceUnavailable, "waited too long to be started", "limits.queue_wait", ""},
	Internal:     {"internal", http.StatusInternalServerError, "failed inside the platform", "", ""},
}

// Kinds lists the catalogue, in order.
func Kinds() []Kind {
	all := make([]Kind, 0, len(kinds)-1)
	for k := CPU; int(k) < len(kinds); k++ {
		all = append(all, k)
	}
	return all
}

// String returns the stable name.
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kinds) {
		return fmt.Sprintf("fault(%d)", uint8(k))
	}
	return kinds[k].name
}

// Text says what the function did, to follow "the function": "used its processor time".
func (k Kind) Text() string {
	if k == 0 || int(k) >= len(kinds) {
		return "failed"
	}
	return kinds[k].text
}

// Status is the HTTP status a client sees when nothing was sent yet.
func (k Kind) Status() int {
	if k == 0 || int(k) >= len(kinds) {
		return http.StatusInternalServerError
	}
	return kinds[k].status
}

// Shed reports whether k turns a request away before its function was started, for
// want of room: the same request may be answered later.
func (k Kind) Shed() bool { return k == Busy || k == Capacity || k == Shed }

// Knob is the manifest key that changes the limit behind k; empty if there is none.
func (k Kind) Knob() string {
	if k == 0 || int(k) >= len(kinds) {
		return ""
	}
	return kinds[k].knob
}

// Fixed is the limit behind k that no key changes; empty if there is none.
func (k Kind) Fixed() string {
	if k == 0 || int(k) >= len(kinds) {
		return ""
	}
	return kinds[k].fixed
}

// StoppedIn is the Detail of a failure of which nothing is to be told but the guest's frames,
// which follow it, a line each.
const StoppedIn = "it was stopped in"

// Error is one failure of one invocation.
type Error struct {
	Kind   Kind
	Limit  string // the limit that fired, with its unit: "50ms"; empty if none
	Knob   string // the manifest key that changes it: "limits.cpu"; empty if none
	Detail string // for the developer; never sent to the client
	Cause  error
}

// New returns a failure of kind k without a limit.
func New(k Kind, detail string, cause error) *Error {
	return &Error{Kind: k, Detail: detail, Cause: cause}
}

func (e *Error) Error() string {
	s := "the function failed"
	if e.Kind != 0 && int(e.Kind) < len(kinds) {
		s = "the function " + kinds[e.Kind].text
	}
	if e.Limit != "" {
		s += " (limit " + e.Limit
		if e.Knob != "" {
			s += "; raise it with " + e.Knob
		}
		s += ")"
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Of returns the failure inside err, or an Internal one around it; nil for nil.
func Of(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: Internal, Cause: err}
}
