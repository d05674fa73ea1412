package invoke

import (
	"net/http"
	"slices"
	"strings"

	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// requestHead encodes what the guest reads of r.
func requestHead(r *http.Request, v *function.Version, m *Meta, hasBody bool) []byte {
	metadata := [...]native.Pair{
		{Name: abi.MetaRequestID, Value: m.RequestID},
		{Name: abi.MetaClient, Value: m.Client},
		{Name: abi.MetaPoP, Value: m.PoP},
		{Name: abi.MetaNode, Value: m.Node},
		{Name: abi.MetaRegion, Value: m.Region},
		{Name: abi.MetaProject, Value: v.ID.Project},
		{Name: abi.MetaFunction, Value: v.ID.Name},
		{Name: abi.MetaVersion, Value: string(v.Digest)},
	}
	var room [48]native.Pair
	h := native.Head{
		Body:          hasBody,
		ContentLength: r.ContentLength,
		Method:        r.Method,
		Scheme:        or(m.Scheme, scheme(r)),
		Authority:     or(m.Host, r.Host),
		Target:        or(m.Target, r.URL.RequestURI()),
		Protocol:      r.Proto,
		Metadata:      metadata[:],
		Headers:       requestHeaders(room[:0], r),
	}
	return h.Append(make([]byte, 0, 1024))
}

func or(s, def string) string {
	if s != "" {
		return s
	}
	return def
}

func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// requestHeaders appends the end-to-end headers of r in the order of their
// names: a map's own order would differ from one request to the next.
func requestHeaders(pairs []native.Pair, r *http.Request) []native.Pair {
	named := r.Header["Connection"]
	for name, values := range r.Header {
		if hopByHop(name) || namedIn(named, name) {
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
	slices.SortStableFunc(pairs, func(a, b native.Pair) int { return strings.Compare(a.Name, b.Name) })
	return pairs
}

// hopByHop reports whether the header with that canonical name speaks to the
// next hop only (RFC 9110 §7.6.1; Trailer and Proxy-* with it).
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return strings.HasPrefix(name, "Proxy-")
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
