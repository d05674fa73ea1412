package geodns

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/selvage-edge/selvage/edge/geo"
	"github.com/selvage-edge/selvage/runtime/tooltest"
)

// atlas places clients by the network they are in.
type atlas map[netip.Prefix]geo.Place

func (a atlas) Lookup(addr netip.Addr) geo.Place {
	for p, place := range a {
		if p.Contains(addr) {
			return place
		}
	}
	return geo.Place{Assumed: true}
}

func at(city string) geo.Place {
	for _, c := range cities {
		if c.name == city {
			return geo.Place{Located: true, Latitude: c.lat, Longitude: c.lon}
		}
	}
	panic(city)
}

var where = atlas{
	netip.MustParsePrefix("81.2.69.0/24"):  at("lhr"),
	netip.MustParsePrefix("4.4.0.0/16"):    at("iad"),
	netip.MustParsePrefix("2a02:100::/32"): at("sin"),
	netip.MustParsePrefix("127.0.0.0/8"):   at("fra"),
}

var testZones = []Zone{
	{
		Name:    "edge.example.net",
		Servers: []string{"ns1.edge.example.net 192.0.2.53 2001:db8::53", "ns2.example.org"},
		Contact: "ops.team@example.net",
		Hosts:   []string{"@", "www", "*.apps"},
		Records: []string{
			"@ 600 CAA 0 issue \"letsencrypt.org\"", "@ TXT \"v=spf1 -all\"", "_acme-challenge.www 60 TXT token",
			"shop CNAME www", "out CNAME www.example.com.", "loop CNAME pool", "pool CNAME loop", "deep.down A 192.0.2.80",
			"*.wild TXT \"any\"", "big TXT " + strings.Repeat("\""+strings.Repeat("x", 200)+"\" ", 12),
		},
	},
	{Name: "customer.example", Servers: []string{"ns2.example.org"}, Hosts: []string{"@"}, Records: []string{"www CNAME www.edge.example.net."}},
}

// fleetOf has a node of both families in each city, and in lhr two.
func fleetOf() []PoP {
	pops := world()
	for i := range pops {
		p := &pops[i]
		p.Addresses = append(p.Addresses, netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1)), 443))
		if p.Name == "lhr" {
			p.Addresses = append(p.Addresses, netip.MustParseAddrPort("198.51.100.7:443"))
		}
	}
	return pops
}

func start(t testing.TB, c Config) *Server {
	t.Helper()
	if c.Zones == nil {
		c.Zones = testZones
	}
	if c.Where == nil {
		c.Where = where
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetPoPs(fleetOf()); err != nil {
		t.Fatal(err)
	}
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func question(name string, kind uint16, subnet string) *dns.Msg {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	if subnet != "" {
		p := netip.MustParsePrefix(subnet)
		q.SetEdns0(4096, false)
		e := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()}
		if p.Addr().Is6() {
			e.Family = 2
		}
		q.IsEdns0().Option = append(q.IsEdns0().Option, e)
	}
	return q
}

func ask(t testing.TB, s *Server, network string, q *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 10 * time.Second, UDPSize: dns.MaxMsgSize}
	m, _, err := c.Exchange(q, s.Address().String())
	if err != nil {
		t.Fatal(err)
	}
	if m.RecursionAvailable {
		t.Error("recursion is offered")
	}
	return m
}

// lines are the answer's records without the tabs.
func lines(rrs []dns.RR) (all []string) {
	for _, r := range rrs {
		all = append(all, strings.ReplaceAll(r.String(), "\t", " "))
	}
	return all
}

