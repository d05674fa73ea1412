package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/up"
)

// partition boots a fleet on a network of its own, cuts a PoP off, writes meanwhile, and
// heals the cut. Networks are root's to make: for others it is skipped, and said so.
func (d *demo) partition(ctx context.Context) error {
	const name = "a PoP cut off, and back"
	layout, err := up.Plan(up.Options{Dir: filepath.Join(d.work, "partition"), PoPs: 3, Base: netip.MustParseAddr("127.0.0.100"), Port: 8443})
	if err != nil {
		return err
	}
	network, err := up.OpenNetwork(ctx, &layout)
	if errors.Is(err, up.ErrNoNetwork) {
		d.checks.add(name, nil, "SKIPPED: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	c := &cutDemo{demo: demo{fleet: up.Fleet{Layout: layout, Selvage: d.fleet.Selvage}}, network: network}
	err = c.run(ctx, d)
	c.fleet.Stop()
	return errors.Join(err, network.Close())
}

// cutDemo is the fleet whose last PoP is cut off.
type cutDemo struct {
	demo
	network *up.Network
}

func (c *cutDemo) run(ctx context.Context, d *demo) error {
	if err := c.fleet.Boot(ctx, func(string, ...any) {}); err != nil {
		return err
	}
	if _, err := c.deploy(ctx, "sdk/examples/redirects"); err != nil {
		return err
	}
	off, others := c.fleet.Layout.Edges[2], c.fleet.Layout.Edges[:2]
	if err := errors.Join(c.put(ctx, firstLink), c.link(ctx, firstLink, c.fleet.Layout.Edges...)); err != nil {
		return err
	}
	if err := c.network.Cut(ctx, off); err != nil {
		return err
	}
	start := time.Now()
	err := errors.Join(c.put(ctx, secondLink), c.link(ctx, secondLink, others...))
	d.checks.add("a PoP cut off: writes go on", err, "seen in %s and %s %d ms after the cut", others[0].PoP, others[1].PoP, time.Since(start).Milliseconds())
	d.checks.add("a PoP cut off: it serves on", c.link(ctx, firstLink, off), "%s reads what it had", off.PoP)
	if err := c.network.Heal(ctx, off); err != nil {
		return err
	}
	start = time.Now()
	err = c.link(ctx, secondLink, off)
	d.checks.add("healed: all PoPs agree", err, "%s had the write %d ms after", off.PoP, time.Since(start).Milliseconds())
	return ctx.Err()
}

func (c *cutDemo) put(ctx context.Context, link string) error {
	_, err := c.fleet.Run(ctx, "kv", "put", "redirects", "link:docs", link, "--json")
	return err
}

// link waits until PoPs redirect to a link.
func (c *cutDemo) link(ctx context.Context, link string, pops ...up.Node) error {
	var errs []error
	for _, n := range pops {
		err := until(ctx, 30*time.Second, func() error {
			return c.ask(ctx, n, request.HTTP2, "redirects", expect{path: "/s/docs", status: 302, location: link, bytes: -1})
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", n.PoP, err))
		}
	}
	return errors.Join(errs...)
}
