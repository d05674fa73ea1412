package geodns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Zone is one zone that is answered for.
type Zone struct {
	Name    string   // such as edge.example.net
	Servers []string // its name servers: a name, and after it, for those within the zone, their addresses
	Contact string   // mail address of who runs it; default hostmaster at the zone
	Hosts   []string // names answered with the nearest PoPs, below the zone: "@" is the zone itself, "*" any other name
	Records []string // further records, as lines of a zone file (RFC 1035 §5): A, AAAA, CAA, CNAME, HTTPS, MX, SRV, SVCB, TXT
}

// What a zone may hold: it is built by hand, not imported.
const (
	maxHosts   = 10_000
	maxRecords = 10_000
	maxServers = 8
)

// Times of the records that are ours, in seconds.
const (
	nsTTL       = 3600
	negativeTTL = 60 // RFC 2308: also how long "no such name" is kept
)

// zone is a Zone, ready to answer. It never changes.
type zone struct {
	name  string           // lower case, with the last dot
	nodes map[string]*node // by lower-case name; those between the zone and a name are there, too
	soa   dns.SOA          // without a serial
	ns    []dns.RR
	glue  []dns.RR // addresses of name servers in the zone
}

// node is one name.
type node struct {
	host bool // answered with PoPs
	sets map[uint16][]dns.RR
}

// zoneFaults gathers what is wrong with a zone.
type zoneFaults struct {
	zone string
	errs []error
}

func (f *zoneFaults) add(format string, args ...any) {
	f.errs = append(f.errs, fmt.Errorf("zone %s: "+format, append([]any{f.zone}, args...)...))
}

// compile checks z and makes it ready; every fault is in the error.
func compile(z Zone) (*zone, error) {
	f := &zoneFaults{zone: z.Name}
	name := dns.CanonicalName(z.Name)
	if _, ok := dns.IsDomainName(name); !ok || name == "." {
		f.add("%q is not a domain name", z.Name)
		return nil, errors.Join(f.errs...)
	}
	if len(z.Hosts) > maxHosts || len(z.Records) > maxRecords || len(z.Servers) > maxServers {
		f.add("more than %d hosts, %d records or %d servers", maxHosts, maxRecords, maxServers)
		return nil, errors.Join(f.errs...)
	}
	c := &zone{name: name, nodes: map[string]*node{}}
	c.node(name)
	c.addServers(z.Servers, f)
	c.addSOA(z, f)
	c.addRecords(z.Records, f)
	c.addHosts(z.Hosts, f)
	for name, n := range c.nodes {
		n.check(name, f)
	}
	return c, errors.Join(f.errs...)
}

// node returns the name's, and makes it and those above it if they are not there.
func (z *zone) node(name string) *node {
	if n, ok := z.nodes[name]; ok {
		return n
	}
	n := &node{sets: map[uint16][]dns.RR{}}
	z.nodes[name] = n
	if name != z.name {
		z.node(parent(name))
	}
	return n
}

func parent(name string) string {
	if i, end := dns.NextLabel(name, 0); !end {
		return name[i:]
	}
	return "."
}

func (z *zone) holds(name string) bool { return dns.IsSubDomain(z.name, name) }

// full returns a name of the zone in full: "@" and what has no last dot is below the zone.
func (z *zone) full(name string) string {
	switch {
	case name == "@":
		return z.name
	case !strings.HasSuffix(name, "."):
		name += "." + z.name
	}
	return dns.CanonicalName(name)
}

func (z *zone) add(r dns.RR) {
	n := z.node(dns.CanonicalName(r.Header().Name))
	n.sets[r.Header().Rrtype] = append(n.sets[r.Header().Rrtype], r)
}

func (z *zone) addServers(servers []string, f *zoneFaults) {
	if len(servers) == 0 {
		f.add("no name servers; name at least one, such as \"ns1.%s 192.0.2.1\"", z.name)
	}
	for _, s := range servers {
		parts := strings.Fields(s)
		if len(parts) == 0 {
			f.add("a name server without a name")
			continue
		}
		name := dns.CanonicalName(parts[0])
		if _, ok := dns.IsDomainName(name); !ok {
			f.add("name server %q is not a domain name", parts[0])
			continue
		}
		if z.holds(name) == (len(parts) == 1) {
			f.add("name server %s: addresses are wanted of those within the zone, and only of them", name)
			continue
		}
		z.ns = append(z.ns, &dns.NS{Hdr: header(z.name, dns.TypeNS, nsTTL), Ns: name})
		for _, text := range parts[1:] {
			a, err := netip.ParseAddr(text)
			if err != nil || a.Zone() != "" {
				f.add("name server %s: %q is not an IP address", name, text)
				continue
			}
			glue := addressRR(header(name, 0, nsTTL), a)
			z.glue = append(z.glue, glue)
			z.add(glue)
		}
	}
	if len(z.ns) > 0 {
		z.nodes[z.name].sets[dns.TypeNS] = z.ns
	}
}