func TestAnswers(t *testing.T) {
	s := start(t, Config{})
	soa := "edge.example.net. 60 IN SOA ns1.edge.example.net. ops\\.team.example.net."
	for _, c := range []struct {
		name   string
		kind   uint16
		subnet string
		rcode  int
		want   []string // of the answer
		ns     string   // how the authority section begins
	}{
		{"www.edge.example.net", dns.TypeA, "4.4.4.0/24", 0, []string{"www.edge.example.net. 20 IN A 192.0.2.26", "www.edge.example.net. 20 IN A 192.0.2.58"}, ""},
		{"www.edge.example.net", dns.TypeAAAA, "2a02:100::/48", 0, []string{"www.edge.example.net. 20 IN AAAA 2001:db8::35", "www.edge.example.net. 20 IN AAAA 2001:db8::d"}, ""},
		{"WwW.eDGe.example.net", dns.TypeA, "4.4.4.0/24", 0, []string{"WwW.eDGe.example.net. 20 IN A 192.0.2.26", "WwW.eDGe.example.net. 20 IN A 192.0.2.58"}, ""},
		{"www.edge.example.net", dns.TypeHTTPS, "4.4.4.0/24", 0, []string{`www.edge.example.net. 20 IN HTTPS 1 . alpn="h3,h2" ipv4hint="192.0.2.26,192.0.2.58" ipv6hint="2001:db8::1b,2001:db8::3b"`}, ""},
		{"x.apps.edge.example.net", dns.TypeA, "4.4.4.0/24", 0, []string{"x.apps.edge.example.net. 20 IN A 192.0.2.26", "x.apps.edge.example.net. 20 IN A 192.0.2.58"}, ""},
		{"customer.example", dns.TypeA, "4.4.4.0/24", 0, []string{"customer.example. 20 IN A 192.0.2.26", "customer.example. 20 IN A 192.0.2.58"}, ""},
		{"www.customer.example", dns.TypeA, "4.4.4.0/24", 0, []string{"www.customer.example. 300 IN CNAME www.edge.example.net.", "www.edge.example.net. 20 IN A 192.0.2.26", "www.edge.example.net. 20 IN A 192.0.2.58"}, ""},
		{"shop.edge.example.net", dns.TypeCNAME, "", 0, []string{"shop.edge.example.net. 300 IN CNAME www.edge.example.net."}, ""},
		{"out.edge.example.net", dns.TypeA, "", 0, []string{"out.edge.example.net. 300 IN CNAME www.example.com."}, ""},
		{"edge.example.net", dns.TypeNS, "", 0, []string{"edge.example.net. 3600 IN NS ns1.edge.example.net.", "edge.example.net. 3600 IN NS ns2.example.org."}, ""},
		{"edge.example.net", dns.TypeCAA, "", 0, []string{`edge.example.net. 600 IN CAA 0 issue "letsencrypt.org"`}, ""},
		{"edge.example.net", dns.TypeTXT, "", 0, []string{`edge.example.net. 300 IN TXT "v=spf1 -all"`}, ""},
		{"_acme-challenge.www.edge.example.net", dns.TypeTXT, "", 0, []string{`_acme-challenge.www.edge.example.net. 60 IN TXT "token"`}, ""},
		{"a.wild.edge.example.net", dns.TypeTXT, "", 0, []string{`a.wild.edge.example.net. 300 IN TXT "any"`}, ""},
		{"www.edge.example.net", dns.TypeANY, "", 0, []string{`www.edge.example.net. 3600 IN HINFO "RFC8482" ""`}, ""},
		{"ns1.edge.example.net", dns.TypeA, "", 0, []string{"ns1.edge.example.net. 3600 IN A 192.0.2.53"}, ""},
		{"www.edge.example.net", dns.TypeMX, "", 0, nil, soa},
		{"down.edge.example.net", dns.TypeA, "", 0, nil, soa}, // there is a name below it
		{"apps.edge.example.net", dns.TypeA, "", 0, nil, soa}, // and here
		{"nowhere.edge.example.net", dns.TypeA, "", dns.RcodeNameError, nil, soa},
		{"example.net", dns.TypeA, "", dns.RcodeRefused, nil, ""},
		{"www.google.com", dns.TypeA, "", dns.RcodeRefused, nil, ""},
		{"edge.example.net", dns.TypeAXFR, "", dns.RcodeRefused, nil, ""},
	} {
		t.Run(fmt.Sprintf("%s %s", c.name, dns.TypeToString[c.kind]), func(t *testing.T) {
			for _, network := range []string{"udp", "tcp"} {
				m := ask(t, s, network, question(c.name, c.kind, c.subnet))
				if m.Rcode != c.rcode || m.Authoritative != (c.rcode != dns.RcodeRefused) {
					t.Errorf("%s: %s, authoritative %t", network, dns.RcodeToString[m.Rcode], m.Authoritative)
				}
				if got := lines(m.Answer); !slices.Equal(got, c.want) {
					t.Errorf("%s:\ngot  %q\nwant %q", network, got, c.want)
				}
				if got := strings.Join(lines(m.Ns), ""); !strings.HasPrefix(got, c.ns) || (got == "") != (c.ns == "") {
					t.Errorf("%s: authority %q, want %q", network, got, c.ns)
				}
			}
		})
	}
	m := ask(t, s, "udp", question("edge.example.net", dns.TypeSOA, ""))
	if len(m.Answer) != 1 || m.Answer[0].(*dns.SOA).Serial == 0 {
		t.Errorf("SOA %v", m.Answer)
	}
	if m := ask(t, s, "udp", question("loop.edge.example.net", dns.TypeA, "")); len(m.Answer) > maxChase {
		t.Errorf("a loop of aliases: %d records", len(m.Answer))
	}
}

