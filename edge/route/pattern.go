package route

import (
	"fmt"
	"strings"

	"github.com/selvage-edge/selvage/edge/guard"
)

// Pattern says which requests a function wants: a host and a path.
//
// The host is exact ("api.example.com"), a wildcard ("*.example.com": every name
// below example.com, however deep, but not example.com itself) or "*" (every
// host). The path is exact ("/status") or ends in "/*" ("/api/*": /api, /api/
// and everything below).
type Pattern struct {
	host    string // "*.example.com" as ".example.com", "*" as ""
	path    string // "/api/*" as "/api", "/*" as ""
	any     hostKind
	subtree bool
}

type hostKind uint8

const (
	exactHost hostKind = iota
	wildHost
	anyHost
)

// ParsePattern reads "host/path". Host and path are made canonical, as the
// requests they are compared with are; see guard.Host and guard.Path.
func ParsePattern(s string) (Pattern, error) {
	slash := strings.IndexByte(s, '/')
	switch {
	case strings.Contains(s, "://"):
		return Pattern{}, fmt.Errorf("route %q: leave the scheme out; a route is host/path", s)
	case slash < 0:
		return Pattern{}, fmt.Errorf("route %q: no path; write %q for all of the host's paths", s, s+"/*")
	case slash == 0:
		return Pattern{}, fmt.Errorf("route %q: no host; write %q for every host", s, "*"+s)
	}
	var p Pattern
	if err := p.setHost(s[:slash]); err != nil {
		return Pattern{}, fmt.Errorf("route %q: %w", s, err)
	}
	if err := p.setPath(s[slash:]); err != nil {
		return Pattern{}, fmt.Errorf("route %q: %w", s, err)
	}
	return p, nil
}

func (p *Pattern) setHost(host string) error {
	if host == "*" {
		p.any = anyHost
		return nil
	}
	name, wild := strings.CutPrefix(host, "*.")
	if strings.Contains(name, "*") {
		return fmt.Errorf("host %q: a star stands alone or as the whole first label", host)
	}
	name, port, err := guard.Host(name)
	switch {
	case err != nil:
		return fmt.Errorf("host %q: %w", host, err)
	case port != "":
		return fmt.Errorf("host %q: a route has no port; leave it out", host)
	case wild && strings.HasPrefix(name, "["):
		return fmt.Errorf("host %q: an address has no names below it", host)
	}
	p.host = name
	if wild {
		p.any, p.host = wildHost, "."+name
	}
	return nil
}

func (p *Pattern) setPath(path string) error {
	path, p.subtree = strings.CutSuffix(path, "/*")
	if strings.Contains(path, "*") {
		return fmt.Errorf("path %q: a star stands only at the end, after a slash", path)
	}
	if path == "" && p.subtree {
		return nil
	}
	canon, err := guard.Path(path)
	if err != nil {
		return fmt.Errorf("path %q: %w", path, err)
	}
	if p.subtree {
		canon = strings.TrimSuffix(canon, "/")
	}
	p.path = canon
	return nil
}

// String returns the canonical text; equal patterns have equal texts.
func (p Pattern) String() string {
	s := p.host
	switch p.any {
	case wildHost:
		s = "*" + s
	case anyHost:
		s = "*"
	}
	s += p.path
	if p.subtree {
		s += "/*"
	}
	return s
}

// Match reports whether a request with this canonical host and path is wanted.
func (p Pattern) Match(host, path string) bool {
	return p.matchHost(host) && p.matchPath(path)
}

func (p Pattern) matchHost(host string) bool {
	switch p.any {
	case anyHost:
		return true
	case wildHost:
		return len(host) > len(p.host) && strings.HasSuffix(host, p.host)
	}
	return host == p.host
}

func (p Pattern) matchPath(path string) bool {
	if !p.subtree {
		return path == p.path
	}
	rest, ok := strings.CutPrefix(path, p.path)
	return ok && strings.HasPrefix(path, "/") && (rest == "" || rest[0] == '/')
}

// Overlap reports whether some request is wanted by both: then the more
// specific of the two gets it.
func (p Pattern) Overlap(q Pattern) bool {
	return hostsOverlap(p, q) && pathsOverlap(p, q)
}

func hostsOverlap(p, q Pattern) bool {
	switch {
	case p.any == anyHost || q.any == anyHost:
		return true
	case p.any == exactHost:
		return q.matchHost(p.host)
	case q.any == exactHost:
		return p.matchHost(q.host)
	}
	return strings.HasSuffix(p.host, q.host) || strings.HasSuffix(q.host, p.host)
}

func pathsOverlap(p, q Pattern) bool {
	switch {
	case !p.subtree:
		return q.matchPath(p.path)
	case !q.subtree:
		return p.matchPath(q.path)
	}
	return p.path == "" || q.path == "" || p.matchPath(q.path) || q.matchPath(p.path)
}
