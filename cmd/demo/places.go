package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/miekg/dns"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/up"
)

// client is somebody somewhere, in the place data that the demo writes: of the networks that
// RFC 5737 keeps for documentation.
type client struct {
	city                string
	addr                netip.Addr
	latitude, longitude float64
}

// clients stand nearest to the PoPs in their order.
var clients = []client{
	{"Paris", netip.MustParseAddr("192.0.2.10"), 48.86, 2.35},
	{"Boston", netip.MustParseAddr("198.51.100.10"), 42.36, -71.06},
	{"Jakarta", netip.MustParseAddr("203.0.113.10"), -6.21, 106.85},
}

const dnsPort = "5353"

// nameServers has every PoP answer DNS, with place data for the clients.
func (d *demo) nameServers(dir string) error {
	places := filepath.Join(dir, "places.mmdb")
	if err := writePlaces(places); err != nil {
		return err
	}
	for i := range d.fleet.Layout.Edges {
		n := &d.fleet.Layout.Edges[i]
		n.More = fmt.Sprintf("[geo]\ndatabases = [%q]\n[dns]\nlisten = %q\nanswers = 1\nzones = [{ name = %q, servers = [\"ns1.%[3]s %[4]s\"], hosts = [\"*\"] }]\n",
			places, net.JoinHostPort(n.Addr.String(), dnsPort), up.Domain, n.Addr)
	}
	return nil
}

func writePlaces(path string) error {
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "demo-City", IncludeReservedNetworks: true})
	if err != nil {
		return err
	}
	for _, c := range clients {
		place := mmdbtype.Map{
			"city":     mmdbtype.Map{"names": mmdbtype.Map{"en": mmdbtype.String(c.city)}},
			"location": mmdbtype.Map{"latitude": mmdbtype.Float64(c.latitude), "longitude": mmdbtype.Float64(c.longitude)},
		}
		if err := tree.Insert(&net.IPNet{IP: c.addr.AsSlice(), Mask: net.CIDRMask(24, 32)}, place); err != nil {
			return err
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = tree.WriteTo(f)
	return errors.Join(err, f.Close())
}

// geo asks the name servers, over UDP, where three clients should go, and sends them there; kills
// the first PoP, keeper and server, and waits until its clients are sent to the next; then it comes back.
func (d *demo) geo(ctx context.Context) error {
	edges := d.fleet.Layout.Edges
	lon, nyc := edges[0], edges[1]
	d.checks.add("three clients, three PoPs", d.sentTo(ctx, nyc, edges...), "%s; over UDP with EDNS Client Subnet, and each is answered there", who(edges...))

	start := time.Now()
	if err := syscall.Kill(d.fleet.Edges[lon.Name].PID(), syscall.SIGKILL); err != nil {
		return err
	}
	moved := d.sentTo(ctx, edges[2], nyc, nyc, edges[2])
	d.checks.add("lon killed: its clients move", moved, "%s is sent to %s %.1f s after the kill, the others where they were", clients[0].city, nyc.PoP, time.Since(start).Seconds())

	<-d.fleet.Edges[lon.Name].Done()
	if err := d.fleet.StartEdge(ctx, lon); err != nil {
		return err
	}
	if err := d.fleet.Edges[lon.Name].Ready(ctx, "/readyz"); err != nil {
		return err
	}
	d.checks.add("lon is back: so are its clients", d.sentTo(ctx, nyc, edges...), "%s", who(edges...))
	return ctx.Err()
}

func who(nodes ...up.Node) string {
	var list []string
	for i, n := range nodes {
		list = append(list, clients[i].city+" to "+n.PoP)
	}
	return strings.Join(list, ", ")
}

// sentTo waits until the name server of at sends each client to the node at its place in
// want, and asks for hello there.
func (d *demo) sentTo(ctx context.Context, at up.Node, want ...up.Node) error {
	for i, c := range clients {
		err := until(ctx, 60*time.Second, func() error {
			addr, err := resolve(ctx, at, "hello."+up.Domain, c.addr)
			if err == nil && addr != want[i].Addr {
				err = fmt.Errorf("%s is sent to %s, not %s (%s)", c.city, addr, want[i].Addr, want[i].PoP)
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := d.ask(ctx, want[i], request.HTTP2, "hello", get("/", "hello")); err != nil {
			return fmt.Errorf("%s: %w", c.city, err)
		}
	}
	return nil
}

// resolve asks the name server of n for the host's address, as a resolver does for a client.
func resolve(ctx context.Context, n up.Node, host string, client netip.Addr) (netip.Addr, error) {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(host), dns.TypeA)
	q.SetEdns0(1232, false)
	subnet := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: netip.PrefixFrom(client, 24).Masked().Addr().AsSlice()}
	q.IsEdns0().Option = append(q.IsEdns0().Option, subnet)
	asking, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answer, _, err := new(dns.Client).ExchangeContext(asking, q, net.JoinHostPort(n.Addr.String(), dnsPort))
	if err != nil {
		return netip.Addr{}, err
	}
	for _, rr := range answer.Answer {
		if a, ok := rr.(*dns.A); ok {
			addr, _ := netip.AddrFromSlice(a.A.To4())
			return addr, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address in the answer of %s (%s)", n.PoP, dns.RcodeToString[answer.Rcode])
}
