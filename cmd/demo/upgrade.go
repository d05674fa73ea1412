package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/bench/load"
	"github.com/selvage-edge/selvage/cmd/selvage/request"
)

// upgradeNode replaces the program of one PoP's node, keeper and server, while
// it is driven over every protocol: none of the requests may fail.
func (d *demo) upgradeNode(ctx context.Context) error {
	n := d.fleet.Layout.Edges[0]
	conf, err := d.trust()
	if err != nil {
		return err
	}
	before, err := serverOf(d.fleet.Edges[n.Name])
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var total atomic.Int64
	var wg sync.WaitGroup
	protocols := []load.Protocol{load.H1, load.H2, load.H3}
	errs := make([]error, len(protocols))
	for i, p := range protocols {
		wg.Go(func() {
			res, err := load.Run(running, load.Config{URL: d.url("hello", "/"), Address: n.Public, Protocol: p, TLS: conf,
				Connections: 2, Workers: 8, Rate: 150, Duration: limit,
				Check: func(status int, body []byte) error {
					total.Add(1)
					if status != 200 {
						return fmt.Errorf("status %d, body %.100q", status, body)
					}
					return nil
				}})
			errs[i] = errors.Join(err, failures(n.PoP+" over "+string(p), res))
		})
	}
	pause(ctx, 500*time.Millisecond) // connections are open
	begin := time.Now()
	_, upgrade := d.fleet.Run(ctx, "edge", "upgrade", "--config", n.Config)
	took := time.Since(begin)
	pause(ctx, 500*time.Millisecond) // and used after it
	stop()
	wg.Wait()
	after, err := serverOf(d.fleet.Edges[n.Name])
	if err == nil && after == before {
		err = fmt.Errorf("server %d was not replaced", before)
	}
	d.checks.add("upgrade under load: no failed request", errors.Join(append(errs, upgrade, err)...),
		"%s upgraded in %.1f s; %d requests over h1, h2 and h3, none failed", n.PoP, took.Seconds(), total.Load())

	_, bad := d.fleet.Run(ctx, "edge", "upgrade", "--config", n.Config, "--binary", "/bin/false")
	if bad == nil {
		bad = errors.New("an upgrade to /bin/false reported success")
	} else {
		bad = d.ask(ctx, n, request.HTTP3, "hello", get("/", "hello"))
	}
	d.checks.add("upgrade that cannot serve", bad, "%s says so, and the server before it serves on", filepath.Base(d.fleet.Selvage))
	return ctx.Err()
}
