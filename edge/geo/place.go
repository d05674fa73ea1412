// Package geo says where an address is: by any MMDB files the operator has,
// reloaded when they change; where none knows, by a configured default.
package geo

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Place is what is known of where an address is. What is not known is zero.
type Place struct {
	Country      string  `json:"country"`      // ISO 3166-1 alpha-2, upper case
	Region       string  `json:"region"`       // first subdivision: its ISO 3166-2 code without the country if the file has one, else its name
	City         string  `json:"city"`         // in English
	Located      bool    `json:"located"`      // Latitude and Longitude are known
	Latitude     float64 `json:"latitude"`     // degrees, -90 to 90
	Longitude    float64 `json:"longitude"`    // degrees, -180 to 180
	TimeZone     string  `json:"time_zone"`    // IANA name
	ASN          uint32  `json:"asn"`          // autonomous system number
	Organization string  `json:"organization"` // that system's holder
	EU           bool    `json:"eu"`           // the country is a member of the European Union

	// Assumed says that no file knows the country or the coordinates, and that
	// they are the configured default's.
	Assumed bool `json:"assumed"`
}

// union lists the members of the European Union, for files that do not say.
var union = strings.Fields("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK")

// InUnion reports whether the country of that ISO code is in the European Union.
func InUnion(country string) bool { return slices.Contains(union, country) }

// Validate reports what is wrong with p as a default.
func (p Place) Validate() error {
	if p.Country != "" && !validCountry(p.Country) {
		return fmt.Errorf("country %q: want two upper-case letters (ISO 3166-1)", p.Country)
	}
	if p.Located && !ValidPosition(p.Latitude, p.Longitude) {
		return fmt.Errorf("position %g, %g: want degrees, -90 to 90 and -180 to 180", p.Latitude, p.Longitude)
	}
	return nil
}

// ValidPosition reports whether both are degrees on the globe.
func ValidPosition(latitude, longitude float64) bool {
	return math.Abs(latitude) <= 90 && math.Abs(longitude) <= 180 // false for NaN
}

func validCountry(s string) bool {
	return len(s) == 2 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z'
}

// fill takes from q what p lacks.
func (p *Place) fill(q *Place) {
	if p.Country == "" {
		p.Country, p.EU = q.Country, q.EU
	}
	if p.Country == q.Country { // another file's city may be in another country
		p.Region, p.City = first(p.Region, q.Region), first(p.City, q.City)
		p.TimeZone = first(p.TimeZone, q.TimeZone)
		if !p.Located && q.Located {
			p.Located, p.Latitude, p.Longitude = true, q.Latitude, q.Longitude
		}
	}
	if p.ASN == 0 {
		p.ASN, p.Organization = q.ASN, q.Organization
	}
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
