package geodns

import (
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/selvage-edge/selvage/edge/geo"
)

// maxUDP is the largest answer over UDP, in bytes: it fits where IP packets are
// not to be fragmented (DNS Flag Day 2020).
const maxUDP = 1232

// maxChase bounds the aliases followed within our zones.
const maxChase = 8

// Locator says where an address is.
type Locator interface {
	Lookup(netip.Addr) geo.Place
}

var _ Locator = (*geo.DB)(nil)

// answers is everything an answer depends on, beside the query and the fleet.
type answers struct {
	zones  map[string]*zone
	where  Locator
	ttl    uint32
	many   int // addresses in an answer, if there are as many
	serial uint32
}

// respond answers one query. It never fails: what is wrong is said in the answer.
func (a *answers) respond(f *picture, q *dns.Msg, from netip.Addr, udp bool) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	limit := dns.MaxMsgSize
	if udp {
		limit = dns.MinMsgSize
	}
	opt, plain := edns(q)
	if opt != nil && udp {
		limit = min(max(int(opt.UDPSize()), dns.MinMsgSize), maxUDP)
	}
	var c client
	switch {
	case !plain:
		m.Rcode = dns.RcodeFormatError
	case opt != nil && opt.Version() != 0:
		m.Rcode = dns.RcodeBadVers
	default:
		var err error
		if c, err = clientOf(opt, from); err != nil {
			m.Rcode, c.subnet = dns.RcodeFormatError, nil
			break
		}
		a.resolve(f, m, q.Question[0], &c)
	}
	if opt != nil {
		m.Extra = append(m.Extra, reply(opt, &c, m.Rcode))
	}
	if udp || m.Len() > limit {
		m.Truncate(limit)
	}
	return m
}

// edns finds the OPT record; false if there is more than one (RFC 6891 §6.1.1).
func edns(q *dns.Msg) (opt *dns.OPT, ok bool) {
	for _, r := range q.Extra {
		if o, is := r.(*dns.OPT); is {
			if opt != nil {
				return opt, false
			}
			opt = o
		}
	}
	return opt, true
}

func reply(asked *dns.OPT, c *client, rcode int) *dns.OPT {
	o := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	o.SetUDPSize(maxUDP)
	o.SetExtendedRcode(uint16(rcode))
	if asked.Do() {
		o.SetDo() // RFC 3225 §3; nothing is signed all the same
	}
	if c.subnet != nil {
		o.Option = append(o.Option, c.answered())
	}
	return o
}

// resolve writes the answer to one question into m.
func (a *answers) resolve(f *picture, m *dns.Msg, q dns.Question, c *client) {
	name := strings.ToLower(q.Name)
	z := a.zone(name)
	if z == nil || q.Qclass != dns.ClassINET || q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		m.Rcode = dns.RcodeRefused // no recursion, no transfers
		return
	}
	m.Authoritative = true
	c.from = f.table(name)
	if q.Qtype == dns.TypeANY {
		m.Answer = append(m.Answer, &dns.HINFO{Hdr: header(q.Name, dns.TypeHINFO, nsTTL), Cpu: "RFC8482"})
		return
	}
	owner := q.Name
	for range maxChase {
		n := z.find(name)
		if n == nil {
			a.negative(m, z)
			if len(m.Answer) == 0 {
				m.Rcode = dns.RcodeNameError
			}
			return
		}
		alias := n.sets[dns.TypeCNAME]
		if len(alias) == 0 || q.Qtype == dns.TypeCNAME {
			a.node(m, z, n, owner, q.Qtype, c)
			return
		}
		m.Answer = append(m.Answer, owned(alias[0], owner))
		owner = alias[0].(*dns.CNAME).Target
		name = strings.ToLower(owner)
		if z = a.zone(name); z == nil {
			return // the resolver asks there
		}
	}
}

// zone returns the closest zone that holds the name; nil if none is ours.
func (a *answers) zone(name string) *zone {
	for {
		if z := a.zones[name]; z != nil || name == "." {
			return z
		}
		name = parent(name)
	}
}

// negative says that there is no such record (RFC 2308 §3).
func (a *answers) negative(m *dns.Msg, z *zone) { m.Ns = append(m.Ns, a.soa(z)) }

func (a *answers) soa(z *zone) *dns.SOA {
	s := z.soa
	s.Serial = a.serial
	return &s
}

