package main

import (
	"context"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/announce"
)

// announceFlags are what is watched and who is told.
type announceFlags struct {
	admin, command string
	exabgp         []string
	interval       time.Duration
	rise, fall     int
}

func edgeAnnounceCommand(o *options) *cobra.Command {
	var f announceFlags
	c := &cobra.Command{
		Use:   "announce",
		Short: "have a BGP speaker announce a node's anycast addresses while it serves",
		Long: `Watches /readyz of a node's admin port, and tells a BGP speaker on its machine to
announce the node's anycast addresses while it is ready, and to withdraw them when
it is not: --fall checks in a row, or at once when it drains ('selvage drain').
A check that gets no answer within --interval has failed. It withdraws when it
starts, and when it is ended.

--exabgp writes the commands of ExaBGP's API on standard output: run it as a process
of ExaBGP's (configs/exabgp.conf). --exec runs a command, with $SELVAGE_ANYCAST being
announce or withdraw and $SELVAGE_REASON why, such as birdc (configs/bird.conf); one
that fails or takes over 10 s is run again. Run it beside the node, not as a part of
it: it must outlive it. An upgrade of the node is not seen by it.`,
		Example: `  selvage edge announce --exabgp 192.0.2.53/32 --exabgp 2001:db8::53/128
  selvage edge announce --exec 'case $SELVAGE_ANYCAST in announce) birdc enable selvage;; *) birdc disable selvage;; esac'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runAnnounce(c.Context(), o, &f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.admin, "admin", "127.0.0.1:9090", "admin port of the node (its listen.admin)")
	fl.StringArrayVar(&f.exabgp, "exabgp", nil, "prefix to announce by ExaBGP's API on standard output; may be repeated")
	fl.StringVar(&f.command, "exec", "", "command to run at each change")
	fl.DurationVar(&f.interval, "interval", time.Second, "between checks")
	fl.IntVar(&f.rise, "rise", 2, "checks in a row that find it ready before it is announced")
	fl.IntVar(&f.fall, "fall", 3, "checks in a row that fail before it is withdrawn")
	return c
}

func runAnnounce(ctx context.Context, o *options, f *announceFlags) error {
	if f.interval < 10*time.Millisecond || f.rise < 1 || f.fall < 1 {
		return usagef("--interval %v --rise %d --fall %d: want at least 10ms, 1 and 1", f.interval, f.rise, f.fall)
	}
	hook, err := f.hook()
	if err != nil {
		return err
	}
	return announce.Run(ctx, announce.Config{Check: announce.Ready(f.admin), Tell: hook, Say: o.out().Say, Interval: f.interval, Rise: f.rise, Fall: f.fall})
}

func (f *announceFlags) hook() (announce.Hook, error) {
	var hooks []announce.Hook
	var prefixes []netip.Prefix
	for _, s := range f.exabgp {
		p, err := netip.ParsePrefix(s)
		if err != nil || p != p.Masked() {
			return nil, usagef("--exabgp %q: want a prefix such as 192.0.2.53/32", s)
		}
		prefixes = append(prefixes, p)
	}
	if len(prefixes) > 0 {
		// ExaBGP answers each command on our standard input, and would wait once that is full.
		go func() { _, _ = io.Copy(io.Discard, os.Stdin) }()
		hooks = append(hooks, announce.ExaBGP(os.Stdout, prefixes))
	}
	if f.command != "" {
		hooks = append(hooks, announce.Command(f.command))
	}
	if len(hooks) == 0 {
		return nil, usagef("--exabgp, --exec: want at least one, to tell whom")
	}
	return announce.All(hooks...), nil
}
