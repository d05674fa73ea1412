package invoke

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/selvage-edge/selvage/edge/geo"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// appendRequestHead appends what the guest reads of r.
func appendRequestHead(b []byte, r *http.Request, v *function.Version, m *telemetry.Meta, at *geo.Place, hasBody bool) []byte {
	room := rooms.Get().(*headRoom)
	defer room.give()
	room.metadata = append(room.metadata,
		native.Pair{Name: abi.MetaRequestID, Value: m.RequestID},
		native.Pair{Name: abi.MetaClient, Value: client(m)},
		native.Pair{Name: abi.MetaPoP, Value: m.Place.PoP},
		native.Pair{Name: abi.MetaNode, Value: m.Place.Node},
		native.Pair{Name: abi.MetaRegion, Value: m.Place.Region},
		native.Pair{Name: abi.MetaProject, Value: v.ID.Project},
		native.Pair{Name: abi.MetaFunction, Value: v.ID.Name},
		native.Pair{Name: abi.MetaVersion, Value: string(v.Digest)},
	)
	room.metadata = appendPlace(room.metadata, at)
	room.headers = requestHeaders(room.headers, r)
	h := native.Head{
		Body:          hasBody,
		ContentLength: r.ContentLength,
		Method:        r.Method,
		Scheme:        m.Scheme,
		Authority:     m.Authority,
		Target:        m.Target,
		Protocol:      m.Protocol,
		Metadata:      room.metadata,
		Headers:       room.headers,
	}
	return h.Append(b)
}

// headRoom is where a head is put together. On the stack it would make that twice as
// large, for as long as the request waits.
type headRoom struct{ metadata, headers []native.Pair }

var rooms = sync.Pool{New: func() any {
	return &headRoom{metadata: make([]native.Pair, 0, 8+placePairs), headers: make([]native.Pair, 0, 48)}
}}

// give gives the room back, without what it held of the request.
func (h *headRoom) give() {
	const most = 256 // a request with more headers is rare, and its room not kept
	if cap(h.headers) > most {
		return
	}
	clear(h.metadata)
	clear(h.headers)
	h.metadata, h.headers = h.metadata[:0], h.headers[:0]
	rooms.Put(h)
}

// client is the client's address, empty when it has none.
func client(m *telemetry.Meta) string {
	if !m.Client.IsValid() {
		return ""
	}
	return m.Client.String()
}

// requestHeaders appends the end-to-end headers of r in the order of their
// names: a map's own order would differ from one request to the next.
func requestHeaders(pairs []native.Pair, r *http.Request) []native.Pair {
	named := r.Header["Connection"]
	for name, values := range r.Header {
		if native.HopByHop(name) || namedIn(named, name) || forgesPlace(name) {
			continue
		}
		if name == "Cookie" && len(values) > 1 {
			// HTTP/2 and HTTP/3 may send one field per cookie; RFC 9113 §8.2.3 wants them joined.
			pairs = append(pairs, native.Pair{Name: name, Value: strings.Join(values, "; ")})
			continue
		}
		for _, v := range values {
			pairs = append(pairs, native.Pair{Name: name, Value: v})
		}
	}
	if len(r.Trailer) > 0 {
		announced := slices.Sorted(maps.Keys(r.Trailer))
		pairs = append(pairs, native.Pair{Name: "Trailer", Value: strings.Join(announced, ", ")})
	}
	slices.SortStableFunc(pairs, func(a, b native.Pair) int { return strings.Compare(a.Name, b.Name) })
	return pairs
}

// namedIn reports whether a Connection header's options name the header.
func namedIn(connection []string, name string) bool {
	for _, line := range connection {
		for option := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(option), name) {
				return true
			}
		}
	}
	return false
}
