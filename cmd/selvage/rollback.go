package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
)

type rollbackFlags struct {
	deployFlags
	project
	to uint64
}

// rollbackResult is the --json form.
type rollbackResult struct {
	deployResult
	To        uint64 `json:"to"`                  // the release that is live again
	From      uint64 `json:"from,omitempty"`      // the one that served until now; absent: none did
	Unchanged bool   `json:"unchanged,omitempty"` // it was live already
}

func rollbackCommand(o *options) *cobra.Command {
	var f rollbackFlags
	c := &cobra.Command{
		Use:   "rollback FUNCTION",
		Short: "make an earlier version live again",
		Long: `Makes an earlier release of a function live again, as a new release with its
bundle, limits and bindings: --to names it ('selvage versions' lists them), by
default it is the one before the release that serves. Going back twice goes back
two releases: what was left that way does not count as before any more, and --to
brings it back. Where there is nothing before, it is refused. KV is not rolled
back. Nodes that still have its compiled code need no time to compile.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return f.with(o, func(cl *client.Client, project string) error {
				return runRollback(c.Context(), o, f, cl, project, args[0])
			})
		},
	}
	f.flag(c.Flags())
	c.Flags().Uint64Var(&f.to, "to", 0, "the release's number; 0: the one before the release that serves")
	c.Flags().BoolVar(&f.wait, "wait", false, "wait until every PoP has it live or has said why not")
	c.Flags().DurationVar(&f.timeout, "timeout", 10*time.Minute, "how long to wait")
	return c
}

func runRollback(ctx context.Context, o *options, f rollbackFlags, c *client.Client, project, name string) error {
	start, out := time.Now(), o.out()
	d, err := c.Rollback(ctx, project, name, f.to)
	if err != nil {
		return err
	}
	r := d.Release
	res := rollbackResult{To: d.To, From: d.From, Unchanged: d.Unchanged, deployResult: deployResult{Project: r.Project, Function: r.Function, Release: r.Number,
		Digest: string(r.Bundle), Routes: r.Routes, Notes: d.Notes, Nodes: []deployNode{}}}
	res.address(ctx, c)
	var late error
	if f.wait {
		s, err := await(ctx, out, c, r.Project, r.Function, r.Number, f.timeout)
		late, res.Nodes, res.Live = err, nodesOf(s), s.Done && s.Failed == 0 && s.Live > 0
	}
	res.TookMS = time.Since(start).Milliseconds()
	err = out.Result(res, func(w io.Writer) {
		fmt.Fprintln(w, res.way())
		res.print(w, f.wait)
	})
	if err == nil && f.wait && late == nil && !res.Live {
		err = errSaid
	}
	if err == nil {
		err = late
	}
	return err
}

// way says where it went.
func (r *rollbackResult) way() string {
	switch {
	case r.Unchanged && r.To == r.Release:
		return fmt.Sprintf("nothing to do: release %d is live already", r.To)
	case r.Unchanged:
		return fmt.Sprintf("nothing to do: release %d is live already, as release %d", r.To, r.Release)
	case r.From == 0:
		return fmt.Sprintf("back at release %d, as release %d; nothing was live", r.To, r.Release)
	default:
		return fmt.Sprintf("back from release %d to release %d, which is live again as release %d", r.From, r.To, r.Release)
	}
}