// The client's subnet decides, if it says anything, and the answer says how much of it counts.
func TestClientSubnet(t *testing.T) {
	s := start(t, Config{Answers: 1})
	for _, c := range []struct {
		subnet, want string
		scope        int
	}{
		{"", "192.0.2.21", -1},                 // the resolver: fra
		{"0.0.0.0/0", "192.0.2.21", 0},         // it says nothing
		{"4.4.4.4/32", "192.0.2.26", 24},       // iad
		{"4.4.0.0/16", "192.0.2.26", 16},       // as much as was said
		{"2a02:100::1/128", "192.0.2.52", 56},  // sin
		{"2a02:100::/40", "192.0.2.52", 40},    // sin
		{"81.2.69.142/32", "198.51.100.7", 24}, // lhr's second node, by the client's network
	} {
		m := ask(t, s, "udp", question("www.edge.example.net", dns.TypeA, c.subnet))
		if len(m.Answer) != 1 {
			t.Errorf("%q: %v", c.subnet, m)
			continue
		}
		got := m.Answer[0].(*dns.A).A.String()
		if c.subnet == "81.2.69.142/32" {
			if !slices.Contains([]string{"198.51.100.7", "192.0.2.33"}, got) {
				t.Errorf("%q: %s is no node of lhr", c.subnet, got)
			}
		} else if got != c.want {
			t.Errorf("%q: got %s, want %s", c.subnet, got, c.want)
		}
		scope := -1
		if o := m.IsEdns0(); o != nil {
			for _, e := range o.Option {
				scope = int(e.(*dns.EDNS0_SUBNET).SourceScope)
			}
		}
		if scope != c.scope {
			t.Errorf("%q: scope %d, want %d", c.subnet, scope, c.scope)
		}
	}
	// What does not depend on the place is good for all.
	m := ask(t, s, "udp", question("edge.example.net", dns.TypeTXT, "4.4.4.0/24"))
	if e := m.IsEdns0().Option[0].(*dns.EDNS0_SUBNET); e.SourceScope != 0 || e.SourceNetmask != 24 {
		t.Errorf("TXT: %v", e)
	}
}

func TestMalformedOptions(t *testing.T) {
	s := start(t, Config{})
	subnet := func(e dns.EDNS0_SUBNET) *dns.Msg {
		q := question("www.edge.example.net", dns.TypeA, "")
		q.SetEdns0(1232, false)
		e.Code = dns.EDNS0SUBNET
		q.IsEdns0().Option = []dns.EDNS0{&e}
		return q
	}
	twice := question("www.edge.example.net", dns.TypeA, "")
	twice.Extra = []dns.RR{&dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}, &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}}
	version := question("www.edge.example.net", dns.TypeA, "")
	version.SetEdns0(1232, false)
	version.IsEdns0().SetVersion(1)
	update := question("edge.example.net", dns.TypeSOA, "")
	update.Opcode = dns.OpcodeUpdate
	chaos := question("version.bind", dns.TypeTXT, "")
	chaos.Question[0].Qclass = dns.ClassCHAOS
	for name, c := range map[string]struct {
		q     *dns.Msg
		rcode int
	}{
		"a scope in a query": {subnet(dns.EDNS0_SUBNET{Family: 1, SourceNetmask: 24, SourceScope: 24, Address: net.IPv4(4, 4, 4, 0).To4()}), dns.RcodeFormatError},
		"two OPT records":    {twice, dns.RcodeFormatError},
		"EDNS version 1":     {version, dns.RcodeBadVers},
		"an update":          {update, dns.RcodeNotImplemented},
		"class CHAOS":        {chaos, dns.RcodeRefused},
	} {
		if m := ask(t, s, "udp", c.q); m.Rcode != c.rcode || len(m.Answer) > 0 {
			t.Errorf("%s: %s, %v", name, dns.RcodeToString[m.Rcode], m.Answer)
		}
	}
}

