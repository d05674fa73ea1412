package geodns

import (
	"slices"
	"strings"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/runtime/function"
)

// MaxPins bounds the different sets of placements that hosts are told apart by. A
// host of one more is answered as if its functions ran anywhere: where they do not,
// its requests go on.
const MaxPins = 256

// Hosts says where the functions of each host may run, by the routes of all
// releases. It never changes. Nil is that all run anywhere.
type Hosts struct {
	exact, wild map[string]int // a name, or ".name" for all below it: the index of its pins
	any         int            // what other names have
	pins        []pins         // pins[0] is anywhere
	over        int            // sets beyond MaxPins
}

// pins is where some function of a host may run: what one of them allows. Empty is anywhere.
type pins []function.Placement

func (p pins) allows(l function.Labels) bool {
	return len(p) == 0 || slices.ContainsFunc(p, func(one function.Placement) bool { return one.Allows(l) })
}

// String is the pins in words.
func (p pins) String() string {
	var all []string
	for _, one := range p {
		all = append(all, one.String())
	}
	return strings.Join(all, "; or ")
}

// claim is what the routes of one host pattern say.
type claim struct {
	releases []*catalog.Release
	whole    bool // every path is wanted: nothing is left to less specific hosts
}

// HostsOf reads the routes of releases. It returns nil if none is placed.
func HostsOf(releases []catalog.Release) *Hosts {
	claims, placed := map[string]claim{}, false
	for i := range releases {
		r := &releases[i]
		placed = placed || !anywhere(r)
		for _, pattern := range r.Routes {
			host, path, _ := strings.Cut(pattern, "/")
			c := claims[host]
			c.releases, c.whole = append(c.releases, r), c.whole || path == "*"
			claims[host] = c
		}
	}
	if !placed {
		return nil
	}
	h := &Hosts{exact: map[string]int{}, wild: map[string]int{}, pins: []pins{nil}}
	known := map[string]int{"": 0}
	for host := range claims {
		at := h.index(pinsOf(claims, host), known)
		if name, ok := strings.CutPrefix(host, "*"); !ok {
			h.exact[host] = at
		} else if name == "" {
			h.any = at
		} else {
			h.wild[name] = at
		}
	}
	return h
}

func anywhere(r *catalog.Release) bool {
	return len(r.Placement.Include) == 0 && len(r.Placement.Exclude) == 0
}

func (h *Hosts) index(p pins, known map[string]int) int {
	key := p.String()
	at, ok := known[key]
	if !ok && len(h.pins) < MaxPins {
		at = len(h.pins)
		h.pins, known[key] = append(h.pins, p), at
	} else if !ok {
		h.over++
		known[key] = 0
	}
	return at
}

// pinsOf are those of all functions that may get a request for the host: its own, and those of
// the less specific hosts that are asked where its paths do not match (see route.Table).
func pinsOf(claims map[string]claim, host string) (all pins) {
	for {
		c := claims[host]
		for _, r := range c.releases {
			if anywhere(r) {
				return nil
			}
			all = append(all, r.Placement)
		}
		if c.whole || host == "*" {
			break
		}
		host = above(host)
	}
	slices.SortFunc(all, func(a, b function.Placement) int { return strings.Compare(a.String(), b.String()) })
	return slices.CompactFunc(all, func(a, b function.Placement) bool { return a.String() == b.String() })
}

// above is the next less specific host: "*.b.c" of "a.b.c" and of "*.a.b.c"; "*" is the last.
func above(host string) string {
	_, rest, ok := strings.Cut(strings.TrimPrefix(host, "*."), ".")
	if !ok {
		return "*"
	}
	return "*." + rest
}

// of returns the index of a name's pins: lower case, with the last dot. It allocates nothing.
func (h *Hosts) of(name string) int {
	name = strings.TrimSuffix(name, ".")
	if at, ok := h.exact[name]; ok {
		return at
	}
	for i := 1; i < len(name) && len(h.wild) > 0; i++ {
		if name[i] != '.' {
			continue
		}
		if at, ok := h.wild[name[i:]]; ok {
			return at
		}
	}
	return h.any
}
