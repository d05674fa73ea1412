package invoke

import (
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/fault"
)

// answerHead is a checked response head.
type answerHead struct {
	status    int
	fields    []field  // in the guest's order
	declared  int64    // Content-Length; -1 if the guest gave none
	connected []string // what Connection fields said
}

// field is one header field under its canonical name.
type field struct{ name, value string }

// checkHead turns what a guest answered into a head that is safe to send. Its
// error is a BadResponse fault that names the header.
func checkHead(status int, encoded []byte) (answerHead, error) {
	head := answerHead{status: status, declared: -1}
	if status == http.StatusSwitchingProtocols || status < 100 || status > 599 {
		return head, badResponse("status %d: want 200 to 599, or 1xx other than 101 before it", status)
	}
	if len(encoded) == 0 {
		return head, nil // no bytes at all are an empty list
	}
	pairs := native.ReadPairs(encoded)
	head.fields = make([]field, 0, pairs.Len())
	for p, ok := pairs.Next(); ok; p, ok = pairs.Next() {
		if err := head.add(p); err != nil {
			return head, err
		}
	}
	if err := pairs.Err(); err != nil {
		return head, badResponse("%v", err)
	}
	return head, nil
}

func (h *answerHead) add(p native.Pair) error {
	if !native.ValidName(p.Name) {
		return badResponse("header name %.80q: want letters, digits and !#$%%&'*+-.^_`|~ only", p.Name)
	}
	value := strings.Trim(p.Value, " \t")
	if i := native.IllegalAt(value); i >= 0 {
		return badResponse("header %.80q: byte %#02x at %d of its value is not allowed", p.Name, value[i], i)
	}
	name := textproto.CanonicalMIMEHeaderKey(p.Name)
	switch {
	case name == "Content-Length":
		return h.declare(value)
	case name == "Connection":
		h.connected = append(h.connected, value)
	case !native.HopByHop(name) && name != "Alt-Svc":
		h.fields = append(h.fields, field{name, value})
	}
	return nil
}

// declare notes a Content-Length. It is kept out of the header: the exchange
// adds it when it knows which status and method it goes with.
func (h *answerHead) declare(value string) error {
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil {
		return badResponse("content-length %.80q: want a number of bytes", value)
	}
	if h.declared >= 0 && h.declared != int64(n) {
		return badResponse("two content-lengths, %d and %d", h.declared, n)
	}
	h.declared = int64(n)
	return nil
}

// apply sets the head's headers on dst. A header the guest sets replaces what
// an earlier stage put there. Left out is what must not cross: hop-by-hop
// headers, those the guest's Connection names, and Alt-Svc, which is the node's
// own to say (a function must not lead the clients of every function on its host elsewhere).
func (h *answerHead) apply(dst http.Header) {
	for _, f := range h.fields {
		delete(dst, f.name)
	}
	values := make([]string, len(h.fields))
	for i, f := range h.fields {
		if len(h.connected) > 0 && namedIn(h.connected, f.name) {
			continue
		}
		if before, ok := dst[f.name]; ok {
			dst[f.name] = append(before, f.value)
			continue
		}
		values[i] = f.value
		dst[f.name] = values[i : i+1 : i+1]
	}
	if _, ok := dst["Content-Type"]; !ok {
		dst["Content-Type"] = nil // or net/http guesses one from the body
	}
}

func badResponse(format string, args ...any) *fault.Error {
	return fault.New(fault.BadResponse, fmt.Sprintf(format, args...), nil)
}
