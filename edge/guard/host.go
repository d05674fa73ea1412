package guard

import (
	"net/netip"
	"strconv"
	"strings"
)

const (
	maxHost  = 253 // RFC 1035 §2.3.4, without the trailing dot
	maxLabel = 63
)

var (
	errHost = bad("host", "the host name is not well-formed")
	errPort = bad("port", "the port is not a number from 1 to 65535")
)

// Host splits an authority ("host" or "host:port") and makes both parts
// canonical: lower case, one trailing dot removed, IPv6 literals in their
// RFC 5952 form within brackets, the port without leading zeros ("" if there is
// none). A host is ASCII (names beyond it come as punycode, which is left as it
// is); user information and percent-encoding are refused. Errors are *Error.
func Host(authority string) (host, port string, err error) {
	host, port, ok := cutPort(authority)
	if !ok {
		return "", "", errHost
	}
	if port, ok = canonicalPort(port); !ok {
		return "", "", errPort
	}
	if strings.HasPrefix(host, "[") {
		host, ok = canonicalIPv6(host)
	} else {
		host, ok = canonicalName(host)
	}
	if !ok {
		return "", "", errHost
	}
	return host, port, nil
}

// cutPort cuts at the colon that ends the host; a port that is announced but
// empty ("host:") is legal (RFC 3986 §3.2.3) and means none.
func cutPort(authority string) (host, port string, ok bool) {
	if strings.HasPrefix(authority, "[") {
		end := strings.IndexByte(authority, ']')
		if end < 0 {
			return "", "", false
		}
		host, port = authority[:end+1], authority[end+1:]
		if port != "" && port[0] != ':' {
			return "", "", false
		}
		return host, strings.TrimPrefix(port, ":"), true
	}
	host, port, _ = strings.Cut(authority, ":")
	return host, port, true
}

func canonicalPort(port string) (string, bool) {
	if port == "" {
		return "", true
	}
	for i := range len(port) {
		if port[i] < '0' || port[i] > '9' {
			return "", false
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", false
	}
	return strings.TrimLeft(port, "0"), true
}

func canonicalIPv6(host string) (string, bool) {
	addr, err := netip.ParseAddr(host[1 : len(host)-1])
	if err != nil || !addr.Is6() || addr.Zone() != "" {
		return "", false
	}
	return "[" + addr.String() + "]", true
}

// canonicalName checks the name label by label and lowers it only if it has to.
func canonicalName(host string) (string, bool) {
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > maxHost {
		return "", false
	}
	label, upper := 0, false
	for i := range len(host) {
		switch c := host[i]; {
		case c == '.':
			if label == 0 {
				return "", false
			}
			label = -1
		case 'A' <= c && c <= 'Z':
			upper = true
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return "", false
		}
		if label++; label > maxLabel {
			return "", false
		}
	}
	if label == 0 {
		return "", false
	}
	if upper {
		host = strings.ToLower(host)
	}
	return host, true
}
