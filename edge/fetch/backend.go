package fetch

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// Backend is the origin of a binding, in the one form that compares.
type Backend struct {
	Scheme string // "http" or "https"
	Host   string // lower-case name without a final dot, or an address as netip prints it
	Port   uint16
}

// String returns the URL, with the port if it is not the scheme's own.
func (b Backend) String() string { return b.Scheme + "://" + b.authority() }

// authority is what goes into a URL and the Host header.
func (b Backend) authority() string {
	switch {
	case b.Port != schemePort(b.Scheme):
		return net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	case strings.Contains(b.Host, ":"):
		return "[" + b.Host + "]"
	}
	return b.Host
}

// ParseBackend reads a binding's URL: scheme, host and optional port, no more.
func ParseBackend(s string) (Backend, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Backend{}, fmt.Errorf("backend %.200q: not a URL; want https://host or https://host:port", s)
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#") {
		return Backend{}, fmt.Errorf("backend %.200q: want scheme, host and port only; the function names path and query", s)
	}
	b, err := backendOf(u)
	if err != nil {
		return Backend{}, fmt.Errorf("backend %.200q: %w", s, err)
	}
	return b, nil
}

// backendOf returns the origin of u.
func backendOf(u *url.URL) (Backend, error) {
	b := Backend{Scheme: strings.ToLower(u.Scheme)}
	if schemePort(b.Scheme) == 0 {
		return Backend{}, fmt.Errorf("scheme %.20q: want http or https", u.Scheme)
	}
	if u.User != nil || u.Opaque != "" {
		return Backend{}, errors.New("a URL with a user or without a host; send credentials in a header")
	}
	var err error
	if b.Host, err = host(u.Hostname()); err != nil {
		return Backend{}, err
	}
	b.Port, err = port(u, schemePort(b.Scheme))
	return b, err
}

func schemePort(scheme string) uint16 {
	switch scheme {
	case "http":
		return 80
	case "https":
		return 443
	}
	return 0
}

// host accepts a DNS name or a plain address. What resolvers read as numbers
// in other ways (127.1, 0x7f000001, 2130706433) is neither.
func host(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return "", fmt.Errorf("host %.80q: an address with a zone", s)
		}
		return a.Unmap().String(), nil
	}
	name := strings.TrimSuffix(strings.ToLower(s), ".")
	if len(name) == 0 || len(name) > 253 {
		return "", fmt.Errorf("host %.80q: want a name of 1 to 253 characters, or an address", s)
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if !isLabel(l) {
			return "", fmt.Errorf("host %.80q: want letters, digits and - between dots; write other scripts as xn--", s)
		}
	}
	if last := labels[len(labels)-1]; last[0] >= '0' && last[0] <= '9' {
		return "", fmt.Errorf("host %.80q: neither a name nor an address", s) // as the URL standard has it
	}
	return name, nil
}

func isLabel(l string) bool {
	if len(l) == 0 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	for i := range len(l) {
		c := l[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// badPorts speak other protocols, which an HTTP request could be made to speak
// too: the Fetch standard's list of blocked ports.
var badPorts = []uint16{
	1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104,
	109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515,
	526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049,
	3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
}

func port(u *url.URL, def uint16) (uint16, error) {
	s := u.Port()
	if s == "" && !strings.HasSuffix(u.Host, ":") {
		return def, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("port %.20q: want 1 to 65535", s)
	}
	if slices.Contains(badPorts, uint16(n)) {
		return 0, fmt.Errorf("port %d: other protocols live there; serve HTTP on another port", n)
	}
	return uint16(n), nil
}

// route is how requests go to one backend of a function.
type route struct {
	Backend
	private  bool
	timeouts function.Timeouts
}

// bound returns the way to u's origin, when that is one of v's backends.
func bound(v *function.Version, u *url.URL) (route, error) {
	if u == nil {
		return route{}, fmt.Errorf("%w: no URL", hostcall.ErrInvalid)
	}
	want, err := backendOf(u)
	if err != nil {
		return route{}, fmt.Errorf("%w: %w", hostcall.ErrInvalid, err)
	}
	for _, b := range v.Bindings.Backends {
		if have, err := ParseBackend(b.URL); err == nil && have == want {
			return route{want, b.Private, b.Timeouts}, nil
		}
	}
	return route{}, fmt.Errorf("%w: no backend of %s is %s; bind it in selvage.toml", hostcall.ErrDenied, v.ID, want)
}
