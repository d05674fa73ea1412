package edge

import "net/http"

// Transport is an http.RoundTripper for requests to the backends bound in
// selvage.toml; others are refused with ErrDenied. On the edge it is
// http.DefaultTransport, so http.Get and http.DefaultClient use it.
//
// A request is under way from the moment its head is known, so requests that
// several goroutines make run side by side, up to the function's limit. Each
// one's body is sent before its response is read. Bodies stream in both
// directions. While requests wait for their response's head the function's other
// goroutines go on, its timers run (late by up to 16 ms) and a context that ends is
// noticed; sending and reading a body each wait for all of them. A response's
// Trailer is there once its body was read to the end.
//
// A function without http.Client can have a smaller module: the build tag
// edge_noclient (go build -tags edge_noclient) leaves http.DefaultTransport alone,
// and with it 2.7 MB of net/http that has no use here. [Fetch] works either way.
type Transport struct{}

var _ http.RoundTripper = Transport{}

// Fetch makes one outbound request: no redirects followed, no cookies. The
// caller closes the response's body.
func Fetch(r *http.Request) (*http.Response, error) { return Transport{}.RoundTrip(r) }
