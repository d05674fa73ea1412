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
	status   int
	header   http.Header
	declared int64 // Content-Length; -1 if the guest gave none
}

// checkHead turns what a guest answered into a head that is safe to send. Its
// error is a BadResponse fault that names the header.
func checkHead(status int, encoded []byte) (answerHead, error) {
	head := answerHead{status: status, declared: -1}
	if status == http.StatusSwitchingProtocols || status < 100 || status > 599 {
		return head, badResponse("status %d: want 200 to 599, or 1xx other than 101 before it", status)
	}
	pairs, err := decodeHeaders(encoded)
	if err != nil {
		return head, badResponse("%v", err)
	}
	head.header = make(http.Header, len(pairs))
	for _, p := range pairs {
		if err := head.add(p); err != nil {
			return head, err
		}
	}
	head.dropNamed()
	return head, nil
}

// decodeHeaders takes no bytes at all for an empty list.
func decodeHeaders(encoded []byte) ([]native.Pair, error) {
	if len(encoded) == 0 {
		return nil, nil
	}
	return native.DecodePairs(encoded)
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
	if name == "Content-Length" {
		return h.declare(value)
	}
	h.header[name] = append(h.header[name], value)
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

// dropNamed drops what must not cross: hop-by-hop headers, those the guest's
// Connection names, and Alt-Svc, which is the node's own to say (a function
// must not lead the clients of every function on its host elsewhere).
func (h *answerHead) dropNamed() {
	named := h.header["Connection"]
	for name := range h.header {
		if native.HopByHop(name) || name == "Alt-Svc" || namedIn(named, name) {
			delete(h.header, name)
		}
	}
}

// apply sets the head's headers on dst. A header the guest sets replaces what
// an earlier stage put there.
func (h *answerHead) apply(dst http.Header) {
	for name, values := range h.header {
		dst[name] = values
	}
	if _, ok := dst["Content-Type"]; !ok {
		dst["Content-Type"] = nil // or net/http guesses one from the body
	}
}

func badResponse(format string, args ...any) *fault.Error {
	return fault.New(fault.BadResponse, fmt.Sprintf(format, args...), nil)
}
