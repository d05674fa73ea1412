package invoke

import (
	"strconv"
	"strings"

	"github.com/selvage-edge/selvage/edge/geo"
	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// placePairs is the most that appendPlace appends.
const placePairs = 10

// appendPlace appends what is known of where the client is.
func appendPlace(pairs []native.Pair, p *geo.Place) []native.Pair {
	text := func(name, value string) {
		if value != "" {
			pairs = append(pairs, native.Pair{Name: name, Value: value})
		}
	}
	flag := func(name string, set bool) {
		if set {
			pairs = append(pairs, native.Pair{Name: name, Value: "1"})
		}
	}
	text(abi.MetaCountry, p.Country)
	text(abi.MetaSubdivision, p.Region)
	text(abi.MetaCity, p.City)
	if p.Located {
		text(abi.MetaLatitude, strconv.FormatFloat(p.Latitude, 'f', -1, 64))
		text(abi.MetaLongitude, strconv.FormatFloat(p.Longitude, 'f', -1, 64))
	}
	text(abi.MetaTimeZone, p.TimeZone)
	if p.ASN != 0 {
		text(abi.MetaASN, strconv.FormatUint(uint64(p.ASN), 10))
	}
	text(abi.MetaOrganization, p.Organization)
	flag(abi.MetaEU, p.EU)
	flag(abi.MetaAssumed, p.Assumed && (p.Country != "" || p.Located))
	return pairs
}

// placeHeaders begin the names of fields by which CDNs and proxies tell an
// application where its client is. Here that is metadata: such a field comes
// from the client itself, and code that was written for another CDN would believe it.
var placeHeaders = []string{
	"Selvage-Geo-", "Cf-Ip", "Cf-Region", "Cf-Timezone", "Cloudfront-Viewer-", "Fastly-Geo-", "Geoip-", "X-Appengine-C", "X-Appengine-R",
	"X-Client-Geo", "X-Country", "X-Geo-", "X-Geoip-", "X-Vercel-Ip-",
}

// forgesPlace reports whether a field, whose name is canonical, is such a one.
func forgesPlace(name string) bool {
	if name == "" || !strings.ContainsRune("CFGSX", rune(name[0])) {
		return false // nearly all
	}
	for _, p := range placeHeaders {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
