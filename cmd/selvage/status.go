package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/runtime/function"
)

// statusResult is the --json form.
type statusResult struct {
	Fleet     api.Fleet      `json:"fleet"`
	Functions []api.Function `json:"functions"`
}

func statusCommand(o *options) *cobra.Command {
	var project string
	c := &cobra.Command{
		Use:   "status [FUNCTION]",
		Short: "what runs where: nodes and functions",
		Args:  cobra.MaximumNArgs(1),
		Long: `Shows the fleet's nodes, which of them have a copy of each replicated KV namespace that they should have
(up to which revision, how large, and if there is none why), and functions with the nodes they are live on. Nodes say how they are
with each change of theirs and twice a minute.`,
		RunE: func(c *cobra.Command, args []string) error {
			return runStatus(c.Context(), o, project, strings.Join(args, ""))
		},
	}
	c.Flags().StringVar(&project, "project", "", "the project (default: the target's)")
	return c
}

func runStatus(ctx context.Context, o *options, project, only string) error {
	t, err := o.find()
	if err != nil {
		return err
	}
	if project == "" {
		project = t.Project
	}
	c, err := dialAPI(t)
	if err != nil {
		return err
	}
	defer c.Close()
	var res statusResult
	if res.Fleet, err = c.Fleet(ctx); err != nil {
		return err
	}
	all, err := c.Functions(ctx, project)
	if err != nil {
		return err
	}
	for _, f := range all {
		if only == "" || f.Release.Function == only {
			res.Functions = append(res.Functions, f)
		}
	}
	if only != "" && len(res.Functions) == 0 {
		return missingf("project %s has no function %q; 'selvage status' lists them", project, only)
	}
	return o.out().Result(res, func(w io.Writer) { res.print(w, only != "") })
}

func (r *statusResult) print(w io.Writer, nodes bool) {
	fmt.Fprintf(w, "fleet %s, control %s, catalog at %d.%d\n\n", r.Fleet.Fleet, r.Fleet.Control, r.Fleet.Epoch, r.Fleet.Revision)
	var rows [][]string
	for _, n := range r.Fleet.Nodes {
		rows = append(rows, []string{n.PoP, n.Name, n.Region, n.Public, condition(n), fmt.Sprint(n.Live), fmt.Sprint(n.Failed), age(n.Reported)})
	}
	term.Table(w, []string{"POP", "NODE", "REGION", "ADDRESS", "STATE", "LIVE", "FAILED", "HEARD"}, rows)
	printCopies(w, r.Fleet.Nodes)
	fmt.Fprintln(w)
	rows = nil
	for _, f := range r.Functions {
		s := f.Status
		rows = append(rows, []string{f.Release.Function, fmt.Sprint(f.Release.Number), short(string(f.Release.Bundle)),
			fmt.Sprintf("%d/%d", s.Live, s.Live+s.Failed+s.Pending), strings.Join(f.Release.Routes, " ")})
	}
	term.Table(w, []string{"FUNCTION", "RELEASE", "DIGEST", "LIVE", "ROUTES"}, rows)
	for _, f := range r.Functions {
		if nodes {
			fmt.Fprintln(w)
			printNodes(w, nodesOf(f.Status))
		} else {
			printUnready(w, f)
		}
	}
}

// printCopies says which nodes have the replicated namespaces, and why not.
func printCopies(w io.Writer, nodes []api.Node) {
	var rows [][]string
	for _, n := range nodes {
		for _, c := range n.Copies {
			rows = append(rows, []string{c.Project + "/" + c.Namespace, n.Name, copyState(c), fmt.Sprint(c.Keys), mib(c.Bytes), c.Why})
		}
	}
	if len(rows) == 0 {
		return
	}
	slices.SortStableFunc(rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	fmt.Fprintln(w)
	term.Table(w, []string{"REPLICATED", "NODE", "COPY", "KEYS", "BYTES", "WHY"}, rows)
}

// copyState is where a copy is, in few words.
func copyState(c report.Copy) string {
	switch c.State {
	case report.CopyWhole:
		return fmt.Sprintf("whole, at %d", c.Position)
	case report.CopyCatching:
		if c.Head == 0 {
			return fmt.Sprintf("catches up, at %d", c.Position)
		}
		return fmt.Sprintf("catches up, at %d of %d", c.Position, c.Head)
	case report.CopyNoRoom:
		return "no room"
	}
	return string(c.State)
}

// printUnready says where a function is not live yet, and why.
func printUnready(w io.Writer, f api.Function) {
	for _, n := range nodesOf(f.Status) {
		if n.Away || n.State == report.Live || n.State == report.Removed || n.State == report.Elsewhere {
			continue
		}
		fmt.Fprintf(w, "%s on %s: %s", term.Plain(f.Release.Function), term.Plain(n.Node), term.Plain(string(n.State)))
		if n.Why != "" {
			fmt.Fprintf(w, ": %s", term.Plain(n.Why))
		}
		fmt.Fprintln(w)
	}
}

// condition is a node's state in a word.
func condition(n api.Node) string {
	switch {
	case n.Away && n.Drain:
		return "away, drains"
	case n.Away:
		return "away"
	case n.Draining:
		return "draining"
	case n.Drain:
		return "to drain"
	case n.Behind:
		return "behind"
	default:
		return "ok"
	}
}

func age(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return time.Since(t).Round(time.Second).String() + " ago"
}

// short is a digest's first hex digits, for people.
func short(digest string) string {
	if digest == "" {
		return ""
	}
	return function.Digest(digest).Short()
}
