package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// Bounds of a request's head.
const (
	maxHeaderBytes = 64 << 10
	maxHeaderLines = 128
)

// request returns what is sent for r: the same method, URL and body, with
// headers that are the function's to set.
func (c *Client) request(ctx context.Context, r *http.Request, b Backend) (*http.Request, error) {
	if !isToken(r.Method) || r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		return nil, fmt.Errorf("%w: method %.40q", hostcall.ErrInvalid, r.Method)
	}
	if err := checkHeader(r.Header); err != nil {
		return nil, err
	}
	u := *r.URL
	u.Scheme, u.Host, u.Fragment, u.RawFragment = b.Scheme, b.authority(), "", "" // the form that was compared is the one that is dialled
	u.RawQuery = escapeQuery(u.RawQuery)
	out := &http.Request{
		Method: r.Method, URL: &u, Header: r.Header.Clone(),
		Body: r.Body, ContentLength: r.ContentLength, GetBody: r.GetBody,
	}
	if out.Header == nil {
		out.Header = http.Header{}
	}
	if out.Body == nil {
		out.ContentLength = 0
	}
	loop, err := c.loop(ctx, r.Header)
	if err != nil {
		return nil, err
	}
	dropHopByHop(out.Header)
	dropReserved(out.Header)
	out.Header["Cdn-Loop"] = []string{loop}
	if _, set := out.Header["User-Agent"]; !set {
		out.Header["User-Agent"] = []string{"Selvage"}
	}
	return out, nil
}

// escapeQuery escapes what has no place in a query as it is sent, as a browser does (WHATWG URL,
// query percent-encode set). net/http sends a query as it was parsed, and a space in
// it would be the end of the request's target.
func escapeQuery(q string) string {
	var b strings.Builder
	for i := range len(q) {
		if c := q[i]; c <= ' ' || c > '~' || c == '"' || c == '#' || c == '<' || c == '>' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func checkHeader(h http.Header) error {
	lines, size := 0, 0
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("%w: header name %.80q", hostcall.ErrInvalid, name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return fmt.Errorf("%w: value of header %.80q", hostcall.ErrInvalid, name)
			}
			lines, size = lines+1, size+len(name)+len(v)+4
		}
	}
	if lines > maxHeaderLines || size > maxHeaderBytes {
		return fmt.Errorf("%w: request head of %d lines and %d bytes, at most %d and %d",
			hostcall.ErrTooLarge, lines, size, maxHeaderLines, maxHeaderBytes)
	}
	return nil
}

// checkResponse refuses what is not HTTP although the transport lets it through.
func checkResponse(r *http.Response) error {
	if r.StatusCode == http.StatusSwitchingProtocols {
		return errors.New("the backend switched protocols unasked")
	}
	for name, values := range r.Header {
		ok := httpguts.ValidHeaderFieldName(name)
		for _, v := range values {
			ok = ok && httpguts.ValidHeaderFieldValue(v)
		}
		if !ok {
			return fmt.Errorf("the backend answered with a malformed header %.80q", name)
		}
	}
	return nil
}

// hopByHop belong to one connection (RFC 9110, section 7.6.1).
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
}

func dropHopByHop(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			h.Del(textproto.TrimString(name))
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
}

// dropReserved takes out what a function cannot say. Origins believe who is
// named as the client in a request that comes from an edge, and any function
// can bind any public origin: so none may name one. A function that must pass
// an address on does it in a header of its own.
func dropReserved(h http.Header) {
	for name := range h {
		// Some servers read X_Forwarded_For as X-Forwarded-For.
		n := strings.ToLower(strings.ReplaceAll(name, "_", "-"))
		switch {
		case strings.HasPrefix(n, "x-forwarded-"), n == "forwarded", n == "x-real-ip", n == "true-client-ip", n == "cf-connecting-ip",
			n == "host", n == "content-length", n == "expect", n == "early-data", n == "cdn-loop",
			n == "transfer-encoding", n == "connection", n == "upgrade", n == "te":
			delete(h, name)
		}
	}
}

func isToken(s string) bool { return len(s) <= 64 && httpguts.ValidHeaderFieldName(s) }
