package fetch

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// CDN is this software's name in CDN-Loop where Config names none.
const CDN = "selvage"

// MaxLoop is how often a request may pass through this fleet: one more is refused (508).
const MaxLoop = 4

type loopKey struct{}

// WithLoop returns a context for the exchange of a request that came with
// these headers. Its CDN-Loop (RFC 8586) goes on every request made for the
// exchange, whether the function passes it on or not.
func WithLoop(ctx context.Context, h http.Header) context.Context {
	v := h["Cdn-Loop"]
	if len(v) == 0 {
		return ctx
	}
	return context.WithValue(ctx, loopKey{}, strings.Join(v, ", "))
}

// Passes counts how often h says its request passed through cdn.
func Passes(h http.Header, cdn string) int {
	v := h["Cdn-Loop"]
	if len(v) == 0 {
		return 0
	}
	return passes(strings.Join(v, ","), cdn)
}

func passes(loop, cdn string) (n int) {
	for entry := range splitList(loop) {
		id, _, _ := strings.Cut(entry, ";")
		if strings.EqualFold(strings.TrimSpace(id), cdn) {
			n++
		}
	}
	return n
}

// splitList yields the members of a list header; a comma inside quotes does not divide.
func splitList(s string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		start, quoted := 0, false
		for i := 0; i < len(s); i++ {
			switch {
			case quoted && s[i] == '\\':
				i++
			case s[i] == '"':
				quoted = !quoted
			case s[i] == ',' && !quoted:
				if !yield(s[start:i]) {
					return
				}
				start = i + 1
			}
		}
		yield(s[start:])
	}
}

// loop returns the CDN-Loop to send: what the exchange came with, or else what
// the function gave, and this fleet.
func (c *Client) loop(ctx context.Context, h http.Header) (string, error) {
	before, ok := ctx.Value(loopKey{}).(string)
	if !ok {
		before = strings.Join(h.Values("Cdn-Loop"), ", ")
	}
	if n := passes(before, c.config.CDN); n >= MaxLoop {
		return "", fmt.Errorf("%w: the request passed through %s %d times: it loops", hostcall.ErrDenied, c.config.CDN, n)
	}
	if strings.TrimSpace(before) == "" {
		return c.config.CDN, nil
	}
	return before + ", " + c.config.CDN, nil
}
