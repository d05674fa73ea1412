package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/miekg/dns"

	"github.com/selvage-edge/selvage/control/geodns"
	"github.com/selvage-edge/selvage/edge/geo"
)

// The geo rows: DNS answers a second over a bare handler's on the same server,
// what an answer allocates with 500 PoPs over with 5, a warm place lookup, and what handing on to
// another PoP adds to a request.
const (
	geoName    = "www.edge.example.net."
	geoPlaces  = 1 << 15 // networks in the database
	geoClients = 16      // sockets that ask, one question at a time each
)

func geoRows(ctx context.Context, s size, only string) ([]row, error) {
	dir, err := os.MkdirTemp("", "selvage-geo")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	places, err := placesIn(filepath.Join(dir, "places.mmdb"))
	if err != nil {
		return nil, err
	}
	var rows []row
	if wanted(only, "geo/lookup") {
		rows = append(rows, lookupRow(places, s))
	}
	if wanted(only, "geo/dns-allocs-500") {
		r, err := allocsRow(places)
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
	if wanted(only, "geo/forward") {
		r, err := forwardRow(ctx, dir, s)
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
	if wanted(only, "geo/dns-rps") {
		r, err := dnsRow(ctx, places, s)
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// placesIn writes a database of networks and opens it.
func placesIn(path string) (*geo.DB, error) {
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "bench-City", IncludeReservedNetworks: true})
	if err != nil {
		return nil, err
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range geoPlaces {
		network := &net.IPNet{IP: net.IPv4(byte(64+i>>11), byte(i>>3), byte(i<<5), 0).To4(), Mask: net.CIDRMask(19, 32)}
		record := mmdbtype.Map{
			"country":  mmdbtype.Map{"iso_code": mmdbtype.String([]string{"GB", "DE", "US", "JP"}[i%4])},
			"city":     mmdbtype.Map{"names": mmdbtype.Map{"en": mmdbtype.String(fmt.Sprintf("City %d", i%4096))}},
			"location": mmdbtype.Map{"latitude": mmdbtype.Float64(r.Float64()*180 - 90), "longitude": mmdbtype.Float64(r.Float64()*360 - 180)},
		}
		if err := tree.Insert(network, record); err != nil {
			return nil, err
		}
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	_, err = tree.WriteTo(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	return geo.Open(geo.Config{Files: []string{path}})
}

// lookupRow looks up addresses of 1,024 networks, again and again.
func lookupRow(places *geo.DB, s size) row {
	const networks, each = 1024, 200_000
	var all [networks]netip.Addr
	r := rand.New(rand.NewPCG(3, 4))
	for i := range all {
		all[i] = netip.AddrFrom4([4]byte{byte(64 + r.IntN(16)), byte(r.Uint32()), byte(r.Uint32()), 1})
		places.Lookup(all[i])
	}
	var us []float64
	for range s.rounds {
		begin := time.Now()
		for i := range each {
			places.Lookup(all[i%networks])
		}
		us = append(us, float64(time.Since(begin).Nanoseconds())/each/1000)
	}
	return row{Name: "geo/lookup", Unit: "us", Value: median(us), N: each * s.rounds}.atMost(median(us), 1, " us")
}

// geoServer answers for n PoPs all over the globe.
func geoServer(places *geo.DB, n int) (*geodns.Server, error) {
	s, err := geodns.New(geodns.Config{Where: places, Rate: 100_000_000, // counted, never met
		Zones: []geodns.Zone{{Name: "edge.example.net", Servers: []string{"ns1.edge.example.net 192.0.2.53"}, Hosts: []string{"www"}}}})
	if err != nil {
		return nil, err
	}
	var pops []geodns.PoP
	r := rand.New(rand.NewPCG(5, 6))
	for i := range n {
		pops = append(pops, geodns.PoP{Name: fmt.Sprintf("pop-%d", i), Located: true, Latitude: r.Float64()*140 - 60, Longitude: r.Float64()*360 - 180, Weight: 1,
			Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), 443)}})
	}
	return s, s.SetPoPs(pops)
}

// geoQuery asks with the subnet of a client.
func geoQuery(client byte) *dns.Msg {
	q := new(dns.Msg).SetQuestion(geoName, dns.TypeA)
	q.SetEdns0(1232, false)
	q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(70, client, 3, 0).To4()}}
	return q
}

