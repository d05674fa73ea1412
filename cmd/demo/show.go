package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/up"
)

// demo is one run.
type demo struct {
	fleet  up.Fleet
	work   string // where functions are made
	origin *origin
	checks checks
}

// show is the whole demonstration, in order. An error ends it; a check that
// fails does not.
func (d *demo) show(ctx context.Context) error {
	for _, phase := range []struct {
		title string
		run   func(context.Context) error
	}{
		{"a control node and three PoPs, as processes on loopback", d.boot},
		{"the examples: built, bundled, signed, deployed, live on every PoP", d.deployExamples},
		{"each function, from each PoP, over HTTP/1.1, 2 and 3", d.askAll},
		{"KV: a write at control, seen in every PoP", d.kv},
		{"three clients of three places", d.geo},
		{"a function pinned to eu, asked in New York", d.pinned},
		{"a second version under load", d.upgradeUnderLoad},
		{"a node's program replaced under load", d.upgradeNode},
		{"a server killed with -9", d.killServer},
		{"control stopped: the PoPs serve on, also after a restart", d.withoutControl},
		{"a PoP cut off from the others, and back", d.partition},
	} {
		fmt.Printf("\n== %s\n", phase.title)
		if err := phase.run(ctx); err != nil {
			d.checks.add(phase.title, err, "")
			return err
		}
	}
	return nil
}

func (d *demo) boot(ctx context.Context) error {
	start := time.Now()
	err := d.fleet.Boot(ctx, func(format string, args ...any) { fmt.Printf("  "+format+"\n", args...) })
	if err != nil {
		return err
	}
	d.checks.add("fleet up", nil, "control and %d PoPs ready in %.1f s", len(d.fleet.Layout.Edges), time.Since(start).Seconds())
	return nil
}

// deployed is what `selvage deploy --json` prints.
type deployed struct {
	Project  string `json:"project"`
	Function string `json:"function"`
	Release  uint64 `json:"release"`
	Digest   string `json:"digest"`
	Live     bool   `json:"live"`
	Nodes    []struct {
		Node      string  `json:"node"`
		PoP       string  `json:"pop"`
		State     string  `json:"state"`
		CompileMS float64 `json:"compile_ms"`
		Why       string  `json:"why"`
	} `json:"nodes"`
}

func (d *demo) deploy(ctx context.Context, dir string) (deployed, error) {
	var v deployed
	out, err := d.fleet.Run(ctx, "deploy", "--wait", "--json", dir)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(out, &v); err != nil {
		return v, fmt.Errorf("deploy %s: %q: %w", dir, out, err)
	}
	if !v.Live || len(v.Nodes) != len(d.fleet.Layout.Edges) {
		return v, fmt.Errorf("deploy %s: live %v on %d nodes: %s", dir, v.Live, len(v.Nodes), out)
	}
	return v, nil
}

// greeter is the function made from the template; its second version says something else.
const greeter = "greeter"

func (d *demo) deployExamples(ctx context.Context) error {
	if err := os.MkdirAll(d.work, 0o700); err != nil {
		return err
	}
	own := filepath.Join(d.work, greeter)
	if _, err := d.fleet.Run(ctx, "init", "--json", own); err != nil {
		return err
	}
	proxy, err := d.proxyFunction()
	if err != nil {
		return err
	}
	for _, dir := range []string{own, "sdk/examples/hello", "sdk/examples/redirects", "sdk/examples/httpbin", proxy} {
		start := time.Now()
		v, err := d.deploy(ctx, dir)
		if err != nil {
			return err
		}
		var nodes []string
		for _, n := range v.Nodes {
			nodes = append(nodes, fmt.Sprintf("%s %.1f s", n.PoP, n.CompileMS/1000))
		}
		d.checks.add("deploy "+v.Function, nil, "release %d, %.19s, live on all in %.1f s; compiled: %s",
			v.Release, v.Digest, time.Since(start).Seconds(), strings.Join(nodes, ", "))
	}
	return nil
}

