package edge

import "net/http"

// Transport is an http.RoundTripper for requests to the backends bound in
// selvage.toml; others are refused with ErrDenied. On the edge it is
// http.DefaultTransport, so http.Get and http.DefaultClient use it.
//
// A request is under way from the moment its head is known, so requests that
// several goroutines make run side by side, up to the function's limit, and so do
// their bodies in both directions. A body that is in memory (GetBody is set) is
// sent before the response is waited for; any other, a handler's own request's
// say, by a goroutine beside it, which may still send while the response is read:
// if it breaks off the subrequest is cancelled. A context that ends is noticed
// while its request waits. A response's Trailer is there once its body was read to
// the end.
//
// A function without http.Client can have a smaller module: the build tag
// edge_noclient (go build -tags edge_noclient) leaves http.DefaultTransport alone,
// and with it 2.7 MB of net/http that has no use here. [Fetch] works either way.
type Transport struct{}

var _ http.RoundTripper = Transport{}

// Fetch makes one outbound request: no redirects followed, no cookies. The
// caller closes the response's body.
func Fetch(r *http.Request) (*http.Response, error) { return Transport{}.RoundTrip(r) }
