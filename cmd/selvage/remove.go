package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func removeCommand(o *options) *cobra.Command {
	var project string
	c := &cobra.Command{
		Use:   "remove FUNCTION",
		Short: "take a function away from every PoP; its routes are free again",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
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
			r, err := c.Remove(cmd.Context(), project, args[0])
			if err != nil {
				return err
			}
			return o.out().Result(r, func(w io.Writer) { fmt.Fprintf(w, "%s/%s is removed, release %d\n", r.Project, r.Function, r.Number) })
		},
	}
	c.Flags().StringVar(&project, "project", "", "the project (default: the target's)")
	return c
}
