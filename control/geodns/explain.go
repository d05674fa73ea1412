package geodns

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/selvage-edge/selvage/edge/geo"
)

// Explanation says what a client is answered, and why.
type Explanation struct {
	Client  netip.Addr `json:"client"`
	Host    string     `json:"host"`
	Zone    string     `json:"zone"`
	Answers []string   `json:"answers"` // the records, as a zone file has them
	Place   geo.Place  `json:"place"`
	Why     string     `json:"why"`
	// Placement is where the functions of the host may run, in words; "" is anywhere.
	Placement string   `json:"placement,omitempty"`
	PoPs      []Reason `json:"pops"` // in the order they come in; then those that are nearer and may not run them
}

// Reason is a PoP's part in an explanation.
type Reason struct {
	PoP    string  `json:"pop"`
	Km     float64 `json:"km"` // -1: not known
	State  string  `json:"state"`
	Weight float64 `json:"weight"`
	Load   float64 `json:"load"`
	Why    string  `json:"why"`
}

// Explain asks as a resolver with that client's subnet would.
func (s *Server) Explain(addr netip.Addr, host string) (Explanation, error) {
	addr = addr.Unmap().WithZone("")
	name := dns.CanonicalName(host)
	if _, ok := dns.IsDomainName(name); !ok || !addr.IsValid() {
		return Explanation{}, fmt.Errorf("explain: client %v, host %q: want an IP address and a host name", addr, host)
	}
	f := s.now.Load()
	e := Explanation{Client: addr, Host: name, Place: s.answers.where.Lookup(addr)}
	z := s.answers.zone(name)
	if z == nil {
		return e, fmt.Errorf("explain: %s is in none of the zones answered for: %s", name, strings.Join(s.zoneNames(), ", "))
	}
	e.Zone = z.name
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS} {
		q := new(dns.Msg).SetQuestion(name, kind)
		for _, r := range s.answers.respond(f, q, addr, false).Answer {
			e.Answers = append(e.Answers, strings.ReplaceAll(r.String(), "\t", " "))
		}
	}
	e.Placement = f.pins(name).String()
	e.choose(f, name)
	return e, nil
}

// choose fills in the PoPs, and why they are those.
func (e *Explanation) choose(f *picture, name string) {
	c := client{addr: e.Client}
	q, from := questionOf(e.Place, &c), f.table(name)
	var best, all [MaxChoices]Choice
	n := from.Choose(q, best[:])
	e.Why = why(e.Place, n)
	for i, b := range best[:n] {
		e.PoPs = append(e.PoPs, reason(b, because(b, i)))
	}
	switch at := f.at(name); {
	case at.lost:
		e.Why = "no node where its functions may run lives: the requests go to the nearest PoP that serves, which may have to refuse them"
	case at.table != nil:
		e.Why += ", of those where its functions may run"
		n = f.all.Choose(q, all[:])
		for _, b := range all[:n] {
			if b.Km() < best[0].Km() && !from.has(b.PoP.Name) {
				e.PoPs = append(e.PoPs, reason(b, "nearer, but its functions may not run there"))
			}
		}
	}
}

func reason(c Choice, why string) Reason {
	r := Reason{PoP: c.PoP.Name, Km: c.Km(), State: c.PoP.State.String(), Weight: c.PoP.Weight, Load: c.PoP.Load, Why: why}
	if math.IsNaN(c.Km()) {
		r.Km = -1
	}
	return r
}

func (s *Server) zoneNames() (names []string) {
	for name := range s.answers.zones {
		names = append(names, name)
	}
	return names
}

func why(p geo.Place, n int) string {
	switch {
	case n == 0:
		return "no PoP with an address is known"
	case !p.Located:
		return "where the client is, is not known: PoPs are chosen by weight"
	case p.Assumed:
		return "where the client is, is not known: the configured default is assumed"
	}
	return "the nearest PoP by great circle that serves and keeps this client"
}

func because(c Choice, i int) string {
	switch {
	case c.PoP.State == Dead:
		return "dead, as all are"
	case c.PoP.State == Draining || c.PoP.Weight == 0:
		return "draining, as all that live"
	case c.Passed:
		return "passes this client on, for its weight or load"
	case i == 0:
		return "chosen"
	}
	if i > 1 {
		return "then"
	}
	return "next"
}