// sink takes answers as a socket would.
type sink struct {
	dns.ResponseWriter
	answers int
}

var sinkPeer = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53}

func (*sink) RemoteAddr() net.Addr { return sinkPeer }

func (s *sink) WriteMsg(m *dns.Msg) error {
	s.answers += len(m.Answer)
	return nil
}

func allocsRow(places *geo.DB) (row, error) {
	const runs = 2000
	var allocs [2]float64
	for i, n := range []int{5, 500} {
		s, err := geoServer(places, n)
		if err != nil {
			return row{}, err
		}
		w, q := &sink{}, geoQuery(7)
		allocs[i] = testing.AllocsPerRun(runs, func() { s.ServeDNS(w, q) })
		if w.answers < 2*runs {
			return row{}, fmt.Errorf("%d PoPs: %d addresses in %d answers", n, w.answers, runs)
		}
	}
	ratio := allocs[1] / allocs[0]
	return row{Name: "geo/dns-allocs-500", Value: allocs[1], Unit: "allocs", Against: fmt.Sprintf("5 PoPs %.0f", allocs[0]), Ratio: ratio, N: runs}.atMost(ratio, 1, "x"), nil
}

// dnsRow drives both servers in turn, with the same questions.
func dnsRow(ctx context.Context, places *geo.DB, s size) (row, error) {
	ours, err := geoServer(places, 60)
	if err != nil {
		return row{}, err
	}
	if err := ours.Listen("127.0.0.1:0"); err != nil {
		return row{}, err
	}
	defer ours.Close()
	bare, stop, err := bareDNS()
	if err != nil {
		return row{}, err
	}
	defer stop()
	var rps [2][]float64
	total := 0
	for range s.rounds {
		for i, addr := range []string{ours.Address().String(), bare} {
			n, err := askFor(ctx, addr, s.load)
			if err != nil {
				return row{}, err
			}
			total += n
			rps[i] = append(rps[i], float64(n)/s.load.Seconds())
		}
	}
	a, b := median(rps[0]), median(rps[1])
	return row{Name: "geo/dns-rps", Value: a, Unit: "q/s", Against: fmt.Sprintf("bare miekg/dns %.0f", b), Ratio: a / b, N: total, goal: ">= 0.8x", met: a/b >= 0.8}, nil
}

// bareDNS answers every question with the same two addresses.
func bareDNS() (addr string, stop func(), err error) {
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for _, a := range []net.IP{net.IPv4(192, 0, 2, 1).To4(), net.IPv4(192, 0, 2, 2).To4()} {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 20}, A: a})
		}
		_ = w.WriteMsg(m)
	})
	began := make(chan struct{})
	s := &dns.Server{PacketConn: p, Handler: handler, UDPSize: 1232, NotifyStartedFunc: func() { close(began) }}
	go func() { _ = s.ActivateAndServe() }() // until Shutdown
	<-began
	return p.LocalAddr().String(), func() { _ = s.Shutdown() }, nil
}

// askFor asks as fast as answers come, from some sockets, and counts them.
func askFor(ctx context.Context, addr string, d time.Duration) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var total atomic.Int64
	var wait sync.WaitGroup
	errs := make([]error, geoClients)
	for i := range geoClients {
		wait.Go(func() { errs[i] = askOn(ctx, addr, byte(i), &total) })
	}
	wait.Wait()
	return int(total.Load()), errors.Join(errs...)
}

func askOn(ctx context.Context, addr string, client byte, total *atomic.Int64) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	q, err := geoQuery(client).Pack()
	if err != nil {
		return err
	}
	buf := make([]byte, 1232)
	for ctx.Err() == nil {
		if _, err := c.Write(q); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := c.Read(buf)
		if err != nil {
			return fmt.Errorf("%s does not answer: %w", addr, err)
		}
		if n < 12 || buf[3]&0xf != 0 || buf[7] != 2 {
			return fmt.Errorf("%s: not an answer with two addresses", addr)
		}
		total.Add(1)
	}
	return nil
}
