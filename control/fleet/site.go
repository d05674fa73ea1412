package fleet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
)

// Site is where a node stands and how many users it wants: what DNS answers
// depend on. The zero value says nothing.
type Site struct {
	Told      bool       // whether the rest says anything
	Located   bool       // Latitude and Longitude are known
	Latitude  float64    // degrees, to a millionth
	Longitude float64    // degrees, to a millionth
	Weight    uint8      // per cent of its PoP's own clients that it takes
	Load      uint8      // per cent of what it can do
	V4, V6    netip.Addr // where users reach it, if not only at Meta.Public; invalid for none
}

// What a site's first byte says is there.
const (
	siteLocated = 1
	siteV4      = 2
	siteV6      = 4
)

// micro is how many of the encoding's steps a degree has.
const micro = 1e6

func (s Site) append(b []byte) []byte {
	var has byte
	if s.Located {
		has |= siteLocated
	}
	if s.V4.IsValid() {
		has |= siteV4
	}
	if s.V6.IsValid() {
		has |= siteV6
	}
	b = append(b, has, s.Weight, s.Load)
	if s.Located {
		b = binary.LittleEndian.AppendUint32(b, uint32(int32(math.Round(s.Latitude*micro))))
		b = binary.LittleEndian.AppendUint32(b, uint32(int32(math.Round(s.Longitude*micro))))
	}
	return append(append(b, s.V4.AsSlice()...), s.V6.AsSlice()...)
}

// decodeSite returns what comes after the site, too.
func decodeSite(b []byte) (s Site, rest []byte, err error) {
	short := errors.New("site cut short")
	if len(b) < 3 {
		return Site{}, nil, short
	}
	has := b[0]
	s = Site{Told: true, Located: has&siteLocated != 0, Weight: b[1], Load: b[2]}
	b = b[3:]
	take := func(n int) []byte {
		if len(b) < n {
			return nil
		}
		part := b[:n]
		b = b[n:]
		return part
	}
	if s.Located {
		p := take(8)
		if p == nil {
			return Site{}, nil, short
		}
		s.Latitude = float64(int32(binary.LittleEndian.Uint32(p))) / micro
		s.Longitude = float64(int32(binary.LittleEndian.Uint32(p[4:]))) / micro
	}
	if has&siteV4 != 0 {
		s.V4, _ = netip.AddrFromSlice(take(4))
	}
	if has&siteV6 != 0 {
		s.V6, _ = netip.AddrFromSlice(take(16))
	}
	if s.V4.IsValid() != (has&siteV4 != 0) || s.V6.IsValid() != (has&siteV6 != 0) {
		return Site{}, nil, short
	}
	return s, b, nil
}

func (s Site) validate() error {
	switch {
	case s.Weight > 100 || s.Load > 100:
		return fmt.Errorf("weight %d, load %d: want per cent", s.Weight, s.Load)
	case s.Located && !(math.Abs(s.Latitude) <= 90 && math.Abs(s.Longitude) <= 180):
		return fmt.Errorf("position %g, %g: want degrees", s.Latitude, s.Longitude)
	case s.V4.IsValid() && !s.V4.Is4(), s.V6.IsValid() && (!s.V6.Is6() || s.V6.Is4In6() || s.V6.Zone() != ""):
		return fmt.Errorf("addresses %v, %v: want one of IPv4 and one of IPv6", s.V4, s.V6)
	}
	return nil
}
