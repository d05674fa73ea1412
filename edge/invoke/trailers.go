package invoke

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/selvage-edge/selvage/edge/guard"
	"github.com/selvage-edge/selvage/runtime/abi/native"
)

// trailed is what a body may be whose request is a copy: it knows the fields
// that the server gave the original.
type trailed interface{ Trailer() http.Header }

// RequestTrailers encodes what came after the body.
func (x *exchange) RequestTrailers() (list []byte, ended bool) {
	if x.body != nil && !x.bodyEnd.Load() {
		return nil, false
	}
	trailer := x.r.Trailer
	if b, ok := x.r.Body.(trailed); ok {
		trailer = b.Trailer()
	}
	var pairs []native.Pair
	for name, values := range trailer {
		name = textproto.CanonicalMIMEHeaderKey(name)
		for _, v := range values {
			if guard.MayTrail(name) && !forgesPlace(name) && native.IllegalAt(v) < 0 {
				pairs = append(pairs, native.Pair{Name: name, Value: v})
			}
		}
	}
	slices.SortStableFunc(pairs, func(a, b native.Pair) int { return strings.Compare(a.Name, b.Name) })
	return native.AppendPairs(nil, pairs), true
}

// SetTrailers checks what the guest wants to come after its body.
func (x *exchange) SetTrailers(list []byte) error {
	pairs, err := native.DecodePairs(list)
	if err != nil {
		return badResponse("trailers: %v", err)
	}
	x.trailers = nil
	for _, p := range pairs {
		if !native.ValidName(p.Name) {
			return badResponse("trailer name %.80q: want letters, digits and !#$%%&'*+-.^_`|~ only", p.Name)
		}
		value := strings.Trim(p.Value, " \t")
		if i := native.IllegalAt(value); i >= 0 {
			return badResponse("trailer %.80q: byte %#02x at %d of its value is not allowed", p.Name, value[i], i)
		}
		if name := textproto.CanonicalMIMEHeaderKey(p.Name); guard.MayTrail(name) {
			x.trailers = append(x.trailers, native.Pair{Name: http.TrailerPrefix + name, Value: value})
		}
	}
	return nil
}

// trail leaves the trailers where net/http and http3 look for them. Before the
// head is sent, so that HTTP/1.1 chooses chunks, which alone have a place for them.
func (x *exchange) trail() {
	x.heads.Lock()
	defer x.heads.Unlock()
	h := x.w.Header()
	for _, p := range x.trailers {
		h[p.Name] = append(h[p.Name], p.Value)
	}
}
