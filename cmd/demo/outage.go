package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/up"
)

// killServer kills one PoP's server with -9: its sockets stay open, so every
// connection is accepted, a new server answers, and the other PoPs notice nothing.
func (d *demo) killServer(ctx context.Context) error {
	victim, others := d.fleet.Layout.Edges[0], d.fleet.Layout.Edges[1:]
	before, err := serverOf(d.fleet.Edges[victim.Name])
	if err != nil {
		return err
	}
	stop, finish := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var dialled int
	var refused error
	wg.Go(func() { dialled, refused = d.dialUntil(stop, victim) })
	asked := make([]int, len(others))
	failed := make([]error, len(others))
	for i, n := range others {
		wg.Go(func() { asked[i], failed[i] = d.askUntil(stop, n) })
	}
	start := time.Now()
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		finish()
		wg.Wait()
		return fmt.Errorf("kill server %d: %w", before, err)
	}
	back := until(ctx, 30*time.Second, func() error {
		if now, err := serverOf(d.fleet.Edges[victim.Name]); err != nil || now == before {
			return errors.Join(err, fmt.Errorf("server %d was not replaced", before))
		}
		return d.ask(ctx, victim, request.HTTP2, "hello", get("/", "hello"))
	})
	took := time.Since(start)
	finish()
	wg.Wait()
	d.checks.add("killed server is replaced", back, "%s answers again after %d ms", victim.PoP, took.Milliseconds())
	d.checks.add("no connection refused meanwhile", refused, "%d connections opened to %s, none refused", dialled, victim.PoP)
	d.checks.add("other PoPs serve on", errors.Join(failed...), "%d requests, none failed", asked[0]+asked[1])
	return ctx.Err()
}

// dialUntil opens TCP connections to n until ctx ends.
func (d *demo) dialUntil(ctx context.Context, n up.Node) (dialled int, err error) {
	for ctx.Err() == nil {
		c, err := net.DialTimeout("tcp", n.Public, 5*time.Second)
		if err != nil {
			return dialled, fmt.Errorf("connection %d: %w", dialled+1, err)
		}
		c.Close()
		dialled++
		pause(ctx, 2*time.Millisecond)
	}
	return dialled, nil
}

// askUntil sends requests to n on one connection until ctx ends.
func (d *demo) askUntil(ctx context.Context, n up.Node) (asked int, err error) {
	c, err := request.New(request.Config{Version: request.HTTP2, Connect: n.Public, CAFile: d.fleet.EdgeCA})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for ctx.Err() == nil {
		// The request outlives ctx: its end must not count as a failure.
		if err := askWith(context.WithoutCancel(ctx), c, d.url("hello", "/"), get("/", "hello")); err != nil {
			return asked, fmt.Errorf("%s: request %d: %w", n.PoP, asked+1, err)
		}
		asked++
		pause(ctx, 5*time.Millisecond)
	}
	return asked, nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// withoutControl has every PoP read the link once more (the one whose server was
// killed began with an empty cache), stops control, asks every PoP, restarts every PoP, and asks again.
func (d *demo) withoutControl(ctx context.Context) error {
	if err := d.askEveryPoP(ctx); err != nil {
		return fmt.Errorf("before control was stopped: %w", err)
	}
	d.fleet.Control.Stop(15 * time.Second)
	d.checks.add("control away: PoPs serve", d.askEveryPoP(ctx), "every function in %d PoPs, KV from their caches", len(d.fleet.Layout.Edges))
	start := time.Now()
	for _, n := range d.fleet.Layout.Edges {
		d.fleet.Edges[n.Name].Stop(15 * time.Second)
		if err := d.fleet.StartEdge(ctx, n); err != nil {
			return err
		}
	}
	for _, n := range d.fleet.Layout.Edges {
		if err := d.fleet.Edges[n.Name].Ready(ctx, "/readyz"); err != nil {
			return err
		}
	}
	d.checks.add("control away: PoPs restart", d.askRestarted(ctx), "all ready again in %.1f s, from what they keep on disk", time.Since(start).Seconds())
	refused := d.refusesClearly(ctx)
	d.checks.add("control away: a deploy says so", refused, "exits at once with a clear error")
	return ctx.Err()
}

func (d *demo) askEveryPoP(ctx context.Context) error {
	var errs []error
	for _, n := range d.fleet.Layout.Edges {
		errs = append(errs, d.ask(ctx, n, request.HTTP2, "redirects", expect{path: "/s/docs", status: 302, location: secondLink, bytes: -1}))
	}
	return errors.Join(append(errs, d.askRestarted(ctx))...)
}

// askRestarted leaves out what needs KV: a cached namespace is empty after a restart.
func (d *demo) askRestarted(ctx context.Context) error {
	var errs []error
	for _, n := range d.fleet.Layout.Edges {
		for _, v := range versions {
			errs = append(errs,
				d.ask(ctx, n, v, "hello", get("/", "hello")),
				d.ask(ctx, n, v, greeter, get("/", "hello again from "+greeter)),
				d.ask(ctx, n, v, "httpbin", get("/get?a=b", `"b"`)))
		}
	}
	return errors.Join(errs...)
}

func (d *demo) refusesClearly(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	_, err := d.fleet.Run(ctx, "deploy", "--wait", "--json", filepath.Join(d.work, greeter))
	if err == nil {
		return errors.New("a deploy without control reported success")
	}
	if ctx.Err() != nil {
		return fmt.Errorf("it hung: %w", err)
	}
	return nil
}