// What does not fit is cut, and comes whole over TCP.
func TestTruncation(t *testing.T) {
	s := start(t, Config{})
	for _, size := range []uint16{0, 512, 1232, 4096} {
		q := question("big.edge.example.net", dns.TypeTXT, "")
		if size > 0 {
			q.SetEdns0(size, false)
		}
		m := ask(t, s, "udp", q)
		m.Compress = true
		if !m.Truncated || len(m.Answer) > 0 || m.Len() > int(max(512, min(size, maxUDP))) {
			t.Errorf("%d: truncated %t, %d records, %d bytes", size, m.Truncated, len(m.Answer), m.Len())
		}
		if m := ask(t, s, "tcp", q); m.Truncated || len(m.Answer) != 1 {
			t.Errorf("%d over TCP: truncated %t, %d records", size, m.Truncated, len(m.Answer))
		}
	}
}

// When PoPs die or drain the very next answer says so.
func TestFleetChanges(t *testing.T) {
	s := start(t, Config{Answers: 1})
	first := func() string {
		m := ask(t, s, "udp", question("www.edge.example.net", dns.TypeA, "4.4.4.0/24"))
		if len(m.Answer) != 1 {
			return fmt.Sprint(m)
		}
		return m.Answer[0].(*dns.A).A.String()
	}
	change := func(state State, names ...string) {
		pops := fleetOf()
		for i := range pops {
			if slices.Contains(names, pops[i].Name) || len(names) == 0 {
				pops[i].State = state
			}
		}
		if err := s.SetPoPs(pops); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		state State
		names []string
		want  string
	}{{Serving, nil, "192.0.2.26"}, {Dead, []string{"iad"}, "192.0.2.58"}, {Draining, []string{"iad", "yyz"}, "192.0.2.8"}, {Dead, nil, "192.0.2.26"}} {
		change(c.state, c.names...)
		if got := first(); got != c.want {
			t.Errorf("%v %s: %s, want %s", c.names, c.state, got, c.want)
		}
	}
	if err := s.SetPoPs(nil); err != nil {
		t.Fatal(err)
	}
	if m := ask(t, s, "udp", question("www.edge.example.net", dns.TypeA, "")); len(m.Answer) != 0 || m.Rcode != 0 || len(m.Ns) != 1 {
		t.Errorf("without PoPs: %v", m)
	}
}

// Over the rate a network gets nothing, or is sent to TCP, which is not limited.
func TestRateLimit(t *testing.T) {
	s := start(t, Config{Rate: 1})
	c, err := net.Dial("udp", s.Address().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	text, err := question("www.edge.example.net", dns.TypeA, "").Pack()
	if err != nil {
		t.Fatal(err)
	}
	const sent = 200
	for range sent {
		if _, err := c.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	for {
		m := ask(t, s, "tcp", question("www.edge.example.net", dns.TypeA, ""))
		if len(m.Answer) == 0 || m.Truncated {
			t.Fatal("TCP is limited, too")
		}
		if st := s.Stats(); st.Queries-st.TCP >= sent {
			break
		}
		time.Sleep(time.Millisecond)
	}
	full, slipped, buf := 0, 0, make([]byte, 4096)
	for {
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := c.Read(buf)
		if err != nil {
			break
		}
		var m dns.Msg
		if err := m.Unpack(buf[:n]); err != nil {
			t.Fatal(err)
		}
		if m.Truncated {
			slipped++
		} else {
			full++
		}
	}
	st := s.Stats()
	t.Logf("of %d: %d answered, %d slipped; %+v", sent, full, slipped, st)
	if full == 0 || slipped == 0 || full+slipped >= sent || uint64(slipped) > st.Limited {
		t.Errorf("%d answered, %d slipped, %d limited", full, slipped, st.Limited)
	}
}

// A network gets a second's worth at once, then the rate; every other answer
// beyond it sends to TCP.
func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(10)
		count := func(s stream, n int) (got [3]int) {
			for range n {
				got[l.allow(s)]++
			}
			return got
		}
		one := stream{network: netip.MustParsePrefix("192.0.2.0/24"), found: true}
		if got := count(one, 30); got != [3]int{send: 10, slip: 10, drop: 10} {
			t.Errorf("at once: %v", got)
		}
		time.Sleep(500 * time.Millisecond)
		if got := count(one, 10); got[send] != 5 {
			t.Errorf("after half a second: %v", got)
		}
		for _, other := range []stream{{network: netip.MustParsePrefix("192.0.3.0/24"), found: true}, {network: one.network, rcode: dns.RcodeNameError}} {
			if got := count(other, 10); got[send] != 10 {
				t.Errorf("%v: %v", other, got)
			}
		}
		if got := (&limiter{}).allow(one); got != send {
			t.Error("without a rate there is a limit")
		}
	})
}

