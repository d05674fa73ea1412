package native

import "strings"

// HopByHop reports whether the header with that canonical name speaks to the
// next hop only (RFC 9110 §7.6.1; Trailer and Proxy-* with it): it crosses the
// border in neither direction.
func HopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return strings.HasPrefix(name, "Proxy-")
}

// ValidName reports whether s may be a header's name: an RFC 9110 §5.6.2 token.
func ValidName(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// IllegalAt returns where s holds a byte no header's value may hold (RFC 9110
// §5.5: controls other than tab), or -1.
func IllegalAt(s string) int {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return i
		}
	}
	return -1
}