func (z *zone) addSOA(c Zone, f *zoneFaults) {
	contact := c.Contact
	if contact == "" {
		contact = "hostmaster@" + strings.TrimSuffix(z.name, ".")
	}
	local, domain, ok := strings.Cut(contact, "@")
	mailbox := dns.CanonicalName(strings.ReplaceAll(local, ".", `\.`) + "." + domain)
	if _, valid := dns.IsDomainName(mailbox); !ok || local == "" || domain == "" || !valid {
		f.add("contact %q: want a mail address", contact)
	}
	z.soa = dns.SOA{Hdr: header(z.name, dns.TypeSOA, negativeTTL), Mbox: mailbox, Refresh: 7200, Retry: 3600, Expire: 1209600, Minttl: negativeTTL}
	if len(z.ns) > 0 {
		z.soa.Ns = z.ns[0].(*dns.NS).Ns
	}
}

// recordTypes are those that an operator may write down.
var recordTypes = []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeCAA, dns.TypeCNAME, dns.TypeHTTPS, dns.TypeMX, dns.TypeSRV, dns.TypeSVCB, dns.TypeTXT}

func (z *zone) addRecords(lines []string, f *zoneFaults) {
	for _, line := range lines {
		r, err := parseLine(line, z.name)
		switch {
		case err != nil:
			f.add("record %q: %w", line, err)
		case !slices.Contains(recordTypes, r.Header().Rrtype) || r.Header().Class != dns.ClassINET:
			f.add("record %q: type %s cannot be given here", line, dns.TypeToString[r.Header().Rrtype])
		case !z.holds(r.Header().Name):
			f.add("record %q: not within the zone", line)
		default:
			z.add(r)
		}
	}
}

// parseLine reads one line of a zone file; a second one in it is a fault.
func parseLine(line, origin string) (dns.RR, error) {
	p := dns.NewZoneParser(strings.NewReader(line+"\n"), origin, "")
	p.SetDefaultTTL(300)
	p.SetIncludeAllowed(false)
	r, ok := p.Next()
	if err := p.Err(); err != nil {
		return nil, err
	}
	if !ok {
		return nil, errors.New("holds no record")
	}
	if _, more := p.Next(); more || p.Err() != nil {
		return nil, errors.New("holds more than one record")
	}
	return r, nil
}

func (z *zone) addHosts(hosts []string, f *zoneFaults) {
	for _, h := range hosts {
		name := z.full(h)
		if _, ok := dns.IsDomainName(name); !ok || !z.holds(name) {
			f.add("host %q is not a name within the zone", h)
			continue
		}
		z.node(name).host = true
	}
}

// check looks for records that cannot stand beside one another.
func (n *node) check(name string, f *zoneFaults) {
	if len(n.sets[dns.TypeCNAME]) > 0 && (n.host || len(n.sets) > 1 || len(n.sets[dns.TypeCNAME]) > 1) {
		f.add("%s: a CNAME stands alone (RFC 1034 §3.6.2); name it among the hosts to answer with the PoPs themselves", name)
	}
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS} {
		if n.host && len(n.sets[t]) > 0 {
			f.add("%s: is answered with the PoPs and has an %s record of its own", name, dns.TypeToString[t])
		}
	}
}

// find returns the name's node: its own, or the wildcard's that covers it (RFC
// 4592). Nil means that there is no such name.
func (z *zone) find(name string) *node {
	if n, ok := z.nodes[name]; ok {
		return n
	}
	for up := parent(name); z.holds(up); up = parent(up) {
		if _, ok := z.nodes[up]; ok { // the closest encloser
			return z.nodes["*."+up]
		}
	}
	return nil
}

func header(name string, kind uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

// addressRR makes an A or AAAA record.
func addressRR(h dns.RR_Header, a netip.Addr) dns.RR {
	if a = a.Unmap(); a.Is4() {
		h.Rrtype = dns.TypeA
		return &dns.A{Hdr: h, A: a.AsSlice()}
	}
	h.Rrtype = dns.TypeAAAA
	return &dns.AAAA{Hdr: h, AAAA: a.AsSlice()}
}
