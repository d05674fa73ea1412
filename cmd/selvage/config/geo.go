package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/control/geodns"
	"github.com/selvage-edge/selvage/edge/geo"
	"github.com/selvage-edge/selvage/runtime/function"
)

// Geo says where places of addresses come from.
type Geo struct {
	Databases []string `toml:"databases" doc:"MMDB files (layouts of MaxMind, DB-IP, IPinfo); what the first lacks comes from the next. Looked at every 10 s and reloaded when they change: replace them by renaming." default:"[]"`
	Country   string   `toml:"default_country" doc:"Country (ISO 3166-1) of addresses that no database knows; functions are told that it is assumed." default:""`
	Position  string   `toml:"default_position" doc:"Latitude, longitude of these addresses; without one DNS spreads them over all PoPs." default:""`
}

// DNS says what the node answers as a name server.
type DNS struct {
	Listen  string `toml:"listen" doc:"Address to answer DNS on, UDP and TCP, such as 0.0.0.0:53; empty: it does not." default:""`
	Zones   []Zone `toml:"zones" doc:"The zones answered for. Nothing is signed: DNSSEC is not there yet."`
	TTL     int    `toml:"ttl_seconds" doc:"How long clients keep an answer with PoPs, in seconds, 1 to 3600." default:"20"`
	Answers int    `toml:"answers" doc:"Addresses in an answer, 1 to 8: the nearest PoP's nodes first, then the next PoPs'. Some resolvers rotate them: 1 sends everybody to the nearest." default:"2"`
	Rate    int    `toml:"rate" doc:"Answers of one kind a second over UDP to one network (IPv4 /24, IPv6 /56); of those beyond, half are dropped and half send the client to TCP. 0: no limit." default:"1000"`
	TCP     int    `toml:"connections" doc:"TCP connections open at once, a sixteenth of them from one network (IPv4 /24, IPv6 /56), 2 at least; one more is closed unread." default:"1000"`
}

// Zone is one zone that is answered for.
type Zone struct {
	Name    string   `toml:"name" doc:"Such as edge.example.net, delegated to its servers by whoever runs the zone above."`
	Servers []string `toml:"servers" doc:"Its name servers: a name each, and after it, for those within the zone, the addresses."`
	Contact string   `toml:"contact" doc:"Mail address of who runs it; by default hostmaster at the zone." default:""`
	Hosts   []string `toml:"hosts" doc:"Names answered with the nearest PoPs (A, AAAA, HTTPS), below the zone: @ is the zone itself, * any other name. A customer's domain points at one of them by CNAME, or is a zone here with the host @." default:"[]"`
	Records []string `toml:"records" doc:"Further records as lines of a zone file: A, AAAA, CAA, CNAME, HTTPS, MX, SRV, SVCB, TXT." default:"[]"`
}

// DefaultDNS returns the configuration of a section that sets nothing.
func DefaultDNS() DNS { return DNS{TTL: 20, Answers: 2, Rate: 1000, TCP: 1000} }

// NameServer is the configuration of a name server that runs alone (`selvage dns --config FILE`).
type NameServer struct {
	Node   NameServerNode   `toml:"node"`
	Listen NameServerListen `toml:"listen"`
	Log    ControlLog       `toml:"log"`
	Geo    Geo              `toml:"geo"`
	DNS    DNS              `toml:"dns"`
}

// NameServerNode says who this name server is.
type NameServerNode struct {
	Name  string `toml:"name" doc:"Its name, one in the fleet."`
	State string `toml:"state" doc:"Folder for its keys. Made on first start, mode 0700."`
}

// NameServerListen says where it listens, beside dns.listen.
type NameServerListen struct {
	Admin     string `toml:"admin" doc:"Address for /healthz and what 'selvage geo explain' asks. Not for the internet." default:"127.0.0.1:9090"`
	Gossip    string `toml:"gossip" doc:"Address for membership, TCP and UDP." default:"0.0.0.0:7946"`
	Advertise string `toml:"advertise" doc:"IP address others reach this one at; needed when gossip listens on 0.0.0.0." default:""`
}

// DefaultNameServer returns the configuration of a file that sets nothing.
func DefaultNameServer() NameServer {
	return NameServer{Listen: NameServerListen{Admin: "127.0.0.1:9090", Gossip: "0.0.0.0:7946"}, Log: ControlLog{Level: "info"}, DNS: DefaultDNS()}
}

// LoadNameServer reads and validates a name server's file. Relative paths in it
// are taken from the file's folder.
func LoadNameServer(path string) (NameServer, error) {
	c := DefaultNameServer()
	if err := decode(path, &c); err != nil {
		return c, err
	}
	dir := filepath.Dir(path)
	c.Node.State = below(dir, c.Node.State)
	c.Geo.below(dir)
	var f faults
	f.name("node.name", c.Node.Name)
	f.set("node.state", c.Node.State)
	f.address("listen.admin", c.Listen.Admin)
	f.address("listen.gossip", c.Listen.Gossip)
	f.advertise(c.Listen.Advertise, c.Listen.Gossip)
	f.level(c.Log.Level)
	c.Geo.validate(&f)
	c.DNS.validate(&f, true)
	if err := errors.Join(f...); err != nil {
		return c, fmt.Errorf("config %s:\n%w", path, err)
	}
	return c, nil
}

