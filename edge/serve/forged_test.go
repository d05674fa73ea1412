package serve_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/runtime/abi/native"
)

// forged are fields by which a client would tell where it is, or who handed its
// request on, if anybody believed it.
var forged = []string{
	"Selvage-Geo-Country", "Selvage-Forward", "Selvage-Not-Here", "Selvage-Client", "Cf-Ipcountry", "Cf-Ipcity", "Cloudfront-Viewer-Country", "Fastly-Geo-Country",
	"X-Appengine-Country", "X-Geo-City", "X-Country-Code", "X-Vercel-Ip-Country", "Geoip-Country", "X_Geo_Country",
}

// TestForgedContext: over each protocol, as headers and as trailers, they reach no guest.
func TestForgedContext(t *testing.T) {
	each(t, func(t *testing.T, d *door, _ string, c http.RoundTripper) {
		r := d.request(patient(t), t, "GET", "/head", nil)
		for _, name := range forged {
			r.Header[name] = []string{"XX"}
		}
		r.Header.Set("X-Mine", "1")
		h := guestHead(t, d.send(t, c, r).body)
		if h["X-Mine"] != "1" {
			t.Errorf("the guest sees %v", h)
		}
		for name, value := range h {
			if value == "XX" {
				t.Errorf("%s reaches the guest", name)
			}
		}

		r = d.request(patient(t), t, "POST", "/request-trailers", io.MultiReader(strings.NewReader("body")))
		r.ContentLength, r.Trailer = -1, http.Header{"X-Mine": {"1"}}
		for _, name := range forged {
			r.Trailer[name] = []string{"XX"}
		}
		pairs, err := native.DecodePairs([]byte(d.send(t, c, r).body))
		if err != nil || len(pairs) != 1 || pairs[0] != (native.Pair{Name: "X-Mine", Value: "1"}) {
			t.Errorf("trailers that the guest sees: %v, %v", pairs, err)
		}
	})
}
