package edge

import "strconv"

// Names of the metadata about the client's place; see sdk/abi.
const (
	metaCountry      = "country"
	metaSubdivision  = "subdivision"
	metaCity         = "city"
	metaLatitude     = "latitude"
	metaLongitude    = "longitude"
	metaTimeZone     = "time-zone"
	metaASN          = "asn"
	metaOrganization = "organization"
	metaEU           = "eu"
	metaAssumed      = "place-assumed"
)

// Place is where a client is, as far as the edge's databases know: by its
// address, so a guess. What is not known is zero. It comes from the edge alone;
// fields of the request that claim a place are dropped before a function sees them.
type Place struct {
	Country      string  // ISO 3166-1 alpha-2, such as GB
	Region       string  // first subdivision: ISO 3166-2 code without the country, or a name
	City         string  // in English
	Located      bool    // Latitude and Longitude are known
	Latitude     float64 // degrees
	Longitude    float64 // degrees
	TimeZone     string  // IANA name, such as Europe/London
	ASN          uint32  // number of the autonomous system, the network operator's
	Organization string  // the operator's name
	EU           bool    // the country is a member of the European Union
	Assumed      bool    // no database knows the address: this is the node's configured default
}

// set records one pair of the request head; unknown names are ignored.
func (p *Place) set(name, value string) {
	switch name {
	case metaCountry:
		p.Country = value
	case metaSubdivision:
		p.Region = value
	case metaCity:
		p.City = value
	case metaLatitude:
		p.Latitude, _ = strconv.ParseFloat(value, 64)
	case metaLongitude:
		var err error
		p.Longitude, err = strconv.ParseFloat(value, 64)
		p.Located = err == nil
	case metaTimeZone:
		p.TimeZone = value
	case metaASN:
		n, _ := strconv.ParseUint(value, 10, 32)
		p.ASN = uint32(n)
	case metaOrganization:
		p.Organization = value
	case metaEU:
		p.EU = value == "1"
	case metaAssumed:
		p.Assumed = value == "1"
	}
}