func (g *Geo) below(dir string) {
	for i := range g.Databases {
		g.Databases[i] = below(dir, g.Databases[i])
	}
}

// Default is the place of addresses that no database knows. Call after Validate.
func (g Geo) Default() geo.Place {
	p := geo.Place{Country: g.Country}
	p.Latitude, p.Longitude, p.Located, _ = position(g.Position)
	return p
}

func (g Geo) validate(f *faults) {
	if _, _, _, err := position(g.Position); err != nil {
		f.add("geo.default_position: %w", err)
	}
	if err := (geo.Place{Country: g.Country}).Validate(); err != nil {
		f.add("geo.default_country: %w", err)
	}
	for i, d := range g.Databases {
		f.set(fmt.Sprintf("geo.databases[%d]", i), d)
	}
}

// position reads latitude, longitude; not known if s is empty.
func position(s string) (latitude, longitude float64, known bool, err error) {
	if s == "" {
		return 0, 0, false, nil
	}
	a, b, _ := strings.Cut(s, ",")
	latitude, err = strconv.ParseFloat(strings.TrimSpace(a), 64)
	if err == nil {
		longitude, err = strconv.ParseFloat(strings.TrimSpace(b), 64)
	}
	if err != nil || !geo.ValidPosition(latitude, longitude) {
		return 0, 0, false, fmt.Errorf("%q: want latitude, longitude in degrees, such as 51.51, -0.13", s)
	}
	return latitude, longitude, true, nil
}

// Place is where the node stands; not known if that is not said. Call after Validate.
func (n Node) Place() (latitude, longitude float64, known bool) {
	latitude, longitude, known, _ = position(n.Position)
	return latitude, longitude, known
}

// UserAddresses are the node's for DNS, invalid where none is said. Call after Validate.
func (n Node) UserAddresses() (v4, v6 netip.Addr) {
	for _, s := range n.Addresses {
		if a, _ := netip.ParseAddr(s); a.Is4() {
			v4 = a
		} else {
			v6 = a
		}
	}
	return v4, v6
}

func (n Node) validateSite(f *faults) {
	if _, _, _, err := position(n.Position); err != nil {
		f.add("node.position: %w", err)
	}
	if !(n.Weight >= 0 && n.Weight <= 1) {
		f.add("node.weight: %v: want 0 to 1", n.Weight)
	}
	n.validateLabels(f)
	had := map[bool]bool{}
	for i, s := range n.Addresses {
		a, err := netip.ParseAddr(s)
		if err != nil || a.IsUnspecified() || a.Zone() != "" || a.Is4In6() || had[a.Is4()] {
			f.add("node.addresses[%d]: %q: want one IPv4 and one IPv6 address at most", i, s)
		}
		had[a.Is4()] = true
	}
}

func (n Node) validateLabels(f *faults) {
	for i, s := range n.Labels {
		l, err := function.ParseLabel(s)
		switch {
		case err != nil:
			f.add("node.labels[%d]: %w", i, err)
		case function.Proven(l):
			f.add("node.labels[%d]: %q: pop, region and node are told by node.pop, node.region and node.name", i, s)
		}
	}
	if size := len(strings.Join(n.Labels, ",")); len(n.Labels) > 16 || size > 128 {
		f.add("node.labels: %d labels of %d bytes: want at most 16, of 128 bytes together", len(n.Labels), size)
	}
}

// LabelList are the node's labels in their canonical form. Call after Validate.
func (n Node) LabelList() (all []string) {
	for _, s := range n.Labels {
		l, _ := function.ParseLabel(s)
		all = append(all, l)
	}
	return all
}

func (d DNS) validate(f *faults, required bool) {
	if d.Listen == "" && !required {
		return
	}
	f.address("dns.listen", d.Listen)
	if d.TTL < 1 || d.TTL > 3600 {
		f.add("dns.ttl_seconds: %d: want 1 to 3600", d.TTL)
	}
	if d.Answers < 1 || d.Answers > geodns.MaxChoices {
		f.add("dns.answers: %d: want 1 to %d", d.Answers, geodns.MaxChoices)
	}
	if d.Rate < 0 {
		f.add("dns.rate: %d: want 0 or more", d.Rate)
	}
	f.positive("dns.connections", d.TCP)
	if err := geodns.Check(d.zones()); err != nil {
		f.add("dns.zones: %w", err)
	}
}

func (d DNS) zones() (all []geodns.Zone) {
	for _, z := range d.Zones {
		all = append(all, geodns.Zone(z))
	}
	return all
}

// Server is what the name server is made from. Call after Validate.
func (d DNS) Server(where geodns.Locator) geodns.Config {
	return geodns.Config{Zones: d.zones(), Where: where, TTL: time.Duration(d.TTL) * time.Second, Answers: d.Answers,
		Rate: d.Rate, TCP: d.TCP, Sockets: runtime.GOMAXPROCS(0)}
}
