package guard

import (
	"bytes"
	"strings"
)

var (
	errPathForm    = bad("path", "the path does not begin with a slash")
	errPathByte    = bad("path-byte", "the path holds a byte that must be percent-encoded")
	errPathPercent = bad("path-percent", "the path holds a malformed percent-encoding")
	errPathNul     = bad("path-nul", "the path holds an encoded NUL")
	errQueryByte   = bad("query-byte", "the query holds a byte that must be percent-encoded")
)

// What a byte of a path may be.
const (
	encode  = iota // kept, percent-encoded
	plain          // kept as it is: RFC 3986 pchar, and "/"
	decoded        // plain, and decoded where it came encoded: unreserved
	illegal        // refused: controls, space, "#", "?"
)

var pathByte = func() (t [256]byte) {
	for c := range len(t) {
		if c <= ' ' || c == 0x7f {
			t[c] = illegal
		}
	}
	for _, c := range "#?" {
		t[c] = illegal
	}
	for _, c := range "/:@!$&'()*+,;=" {
		t[c] = plain
	}
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~" {
		t[c] = decoded
	}
	return t
}()

// Path makes a path, as it came, canonical (RFC 3986 §6.2.2):
//   - percent-encoded unreserved characters are decoded, all other encodings are
//     kept and written in upper case (so %2F never becomes a separator);
//   - bytes that are not allowed in a path but harmless ("|", "\", non-ASCII)
//     are percent-encoded; controls, space, "#" and %00 are refused;
//   - "." and ".." segments are removed, the latter never above the root;
//   - runs of slashes become one, as most origins and caches take them.
//
// It is idempotent, and returns p itself, without allocating, when p is already
// canonical and has no percent-encoding. Errors are *Error.
func Path(p string) (string, error) {
	if p == "" || p[0] != '/' {
		return "", errPathForm
	}
	if isCanonical(p) {
		return p, nil
	}
	b, err := normalise(p)
	if err != nil {
		return "", err
	}
	return string(removeDots(b)), nil
}

// isCanonical reports whether nothing is to be done; it may say no too often.
func isCanonical(p string) bool {
	for i := 1; i < len(p); i++ {
		c := p[i]
		if class := pathByte[c]; class != plain && class != decoded {
			return false
		}
		// A slash or a dot after a slash: a run, a dot segment, or ".well-known".
		if p[i-1] == '/' && (c == '/' || c == '.' && isDots(p[i:])) {
			return false
		}
	}
	return true
}

// isDots reports whether the segment that s begins with is "." or "..".
func isDots(s string) bool {
	n := strings.IndexByte(s, '/')
	if n < 0 {
		n = len(s)
	}
	return s[:n] == "." || s[:n] == ".."
}

const upperHex = "0123456789ABCDEF"

// normalise rewrites percent-encodings; the result has no illegal byte.
func normalise(p string) ([]byte, error) {
	out := make([]byte, 0, len(p)+8)
	for i := 0; i < len(p); i++ {
		c, class := p[i], pathByte[p[i]]
		switch {
		case c == '%':
			v, ok := unhex(p[i+1:])
			if !ok {
				return nil, errPathPercent
			}
			if v == 0 {
				return nil, errPathNul
			}
			i += 2
			if pathByte[v] == decoded {
				out = append(out, v)
			} else {
				out = append(out, '%', upperHex[v>>4], upperHex[v&15])
			}
		case class == illegal:
			return nil, errPathByte
		case class == encode:
			out = append(out, '%', upperHex[c>>4], upperHex[c&15])
		default:
			out = append(out, c)
		}
	}
	return out, nil
}

// removeDots drops empty, "." and ".." segments in place.
func removeDots(p []byte) []byte {
	out := p[:0]
	for i := 0; i < len(p); {
		i++ // the slash
		start := i
		for i < len(p) && p[i] != '/' {
			i++
		}
		last := i == len(p)
		switch seg := p[start:i]; {
		case len(seg) == 0, string(seg) == ".":
			if last {
				out = append(out, '/')
			}
		case string(seg) == "..":
			out = dropSegment(out)
			if last {
				out = append(out, '/')
			}
		default:
			// out is never longer than what was read, so the copy is safe.
			out = append(append(out, '/'), seg...)
		}
	}
	return out
}

// dropSegment removes the last segment and its slash; above the root there is nothing.
func dropSegment(p []byte) []byte {
	return p[:max(bytes.LastIndexByte(p, '/'), 0)]
}

// Query checks a query (without its "?") and percent-encodes bytes beyond
// ASCII; the rest stays as it came, malformed percent-encodings too, because
// many applications send and accept them. Errors are *Error.
func Query(q string) (string, error) {
	wide := 0
	for i := range len(q) {
		switch c := q[i]; {
		case c <= ' ', c == 0x7f, c == '#':
			return "", errQueryByte
		case c > 0x7f:
			wide++
		}
	}
	if wide == 0 {
		return q, nil
	}
	out := make([]byte, 0, len(q)+2*wide)
	for i := range len(q) {
		if c := q[i]; c > 0x7f {
			out = append(out, '%', upperHex[c>>4], upperHex[c&15])
		} else {
			out = append(out, c)
		}
	}
	return string(out), nil
}

func unhex(s string) (byte, bool) {
	if len(s) < 2 {
		return 0, false
	}
	hi, ok1 := nibble(s[0])
	lo, ok2 := nibble(s[1])
	return hi<<4 | lo, ok1 && ok2
}

func nibble(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
