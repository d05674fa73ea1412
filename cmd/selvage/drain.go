package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/control/api"
)

func drainCommand(o *options) *cobra.Command {
	var reason string
	var wait time.Duration
	c := &cobra.Command{
		Use:   "drain NODE",
		Short: "have a node say that new traffic should go elsewhere",
		Long: `Orders a node to drain: /readyz answers 503 "draining", so that whatever sends it
traffic sends it elsewhere; it serves what comes all the same, follows deployments,
and stays so over restarts until 'selvage undrain'. Then stop it: on SIGTERM a node
takes no new connections, gives requests under way 25 seconds to end, and exits.
A node that is away is told when it comes back.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onFleet(o, func(c *client.Client) error {
				n, err := c.Drain(cmd.Context(), args[0], reason)
				if err != nil {
					return err
				}
				return tellDrain(cmd.Context(), o, c, n, true, wait)
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for those who look at the status")
	c.Flags().DurationVar(&wait, "timeout", 10*time.Second, "how long to wait until the node says that it drains")
	return c
}

func undrainCommand(o *options) *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use: "undrain NODE", Short: "take a node back into service", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onFleet(o, func(c *client.Client) error {
				n, err := c.Undrain(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return tellDrain(cmd.Context(), o, c, n, false, wait)
			})
		},
	}
	c.Flags().DurationVar(&wait, "timeout", 10*time.Second, "how long to wait until the node says that it is in service")
	return c
}

// tellDrain waits until the node itself reports what was ordered, and prints how it is.
func tellDrain(ctx context.Context, o *options, c *client.Client, n api.Node, drain bool, wait time.Duration) error {
	for end := time.Now().Add(wait); !n.Away && n.Draining != drain && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
		f, err := c.Fleet(ctx)
		if err != nil {
			return err
		}
		for _, one := range f.Nodes {
			if one.Name == n.Name {
				n = one
			}
		}
	}
	late := n.Draining != drain || n.Away
	err := o.out().Result(n, func(w io.Writer) {
		switch {
		case late:
			fmt.Fprintf(w, "%s is ordered to, but has not said so yet: it does when it reports next\n", n.Name)
		case drain:
			fmt.Fprintf(w, "%s is draining\n", n.Name)
		default:
			fmt.Fprintf(w, "%s is in service\n", n.Name)
		}
	})
	if err == nil && late {
		return errSaid // a script must not take the node down now
	}
	return err
}
