package geo

import (
	"strconv"
	"strings"

	"github.com/oschwald/maxminddb-golang/v2"
)

// The paths at which files keep what is looked for: MaxMind's and DB-IP's nested
// records, IPinfo's flat ones, and those of ip-location-db. Each value is read by
// its path, never the record as a whole: pointers can make a small file decode
// into a very large one.
type paths [][]any

var (
	countryPaths  = paths{{"country", "iso_code"}, {"country_code"}, {"country"}, {"registered_country", "iso_code"}}
	regionPaths   = paths{{"subdivisions", 0, "iso_code"}, {"region_code"}, {"subdivisions", 0, "names", "en"}, {"region"}, {"state1"}}
	cityPaths     = paths{{"city", "names", "en"}, {"city"}}
	latitudePaths = paths{{"location", "latitude"}, {"latitude"}, {"lat"}}
	lonPaths      = paths{{"location", "longitude"}, {"longitude"}, {"lng"}, {"lon"}}
	zonePaths     = paths{{"location", "time_zone"}, {"timezone"}, {"time_zone"}}
	asnPaths      = paths{{"autonomous_system_number"}, {"asn"}}
	holderPaths   = paths{{"autonomous_system_organization"}, {"as_name"}, {"name"}}
)

// maxText bounds a text of a file, in bytes; a longer one is taken for absent.
const maxText = 128

// readRecord reads one record. An error means that the file is broken there; a
// value of a type that was not expected is an absent one.
func readRecord(r maxminddb.Result) (p Place, err error) {
	if err := r.Err(); err != nil {
		return Place{}, err
	}
	if !r.Found() {
		return Place{}, nil
	}
	rec := record{result: r}
	p.Country = rec.text(countryPaths, validCountry)
	p.Region, p.City = rec.text(regionPaths, nil), rec.text(cityPaths, nil)
	p.TimeZone = rec.text(zonePaths, nil)
	p.Organization = rec.text(holderPaths, nil)
	p.ASN = rec.asn()
	lat, haveLat := rec.degrees(latitudePaths)
	lon, haveLon := rec.degrees(lonPaths)
	if haveLat && haveLon && ValidPosition(lat, lon) {
		p.Located, p.Latitude, p.Longitude = true, lat, lon
	}
	p.EU = rec.flag("country", "is_in_european_union") || InUnion(p.Country)
	return p, rec.err
}

// record reads values of a record; the first fault of the file stays in err.
type record struct {
	result maxminddb.Result
	err    error
}

// decode reads the value at path into v, if there is one of v's type.
func (r *record) decode(v any, path []any) {
	if r.err != nil {
		return
	}
	if err := r.result.DecodePath(v, path...); err != nil && isBroken(err) {
		r.err = err
	}
}

func (r *record) text(all paths, valid func(string) bool) string {
	for _, path := range all {
		var s string
		r.decode(&s, path)
		if s != "" && len(s) <= maxText && (valid == nil || valid(s)) {
			return strings.ToValidUTF8(s, "\uFFFD")
		}
	}
	return ""
}

// degrees reads a number, or a text that is one, as IPinfo has it.
func (r *record) degrees(all paths) (float64, bool) {
	for _, path := range all {
		var n *float64
		if r.decode(&n, path); n != nil {
			return *n, true
		}
		var single *float32
		if r.decode(&single, path); single != nil {
			return float64(*single), true
		}
		var s string
		r.decode(&s, path)
		if f, err := strconv.ParseFloat(s, 64); err == nil && len(s) <= maxText {
			return f, true
		}
	}
	return 0, false
}

// asn reads a number, or a text such as AS15169.
func (r *record) asn() uint32 {
	for _, path := range asnPaths {
		var n uint32
		if r.decode(&n, path); n != 0 {
			return n
		}
		var s string
		r.decode(&s, path)
		if v, err := strconv.ParseUint(strings.TrimPrefix(s, "AS"), 10, 32); err == nil {
			return uint32(v)
		}
	}
	return 0
}

func (r *record) flag(path ...any) (b bool) {
	r.decode(&b, path)
	return b
}
