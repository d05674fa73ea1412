package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/up"
)

// bootLimit bounds the start of a local fleet.
const bootLimit = 2 * time.Minute

func upCommand(o *options) *cobra.Command {
	opts := up.Options{}
	var base string
	c := &cobra.Command{
		Use:   "up",
		Short: "a whole fleet on this machine: a control node and several PoPs",
		Long: `Starts a control node and PoPs as processes on loopback addresses of their own,
and stops them when it is interrupted. Where one ends by itself it is said, and
the others go on: PoPs serve without a control node. State is kept in --dir, so that the next
'selvage up' there goes on where this one ended. Other commands, started in the
folder that holds --dir or below it, find the fleet by themselves.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := netip.ParseAddr(base)
			if err != nil {
				return usagef("--base: %w", err)
			}
			opts.Base = a
			return runUp(c.Context(), o, opts)
		},
	}
	fl := c.Flags()
	fl.IntVar(&opts.PoPs, "pops", 3, fmt.Sprintf("how many PoPs, 1 to %d", up.MaxPoPs))
	fl.StringVar(&opts.Dir, "dir", ".selvage", "where state, logs and certificates are kept")
	fl.StringVar(&base, "base", "127.0.0.10", "the control node's address; PoPs take the ones after it")
	fl.Uint16Var(&opts.Port, "port", 8443, "the PoPs' public port, TCP and UDP")
	return c
}

func runUp(ctx context.Context, o *options, opts up.Options) error {
	layout, err := up.Plan(opts)
	if err != nil {
		return usageError{err}
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	out := o.out()
	f := &up.Fleet{Layout: layout, Selvage: exe}
	booting, cancel := context.WithTimeout(ctx, bootLimit)
	err = f.Boot(booting, out.Say)
	cancel()
	if err != nil {
		return err
	}
	defer f.Stop()
	out.Say("\nready; logs in %s. Interrupt to stop.\nnext, in another terminal in this folder: selvage init hello && selvage deploy --wait hello", layout.Dir)
	f.Watch(ctx, func(p *up.Process) { out.Say("%s", endOf(f, p)) })
	if ctx.Err() == nil {
		return fmt.Errorf("no PoP is left; see the logs in %s", layout.Dir)
	}
	out.Say("stopping")
	return nil
}

// endOf says what it means that a process of the fleet has ended.
func endOf(f *up.Fleet, p *up.Process) string {
	text := fmt.Sprintf("%s ended by itself (%v); see %s", p.Node.Name, cmp.Or(p.Err(), errEnded), p.Node.Log)
	if p != f.Control {
		return text + "\nthe others go on:\n  " +
			f.Selvage + " edge --config " + p.Node.Config + "    starts it alone; 'selvage up', once this one is interrupted, starts all"
	}
	return text + "\nthe PoPs go on without control: they serve what they have. Deployments, KV writes and commands that ask the fleet wait for it:\n  " +
		f.Selvage + " control --config " + p.Node.Config + "    starts it alone; 'selvage up', once this one is interrupted, starts all"
}

var errEnded = errors.New("exit status 0")