// Connections beyond the bound are closed; those within it are served on.
func TestTCPBound(t *testing.T) {
	s := start(t, Config{TCP: 2})
	var held []*dns.Conn
	for range 2 {
		c, err := dns.Dial("tcp", s.Address().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
		exchange(t, c)
	}
	c, err := dns.Dial("tcp", s.Address().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Conn.Read(make([]byte, 1)); err == nil || n > 0 || os.IsTimeout(err) {
		t.Errorf("a third connection: %d, %v", n, err)
	}
	exchange(t, held[0])
}

func exchange(t *testing.T, c *dns.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if err := c.WriteMsg(question("www.edge.example.net", dns.TypeA, "")); err != nil {
		t.Fatal(err)
	}
	if m, err := c.ReadMsg(); err != nil || len(m.Answer) == 0 {
		t.Fatal(m, err)
	}
}

// Answers come from one table or the other while the fleet changes.
func TestSwapWhileServing(t *testing.T) {
	s := start(t, Config{Sockets: 2})
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		r := rand.New(rand.NewPCG(1, 1))
		for {
			select {
			case <-stop:
				return
			default:
			}
			pops := fleetOf()
			pops[r.IntN(len(pops))].State = Dead
			if err := s.SetPoPs(pops); err != nil {
				t.Error(err)
			}
		}
	})
	for range 300 {
		if m := ask(t, s, "udp", question("www.edge.example.net", dns.TypeA, "4.4.4.0/24")); len(m.Answer) != 2 {
			t.Errorf("%v", m)
		}
	}
	close(stop)
	wait.Wait()
}