// probes are the requests of askAll, by host.
func (d *demo) probes() map[string][]expect {
	return map[string][]expect{
		"hello":     {get("/", "hello")},
		greeter:     {get("/", "hello from "+greeter)},
		"proxy":     d.proxyProbes(),
		"redirects": {{path: "/s/docs", status: 302, location: firstLink, bytes: -1}, {path: "/s/none", status: 404, bytes: -1}},
		"httpbin": {
			get("/get?a=b", `"a"`, `"b"`), {path: "/headers", status: 200, header: [2]string{"X-Demo", "selvage"}, contains: []string{"X-Demo", "selvage"}, bytes: -1},
			{method: "POST", path: "/post", body: "woven", header: [2]string{"Content-Type", "text/plain"}, status: 200, contains: []string{"woven"}, bytes: -1},
			{path: "/status/418", status: 418, bytes: -1}, {path: "/gzip", status: 200, contains: []string{"\x1f\x8b"}, bytes: -1},
			get("/stream/20", `"id":19`), {path: "/bytes/1024", status: 200, bytes: 1024},
			{path: "/redirect/2", status: 302, location: "/relative-redirect/1", bytes: -1}, {path: "/delay/1", status: 200, bytes: -1, atLeast: time.Second},
		},
	}
}

const (
	firstLink  = "https://example.com/docs"
	secondLink = "https://example.com/docs/v2"
)

func (d *demo) askAll(ctx context.Context) error {
	if _, err := d.fleet.Run(ctx, "kv", "put", "redirects", "link:docs", firstLink, "--json"); err != nil {
		return err
	}
	for host, probes := range d.probes() {
		for _, v := range versions {
			var errs []error
			for _, n := range d.fleet.Layout.Edges {
				errs = append(errs, d.askHost(ctx, n, v, host, probes)...)
			}
			d.checks.add(fmt.Sprintf("%s over h%s", host, v), errors.Join(errs...), "%d requests, each from %d PoPs", len(probes), len(d.fleet.Layout.Edges))
		}
	}
	return ctx.Err()
}

// askHost sends all probes on one connection, at once: /delay/1 shows that a waiting guest holds nobody up.
func (d *demo) askHost(ctx context.Context, n up.Node, v request.Version, host string, probes []expect) []error {
	c, err := request.New(request.Config{Version: v, Connect: n.Public, CAFile: d.fleet.EdgeCA})
	if err != nil {
		return []error{err}
	}
	defer c.Close()
	errs := make([]error, len(probes))
	var wg sync.WaitGroup
	for i, e := range probes {
		wg.Go(func() {
			if err := askWith(ctx, c, d.url(host, e.path), e); err != nil {
				errs[i] = fmt.Errorf("%s: %w", n.PoP, err)
			}
		})
	}
	wg.Wait()
	return errs
}

// kv changes a value that every PoP has in its cache and times how long each serves the old one.
func (d *demo) kv(ctx context.Context) error {
	start := time.Now()
	if _, err := d.fleet.Run(ctx, "kv", "put", "redirects", "link:docs", secondLink, "--json"); err != nil {
		return err
	}
	written := time.Now()
	seen := make([]time.Duration, len(d.fleet.Layout.Edges))
	errs := make([]error, len(seen))
	var wg sync.WaitGroup
	for i, n := range d.fleet.Layout.Edges {
		wg.Go(func() {
			errs[i] = until(ctx, 10*time.Second, func() error {
				return d.ask(ctx, n, request.HTTP2, "redirects", expect{path: "/s/docs", status: 302, location: secondLink, bytes: -1})
			})
			seen[i] = time.Since(written)
		})
	}
	wg.Wait()
	var each []string
	for i, n := range d.fleet.Layout.Edges {
		each = append(each, fmt.Sprintf("%s %d ms", n.PoP, seen[i].Milliseconds()))
	}
	d.checks.add("kv write seen", errors.Join(errs...), "acknowledged in %d ms; first seen, after the acknowledgement: %s",
		written.Sub(start).Milliseconds(), strings.Join(each, ", "))
	return ctx.Err()
}

// until calls try until it succeeds or the time is over; it returns the last failure.
func until(ctx context.Context, limit time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", limit, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// serverOf returns the process number of the server under a node's keeper.
func serverOf(p *up.Process) (int, error) {
	all, err := p.Servers()
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("%s's keeper %d has servers %v", p.Node.Name, p.PID(), all)
	}
	if err != nil {
		return 0, err
	}
	return all[0], nil
}

// showLogs copies the end of each process's log, for a run that failed.
func (d *demo) showLogs(w io.Writer) {
	for _, n := range append([]up.Node{d.fleet.Layout.Control}, d.fleet.Layout.Edges...) {
		text, err := os.ReadFile(n.Log)
		if err != nil {
			continue
		}
		fmt.Fprintf(w, "\n-- the end of %s's log\n%s", n.Name, text[max(0, len(text)-3000):])
	}
}
