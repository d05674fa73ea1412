//go:build !wasip1

package edge

import "net/http"

// RoundTrip makes the request with the ordinary transport: off the edge nothing
// restricts where it goes.
func (Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	return http.DefaultTransport.RoundTrip(r)
}
