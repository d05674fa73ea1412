package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/target"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/report"
)

func dialAPI(t target.Target) (*client.Client, error) { return client.New(t) }

type deployFlags struct {
	wait    bool
	timeout time.Duration
}

// deployResult is the --json form.
type deployResult struct {
	Project  string       `json:"project"`
	Function string       `json:"function"`
	Release  uint64       `json:"release"`
	Digest   string       `json:"digest"`
	Routes   []string     `json:"routes"`
	URLs     []string     `json:"urls"` // of routes whose host is one name, with the PoPs' port
	Notes    []string     `json:"notes,omitempty"`
	Live     bool         `json:"live"` // on every node that is there; only with --wait
	Nodes    []deployNode `json:"nodes"`
	TookMS   int64        `json:"took_ms"`
	ask      string       // a PoP
}

type deployNode struct {
	Node      string       `json:"node"`
	PoP       string       `json:"pop"`
	State     report.State `json:"state"`
	Why       string       `json:"why,omitempty"`
	Digest    string       `json:"digest,omitempty"`
	CompileMS float64      `json:"compile_ms"`
	ReadyMS   float64      `json:"ready_ms"`
	FromCache bool         `json:"from_cache"`
	Away      bool         `json:"away,omitempty"`
}

func deployCommand(o *options) *cobra.Command {
	var f deployFlags
	c := &cobra.Command{
		Use:   "deploy [DIR]",
		Short: "build a function and make it live on every PoP",
		Long: `Builds the function in DIR (default: here), signs and uploads its bundle, and
makes it live. --wait stays until every node that is there has it live or has
said why not, with a line for each; it exits with 1 if one has not.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runDeploy(c.Context(), o, f, folder(args)) },
	}
	c.Flags().BoolVar(&f.wait, "wait", false, "wait until every PoP has it live or has said why not")
	c.Flags().DurationVar(&f.timeout, "timeout", 10*time.Minute, "how long it may take, from the upload on")
	return c
}

func runDeploy(ctx context.Context, o *options, f deployFlags, dir string) error {
	t, err := o.find()
	if err != nil {
		return err
	}
	c, err := dialAPI(t)
	if err != nil {
		return err
	}
	defer c.Close()
	start, out := time.Now(), o.out()
	b, err := buildBundle(ctx, out, dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("time is up after %v (--timeout)", f.timeout))
	defer cancel()
	d, err := upload(ctx, out, c, t, b)
	if ctx.Err() != nil && err != nil {
		return fmt.Errorf("%w before the fleet said whether it made a release; 'selvage versions %s' shows it", context.Cause(ctx), b.Manifest.Name)
	}
	if err != nil {
		return err
	}
	if len(d.Release.Routes) == 0 {
		d.Notes = append(d.Notes, "it has no routes, so no request reaches it: set routes in selvage.toml")
	}
	res := deployResult{Project: d.Release.Project, Function: d.Release.Function, Release: d.Release.Number, Digest: string(d.Release.Bundle), Routes: d.Release.Routes, Notes: d.Notes}
	res.address(ctx, c)
	var late error
	if f.wait {
		s, err := await(ctx, out, c, d.Release.Project, d.Release.Function, d.Release.Number, f.timeout)
		// What is known so far, and why, is told also when time is up.
		late, res.Nodes, res.Live = err, nodesOf(s), s.Done && s.Failed == 0 && s.Live > 0
	}
	res.TookMS = time.Since(start).Milliseconds()
	if err := out.Result(res, func(w io.Writer) { res.print(w, f.wait) }); err != nil {
		return err
	}
	if f.wait && late == nil && !res.Live {
		return errSaid
	}
	if late != nil && ctx.Err() != nil {
		return fmt.Errorf("%w; the release goes on: 'selvage status' shows where it is live", late)
	}
	return late
}

// address finds how the routes are asked: the URLs, and a PoP that is there. Who
// may not look at the fleet gets none.
func (r *deployResult) address(ctx context.Context, c *client.Client) {
	r.URLs = []string{}
	fleet, err := c.Fleet(ctx)
	if err != nil {
		return
	}
	for _, n := range fleet.Nodes {
		_, port, err := net.SplitHostPort(n.Public)
		if err != nil || n.Away {
			continue
		}
		r.ask = n.PoP
		for _, route := range r.Routes {
			if u := urlOf(route, port); u != "" {
				r.URLs = append(r.URLs, u)
			}
		}
		return
	}
}

// urlOf is a URL that the route takes; empty for a route of many hosts.
func urlOf(route, port string) string {
	host, path, _ := strings.Cut(route, "/")
	if strings.Contains(host, "*") {
		return ""
	}
	if port != "443" {
		host = host + ":" + port
	}
	return "https://" + host + "/" + strings.TrimSuffix(path, "*")
}

// upload signs the bundle, sends it, and makes it live.
func upload(ctx context.Context, out *term.Out, c *client.Client, t target.Target, b *built) (api.Deployed, error) {
	if t.Publisher == "" {
		return api.Deployed{}, fmt.Errorf("target %s names no publisher key: set publisher = \"FILE\"", t.Path)
	}
	key, err := identity.LoadSigner(t.Publisher)
	if err != nil {
		return api.Deployed{}, fmt.Errorf("publisher key: %w", err)
	}
	m := b.Manifest
	sig, err := bundle.Sign(key, m.Project, m.Name, b.Digest)
	if err != nil {
		return api.Deployed{}, err
	}
	bar := out.Bar(int64(len(b.Packed)), "uploading "+m.Name)
	if _, err := c.Upload(ctx, m.Project, b.Packed, sig, bar); err != nil {
		return api.Deployed{}, err
	}
	_ = bar.Finish() // drawing only
	out.Progress("preparing %s on the control node: scan, split, compile, snapshot", m.Name)
	defer out.Beat(ctx, func(since time.Duration) string { return fmt.Sprintf("still preparing %s, %v", m.Name, since) })()
	return c.Deploy(ctx, m.Project, m.Name, b.Digest)
}

// statuses is where await asks; *client.Client is one.
type statuses interface {
	Status(ctx context.Context, project, name string, release uint64, tag string, wait time.Duration) (api.Status, error)
}

// await follows a release until every node that is there is done with it. With
// an error it returns the last status it was told.
func await(ctx context.Context, out *term.Out, c statuses, project, name string, release uint64, limit time.Duration) (api.Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not every PoP had it live within %v; 'selvage status' shows how far it is", limit))
	defer cancel()
	s, err := c.Status(ctx, project, name, release, "", 0)
	bar := out.Steps(max(1, s.Live+s.Failed+s.Pending), "live on nodes")
	told := telling{out: out, begin: time.Now()}
	told.of(s)
	for err == nil && !s.Done && s.Live+s.Failed+s.Pending > 0 { // nobody there is nobody to wait for
		bar.ChangeMax(max(1, s.Live+s.Failed+s.Pending))
		_ = bar.Set(s.Live) // drawing only
		var next api.Status
		if next, err = c.Status(ctx, project, name, release, s.Tag, term.BeatEvery); err == nil {
			s = next
			told.of(s)
		}
	}
	_ = bar.Finish()
	if err != nil && ctx.Err() != nil {
		return s, context.Cause(ctx)
	}
	return s, err
}

// telling says, where no bar is drawn, how far nodes are: each change, and at
// least every term.BeatEvery that they are still at it.
type telling struct {
	out   *term.Out
	begin time.Time
}

func (t telling) of(s api.Status) {
	if t.out.IsTerminal() {
		return
	}
	var rest []string
	for _, p := range s.PoPs {
		for _, n := range p.Nodes {
			if !n.Away && n.State != report.Live {
				rest = append(rest, n.Node+" "+string(n.State))
			}
		}
	}
	text := fmt.Sprintf("%5.1f s  live on %d of %d nodes", time.Since(t.begin).Seconds(), s.Live, s.Live+s.Failed+s.Pending)
	if most := 5; len(rest) > most {
		rest = append(rest[:most], fmt.Sprintf("%d more", len(rest)-most))
	}
	if len(rest) > 0 {
		text += "; " + strings.Join(rest, ", ")
	}
	t.out.Progress("%s", text)
}

func nodesOf(s api.Status) []deployNode {
	nodes := []deployNode{}
	for _, p := range s.PoPs {
		for _, n := range p.Nodes {
			nodes = append(nodes, deployNode{Node: n.Node, PoP: p.PoP, State: n.State, Why: n.Why, Digest: string(n.Digest),
				CompileMS: n.CompileMS, ReadyMS: n.ReadyMS, FromCache: n.FromCache, Away: n.Away})
		}
	}
	return nodes
}

func (r *deployResult) print(w io.Writer, waited bool) {
	fmt.Fprintf(w, "%s/%s release %d, %s\n", r.Project, r.Function, r.Release, r.Digest)
	for _, route := range r.Routes {
		fmt.Fprintf(w, "  route %s\n", route)
	}
	for _, u := range r.URLs {
		fmt.Fprintf(w, "  %s\n", u)
	}
	if len(r.URLs) > 0 && r.ask != "" {
		fmt.Fprintf(w, "  ask a PoP: selvage request --pop %s %s\n", r.ask, r.URLs[0])
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  note: %s\n", n)
	}
	if waited {
		printNodes(w, r.Nodes)
	}
}

func printNodes(w io.Writer, nodes []deployNode) {
	if len(nodes) == 0 {
		fmt.Fprintln(w, "no node has joined this fleet yet; it goes live on each as it joins")
		return
	}
	if !slices.ContainsFunc(nodes, func(n deployNode) bool { return !n.Away }) {
		fmt.Fprintln(w, "every node is away: it goes live on each as it comes back")
	}
	var rows [][]string
	for _, n := range nodes {
		state := string(n.State)
		if n.Away {
			state += " (away)"
		}
		compiled := fmt.Sprintf("%.0f ms", n.CompileMS)
		if n.FromCache {
			compiled = "cached"
		}
		rows = append(rows, []string{n.PoP, n.Node, state, compiled, short(n.Digest), n.Why})
	}
	term.Table(w, []string{"POP", "NODE", "STATE", "COMPILED", "DIGEST", "WHY"}, rows)
}
