package load

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"github.com/selvage-edge/selvage/edge/listen/listentest"
)

// closing fails its first request with err.
type closing struct {
	err   error
	asked int
}

func (c *closing) RoundTrip(*http.Request) (*http.Response, error) {
	if c.asked++; c.asked == 1 {
		return nil, c.err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("ok"))}, nil
}

func TestOwnCloseIsTriedAgain(t *testing.T) {
	for _, c := range []struct {
		name, method string
		err          http3.Error
		asked        int
	}{
		{"after GOAWAY", http.MethodGet, http3.Error{ErrorCode: http3.ErrCodeNoError}, 2},
		{"not idempotent", http.MethodPost, http3.Error{ErrorCode: http3.ErrCodeNoError}, 1},
		{"closed by the server", http.MethodGet, http3.Error{ErrorCode: http3.ErrCodeNoError, Remote: true}, 1},
		{"another reason", http.MethodGet, http3.Error{ErrorCode: http3.ErrCodeFrameError}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			rt := &closing{err: &c.err}
			client, err := newTripper(&Config{Method: c.method, URL: "https://hello.test/"}, rt, func() {})
			if err != nil {
				t.Fatal(err)
			}
			a, err := client.do(listentest.Context(t))
			if rt.asked != c.asked || (err == nil) != (c.asked == 2) {
				t.Errorf("asked %d times: %+v, %v", rt.asked, a, err)
			}
			if err == nil && a.redials != 1 {
				t.Errorf("%d redials, want 1", a.redials)
			}
		})
	}
}