// node answers with what a name has.
func (a *answers) node(m *dns.Msg, z *zone, n *node, owner string, kind uint16, c *client) {
	had := len(m.Answer)
	apex := n == z.nodes[z.name]
	switch {
	case n.host && (kind == dns.TypeA || kind == dns.TypeAAAA || kind == dns.TypeHTTPS):
		a.byPlace(m, owner, kind, c)
	case apex && kind == dns.TypeSOA:
		s := a.soa(z)
		s.Hdr.Name = owner
		m.Answer = append(m.Answer, s)
	default:
		for _, r := range n.sets[kind] {
			m.Answer = append(m.Answer, owned(r, owner))
		}
		if apex && kind == dns.TypeNS {
			m.Extra = append(m.Extra, z.glue...)
		}
	}
	if len(m.Answer) == had {
		a.negative(m, z)
	}
}

// owned returns r under the name that was asked for: a wildcard's record gets
// it, and letters keep their case. It never changes r, which is shared.
func owned(r dns.RR, owner string) dns.RR {
	if r.Header().Name == owner {
		return r
	}
	r = dns.Copy(r)
	r.Header().Name = owner
	return r
}

// byPlace answers with the PoPs that are best for the client.
func (a *answers) byPlace(m *dns.Msg, owner string, kind uint16, c *client) {
	c.byPlace = true
	var best [MaxChoices]Choice
	n := c.from.Choose(questionOf(a.where.Lookup(c.addr), c), best[:])
	if n == 0 {
		return
	}
	key := c.key()
	var room [MaxChoices]netip.AddrPort
	switch kind {
	case dns.TypeHTTPS:
		if p := best[0].PoP; len(p.Addresses) > 0 {
			m.Answer = append(m.Answer, a.service(owner, best[:n], key))
		}
	default:
		for _, at := range addresses(room[:0], best[:n], kind == dns.TypeA, a.many, key) {
			m.Answer = append(m.Answer, addressRR(header(owner, kind, a.ttl), at.Addr()))
		}
	}
}

func questionOf(p geo.Place, c *client) Question {
	return Question{Latitude: p.Latitude, Longitude: p.Longitude, Located: p.Located, Client: c.key()}
}

// addresses appends up to many addresses of one family: those of the first PoP's
// nodes, beginning with the one that is this client's, then the next PoPs'. A
// family that the first PoP lacks has none: clients would prefer the way round.
func addresses(all []netip.AddrPort, best []Choice, four bool, many int, key uint64) []netip.AddrPort {
	for i, b := range best {
		nodes := b.PoP.Addresses
		for j := range nodes {
			at := nodes[(uint64(j)+key)%uint64(len(nodes))]
			if at.Addr().Is4() == four && len(all) < min(many, cap(all)) {
				all = append(all, at)
			}
		}
		if i == 0 && len(all) == 0 || len(all) == many {
			return all
		}
	}
	return all
}

// defaultPort is that of https.
const defaultPort = 443

// service tells clients to begin with HTTP/3, where, and on which port (RFC 9460 §9).
func (a *answers) service(owner string, best []Choice, key uint64) dns.RR {
	r := &dns.HTTPS{SVCB: dns.SVCB{Hdr: header(owner, dns.TypeHTTPS, a.ttl), Priority: 1, Target: "."}}
	r.Value = append(r.Value, &dns.SVCBAlpn{Alpn: []string{"h3", "h2"}})
	var room [MaxChoices]netip.AddrPort
	four := addresses(room[:0], best, true, a.many, key)
	port := best[0].PoP.Addresses[0].Port()
	if port != defaultPort && port != 0 {
		r.Value = append(r.Value, &dns.SVCBPort{Port: port})
	}
	if hints := hintsOf(four, port); len(hints) > 0 {
		r.Value = append(r.Value, &dns.SVCBIPv4Hint{Hint: hints})
	}
	six := addresses(room[:0], best, false, a.many, key)
	if hints := hintsOf(six, port); len(hints) > 0 {
		r.Value = append(r.Value, &dns.SVCBIPv6Hint{Hint: hints})
	}
	return r
}

// hintsOf are the addresses at which that port is right.
func hintsOf(all []netip.AddrPort, port uint16) (hints []net.IP) {
	for _, at := range all {
		if at.Port() == port {
			hints = append(hints, at.Addr().AsSlice())
		}
	}
	return hints
}
