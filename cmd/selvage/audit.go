package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/control/api"
)

func auditCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "check the fleet against what it promises"}
	c.RunE = onlySubcommands
	c.AddCommand(&cobra.Command{
		Use:   "placement",
		Short: "show where functions may run, are held, and were answered",
		Long: `Asks every node, over mTLS, what it has of each function and how many requests it
answered or handed on since its server started, and compares that with where the
function may be. A pinned function (residency) that is held or was answered where it
may not be is a violation: they are listed, and the exit code is 1. PoP and region are
those of the node's certificate. Nodes that cannot be reached are listed: of them
nothing is known.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return onFleet(o, func(c *client.Client) error {
				a, err := c.AuditPlacement(cmd.Context())
				if err != nil {
					return err
				}
				if err := o.out().Result(a, func(w io.Writer) { printPlacement(w, a) }); err != nil {
					return err
				}
				if len(a.Violations) > 0 {
					return errSaid
				}
				return nil
			})
		},
	})
	return c
}

func printPlacement(w io.Writer, a api.PlacementAudit) {
	for _, f := range a.Functions {
		fmt.Fprintf(w, "%s/%s release %d: %s\n", term.Plain(f.Project), term.Plain(f.Function), f.Release, term.Plain(f.Placement.String()))
		for _, n := range f.Nodes {
			may := "may run it"
			switch {
			case !n.MayHold:
				may = "may not hold it"
			case !n.Allowed:
				may = "placed elsewhere"
			}
			held := "not held"
			if n.Held {
				held = "held"
			}
			fmt.Fprintf(w, "  %-12s %-6s %-8s %-16s %-8s answered %d, handed on %d\n", term.Plain(n.Node), term.Plain(n.PoP), term.Plain(n.Region), may, held, n.Answered, n.PassedOn)
		}
	}
	for _, u := range a.Unreached {
		fmt.Fprintf(w, "not reached: %s\n", term.Plain(u))
	}
	for _, v := range a.Violations {
		fmt.Fprintf(w, "VIOLATION: %s\n", term.Plain(v))
	}
	if len(a.Violations) == 0 {
		fmt.Fprintln(w, "no violations")
	}
}
