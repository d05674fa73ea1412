package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/control/api"
)

func drainCommand(o *options) *cobra.Command {
	var reason string
	d := draining{o: o, drain: true}
	c := &cobra.Command{
		Use:   "drain [NODE]",
		Short: "have a node, or all of a PoP, say that new traffic should go elsewhere",
		Long: `Orders a node to drain: /readyz answers 503 "draining", so that whatever sends it
traffic sends it elsewhere; it serves what comes all the same, follows deployments,
and stays so over restarts until 'selvage undrain'. Then stop it: on SIGTERM a node
takes no new connections, gives requests under way 25 seconds to end, and exits.
A node that is away is told when it comes back. --pop drains all nodes of a PoP.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return d.run(cmd.Context(), args, func(ctx context.Context, c *client.Client, node string) (api.Node, error) {
				return c.Drain(ctx, node, reason)
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for those who look at the status")
	d.flags(c.Flags(), "how long to wait until the node says that it drains")
	return c
}

func undrainCommand(o *options) *cobra.Command {
	d := draining{o: o}
	c := &cobra.Command{
		Use: "undrain [NODE]", Short: "take a node, or all of a PoP, back into service", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return d.run(cmd.Context(), args, func(ctx context.Context, c *client.Client, node string) (api.Node, error) {
				return c.Undrain(ctx, node)
			})
		},
	}
	d.flags(c.Flags(), "how long to wait until the node says that it is in service")
	return c
}

// draining is one run of either command.
type draining struct {
	o     *options
	drain bool
	pop   string
	wait  time.Duration
}

func (d *draining) flags(f *pflag.FlagSet, wait string) {
	f.StringVar(&d.pop, "pop", "", "all nodes of this PoP, in place of NODE; each is printed by itself")
	f.DurationVar(&d.wait, "timeout", 10*time.Second, wait)
}

func (d *draining) run(ctx context.Context, args []string, order func(context.Context, *client.Client, string) (api.Node, error)) error {
	if (len(args) == 0) == (d.pop == "") {
		return usagef("want a NODE, or --pop and a PoP's name; 'selvage status' lists both")
	}
	return onFleet(d.o, func(c *client.Client) error {
		nodes := args
		if d.pop != "" {
			var err error
			if nodes, err = nodesOfPoP(ctx, c, d.pop); err != nil {
				return err
			}
		}
		var all []api.Node
		for _, name := range nodes { // all are told before any is waited for
			n, err := order(ctx, c, name)
			if err != nil {
				return err
			}
			all = append(all, n)
		}
		var late error
		for _, n := range all {
			err := tellDrain(ctx, d.o, c, n, d.drain, d.wait)
			if err != nil && !errors.Is(err, errSaid) {
				return err
			}
			late = errors.Join(late, err)
		}
		return late
	})
}

// nodesOfPoP names the PoP's nodes, also those that are away.
func nodesOfPoP(ctx context.Context, c *client.Client, pop string) (names []string, err error) {
	f, err := c.Fleet(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range f.Nodes {
		if n.PoP == pop {
			names = append(names, n.Name)
		}
	}
	if len(names) == 0 {
		return nil, missingf("there is no PoP %q; 'selvage status' lists them", pop)
	}
	return names, nil
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
