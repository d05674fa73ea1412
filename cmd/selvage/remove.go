package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
)

func removeCommand(o *options) *cobra.Command {
	var p project
	c := &cobra.Command{
		Use:   "remove FUNCTION",
		Short: "take a function away from every PoP; its routes are free again",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(o, func(c *client.Client, project string) error {
				r, err := c.Remove(cmd.Context(), project, args[0])
				if err != nil {
					return err
				}
				return o.out().Result(r, func(w io.Writer) { fmt.Fprintf(w, "%s/%s is removed, release %d\n", r.Project, r.Function, r.Number) })
			})
		},
	}
	p.flag(c.Flags())
	return c
}
