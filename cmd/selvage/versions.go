package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/runtime/function"
)

func versionsCommand(o *options) *cobra.Command {
	var p project
	c := &cobra.Command{
		Use:   "versions FUNCTION",
		Short: "a function's releases, newest first: what 'selvage rollback' can go back to",
		Long: `Lists a function's releases, newest first. The control node keeps the last 64 of
each function, with their bundles.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(o, func(c *client.Client, project string) error {
				all, err := c.Releases(cmd.Context(), project, args[0])
				if err != nil {
					return err
				}
				return o.out().Result(all, func(w io.Writer) { printVersions(w, all) })
			})
		},
	}
	p.flag(c.Flags())
	return c
}

// printVersions tells of each release also which earlier one has the same bundle.
func printVersions(w io.Writer, all []api.Release) {
	first := map[function.Digest]uint64{}
	for i := len(all) - 1; i >= 0; i-- {
		if r := all[i]; !r.Removed && first[r.Bundle] == 0 {
			first[r.Bundle] = r.Number
		}
	}
	var rows [][]string
	for i, r := range all {
		var notes []string
		if i == 0 && !r.Removed {
			notes = append(notes, "current")
		}
		if r.Removed {
			notes = append(notes, "removed")
		} else if n := first[r.Bundle]; n != r.Number {
			notes = append(notes, fmt.Sprintf("as release %d", n))
		}
		rows = append(rows, []string{fmt.Sprint(r.Number), short(string(r.Bundle)), r.CreatedAt.Format(time.RFC3339), strings.Join(notes, ", "), strings.Join(r.Routes, " ")})
	}
	term.Table(w, []string{"RELEASE", "DIGEST", "MADE", "STATE", "ROUTES"}, rows)
}