func TestZoneFaults(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(z *Zone)
		want  string
	}{
		"no name":        {func(z *Zone) { z.Name = "" }, "not a domain name"},
		"no servers":     {func(z *Zone) { z.Servers = nil }, "no name servers"},
		"no glue":        {func(z *Zone) { z.Servers = []string{"ns.example.com"} }, "addresses are wanted"},
		"foreign glue":   {func(z *Zone) { z.Servers = []string{"ns.example.org 192.0.2.1"} }, "addresses are wanted"},
		"bad glue":       {func(z *Zone) { z.Servers = []string{"ns.example.com 192.0.2"} }, "not an IP address"},
		"contact":        {func(z *Zone) { z.Contact = "ops" }, "mail address"},
		"foreign host":   {func(z *Zone) { z.Hosts = []string{"www.example.org."} }, "not a name within the zone"},
		"foreign record": {func(z *Zone) { z.Records = []string{"a.example.org. A 192.0.2.1"} }, "not within the zone"},
		"not a record":   {func(z *Zone) { z.Records = []string{"www A nonsense"} }, "www A nonsense"},
		"two records":    {func(z *Zone) { z.Records = []string{"a A 192.0.2.1\nb A 192.0.2.2"} }, "more than one"},
		"an include":     {func(z *Zone) { z.Records = []string{"$INCLUDE /etc/passwd"} }, "$INCLUDE"},
		"a generator":    {func(z *Zone) { z.Records = []string{"$GENERATE 1-60000 a$ A 192.0.2.1"} }, "more than one"},
		"a delegation":   {func(z *Zone) { z.Records = []string{"sub NS ns.example.org."} }, "cannot be given here"},
		"own SOA":        {func(z *Zone) { z.Records = []string{"@ SOA a. b. 1 2 3 4 5"} }, "cannot be given here"},
		"apex alias":     {func(z *Zone) { z.Records = []string{"@ CNAME www.example.org."} }, "stands alone"},
		"two aliases":    {func(z *Zone) { z.Records = []string{"a CNAME b", "a CNAME c"} }, "stands alone"},
		"host and alias": {func(z *Zone) { z.Hosts, z.Records = []string{"a"}, []string{"a CNAME b"} }, "stands alone"},
		"host with own":  {func(z *Zone) { z.Hosts, z.Records = []string{"a"}, []string{"a A 192.0.2.1"} }, "A record of its own"},
	} {
		z := Zone{Name: "example.com", Servers: []string{"ns1.example.com 192.0.2.1"}}
		if err := Check([]Zone{z}); err != nil {
			t.Fatal(err)
		}
		c.spoil(&z)
		if err := Check([]Zone{z}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	z := Zone{Name: "example.com", Servers: []string{"ns1.example.com 192.0.2.1"}}
	if err := Check([]Zone{z, z}); err == nil {
		t.Error("a zone twice was taken")
	}
	if err := Check(nil); err == nil {
		t.Error("no zones were taken")
	}
}

func TestExplain(t *testing.T) {
	s := start(t, Config{})
	pops := fleetOf()
	for i := range pops {
		if pops[i].Name == "lhr" {
			pops[i].State = Dead
		}
	}
	if err := s.SetPoPs(pops); err != nil {
		t.Fatal(err)
	}
	e, err := s.Explain(netip.MustParseAddr("81.2.69.142"), "www.edge.example.net")
	if err != nil {
		t.Fatal(err)
	}
	m := ask(t, s, "tcp", question("www.edge.example.net", dns.TypeA, "81.2.69.0/24"))
	if want := lines(m.Answer); !slices.Equal(e.Answers[:len(want)], want) {
		t.Errorf("explained %q, answered %q", e.Answers, want)
	}
	if len(e.PoPs) != MaxChoices || e.PoPs[0].PoP != "bru" || e.PoPs[0].Why != "chosen" || e.PoPs[1].PoP != "ams" || e.PoPs[1].Why != "next" {
		t.Errorf("%+v", e.PoPs)
	}
	for _, c := range [][2]string{{"81.2.69.142", "www.google.com"}, {"81.2.69.142", "a..b"}} {
		if _, err := s.Explain(netip.MustParseAddr(c[0]), c[1]); err == nil {
			t.Errorf("%v: explained", c)
		}
	}
}

// tool finds a program of Debian's bind9-dnsutils or dnsperf.
func tool(t *testing.T, name string) string {
	return tooltest.Path(t, name, "bind9-dnsutils dnsperf")
}

// What the world's own tool makes of the answers.
func TestDig(t *testing.T) {
	dig, s := tool(t, "dig"), start(t, Config{})
	server := []string{"@" + s.Address().Addr().String(), "-p", fmt.Sprint(s.Address().Port()), "+tries=2", "+time=5"}
	for _, c := range []struct {
		args string
		want []string
	}{
		{"+norec www.edge.example.net A +subnet=4.4.4.0/24", []string{"status: NOERROR", "flags: qr aa;", "192.0.2.26", "CLIENT-SUBNET: 4.4.4.0/24/24", "udp: 1232"}},
		{"www.edge.example.net A", []string{"recursion requested but not available", "192.0.2.21"}},
		{"+noedns www.edge.example.net AAAA", []string{"status: NOERROR", "2001:db8::16"}},
		{"www.edge.example.net HTTPS", []string{`1 . alpn="h3,h2" ipv4hint=192.0.2.21,`}},
		{"big.edge.example.net TXT +ignore", []string{"flags: qr aa tc"}},
		{"big.edge.example.net TXT", []string{"(TCP)", strings.Repeat("x", 200)}},
		{"+notcp edge.example.net ANY", []string{"RFC8482"}},
		{"+tcp edge.example.net AXFR", []string{"Transfer failed"}},
		{"nowhere.edge.example.net A", []string{"status: NXDOMAIN", "SOA"}},
		{"www.google.com A", []string{"status: REFUSED"}},
		{"-c CH version.bind TXT", []string{"status: REFUSED"}},
		{"+ednsopt=8:000118 www.edge.example.net A", []string{"status: FORMERR"}},
	} {
		out, err := exec.Command(dig, append(slices.Clone(server), strings.Fields(c.args)...)...).CombinedOutput()
		if err != nil {
			t.Errorf("dig %s: %v\n%s", c.args, err, out)
		}
		for _, w := range c.want {
			if !strings.Contains(string(out), w) {
				t.Errorf("dig %s: %q is not in\n%s", c.args, w, out)
			}
		}
	}
}

// Under load every query is answered.
func TestDNSPerf(t *testing.T) {
	perf, s := tool(t, "dnsperf"), start(t, Config{Sockets: 2})
	data := filepath.Join(t.TempDir(), "queries")
	if err := os.WriteFile(data, []byte("www.edge.example.net A\nx.apps.edge.example.net AAAA\ncustomer.example HTTPS\nedge.example.net NS\nnowhere.edge.example.net A\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"udp", "tcp"} {
		out, err := exec.Command(perf, "-m", mode, "-s", s.Address().Addr().String(), "-p", fmt.Sprint(s.Address().Port()), "-d", data, "-n", "400", "-c", "4", "-q", "20", "-t", "10").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, want := range []string{"Queries completed:    2000 (100.00%)", "NOERROR 1600 (80.00%), NXDOMAIN 400 (20.00%)"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: %q is not in\n%s", mode, want, out)
			}
		}
	}
}

// FuzzRespond takes whatever bytes a packet has through all that a packet goes through.
func FuzzRespond(f *testing.F) {
	for _, q := range []*dns.Msg{question("www.edge.example.net", dns.TypeA, "4.4.4.0/24"), question("x.apps.edge.example.net", dns.TypeHTTPS, "2a02:100::/56"),
		question("big.edge.example.net", dns.TypeTXT, ""), question("a.wild.edge.example.net", dns.TypeANY, ""), question("loop.edge.example.net", dns.TypeA, "")} {
		text, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	s, err := New(Config{Zones: testZones, Where: where})
	if err != nil {
		f.Fatal(err)
	}
	if err := s.SetPoPs(fleetOf()); err != nil {
		f.Fatal(err)
	}
	from := netip.MustParseAddr("4.4.4.4")
	f.Fuzz(func(t *testing.T, text []byte) {
		q := new(dns.Msg)
		if len(text) < 12 || q.Unpack(text) != nil {
			return
		}
		head := dns.Header{Id: q.Id, Bits: uint16(text[2])<<8 | uint16(text[3]), Qdcount: uint16(text[4])<<8 | uint16(text[5]),
			Ancount: uint16(text[6])<<8 | uint16(text[7]), Nscount: uint16(text[8])<<8 | uint16(text[9]), Arcount: uint16(text[10])<<8 | uint16(text[11])}
		if accept(head) != dns.MsgAccept || len(q.Question) != 1 {
			return
		}
		for _, udp := range []bool{true, false} {
			m := s.answers.respond(s.now.Load(), q, from, udp)
			out, err := m.Pack()
			if err != nil {
				t.Fatalf("%v\nof %v", err, q)
			}
			if udp && len(out) > maxUDP {
				t.Fatalf("%d bytes over UDP for %d", len(out), len(text))
			}
			var back dns.Msg
			if err := back.Unpack(out); err != nil || back.Id != q.Id || !back.Response || back.RecursionAvailable {
				t.Fatalf("%v: %v", err, &back)
			}
		}
	})
}

func BenchmarkRespond(b *testing.B) {
	for _, n := range []int{5, 50, 500} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, err := New(Config{Zones: testZones, Where: where})
			if err != nil {
				b.Fatal(err)
			}
			if err := s.SetPoPs(many(n)); err != nil {
				b.Fatal(err)
			}
			q := question("www.edge.example.net", dns.TypeA, "4.4.4.0/24")
			from := netip.MustParseAddr("127.0.0.1")
			b.ReportAllocs()
			for b.Loop() {
				s.answers.respond(s.now.Load(), q, from, true)
			}
		})
	}
}
