package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/control/api"
)

const pinnedName = "pinned"

// pinned deploys a function that is pinned to eu, asks for it at nyc, and kills the one
// PoP that may answer: then nobody does.
func (d *demo) pinned(ctx context.Context) error {
	dir := filepath.Join(d.work, pinnedName)
	if _, err := d.fleet.Run(ctx, "init", "--json", dir); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "selvage.toml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n[placement]\ninclude = [\"region = eu\"]\nresidency = true\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if _, err := d.deploy(ctx, dir); err != nil {
		return err
	}
	lon, nyc := d.fleet.Layout.Edges[0], d.fleet.Layout.Edges[1]
	var errs []error
	for _, v := range versions {
		errs = append(errs, d.ask(ctx, nyc, v, pinnedName, get("/", "hello from "+pinnedName)))
	}
	d.checks.add("pinned to eu, asked at nyc", errors.Join(errs...), "answered from %s over HTTP/1.1, 2 and 3", lon.PoP)
	answered, err := d.audit(ctx)
	d.checks.add("audit placement", err, "held and answered (%d times) in eu alone, no violations", answered)

	d.fleet.Edges[lon.Name].Stop(15 * time.Second)
	gone := until(ctx, 30*time.Second, func() error {
		return d.ask(ctx, nyc, request.HTTP2, pinnedName, expect{path: "/", status: 503, contains: []string{`"reason":"placement"`}, bytes: -1})
	})
	d.checks.add("pinned, and eu is away", gone, "nyc answers 503 and says why")
	if err := d.fleet.StartEdge(ctx, lon); err != nil {
		return err
	}
	if err := d.fleet.Edges[lon.Name].Ready(ctx, "/readyz"); err != nil {
		return err
	}
	return until(ctx, 30*time.Second, func() error { return d.ask(ctx, nyc, request.HTTP2, pinnedName, get("/", "hello from "+pinnedName)) })
}

// audit checks that the pinned function is held and answered where it may be, and returns how often.
func (d *demo) audit(ctx context.Context) (answered uint64, err error) {
	out, err := d.fleet.Run(ctx, "audit", "placement", "--json")
	if err != nil {
		return 0, err
	}
	var a api.PlacementAudit
	if err := json.Unmarshal(out, &a); err != nil {
		return 0, err
	}
	for _, f := range a.Functions {
		for _, n := range f.Nodes {
			if f.Function != pinnedName {
				continue
			}
			if (n.Held || n.Answered > 0) != (n.Region == "eu") {
				err = errors.Join(err, fmt.Errorf("%s in region %s: held %v, answered %d", n.Node, n.Region, n.Held, n.Answered))
			}
			answered += n.Answered
		}
	}
	if answered == 0 {
		err = errors.Join(err, errors.New("nobody answered"))
	}
	return answered, err
}
