package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/cmd/selvage/node"
	"github.com/selvage-edge/selvage/edge/keeper"
	"github.com/selvage-edge/selvage/runtime/jail"
	"github.com/selvage-edge/selvage/runtime/plain"
)

func edgeCommand(o *options) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "edge",
		Short: "one node of a PoP",
		Long: `Runs one node of a PoP: opens its sockets, and starts and replaces the server
that serves on them. A node that is not yet part of a fleet joins with the
one-time token in $SELVAGE_JOIN_TOKEN (made by 'selvage join-token').
SIGTERM drains it; SIGHUP upgrades it to the program and the configuration that
are installed now, as 'selvage edge upgrade' does.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runKeeper(c.Context(), file) },
	}
	c.Flags().StringVar(&file, "config", "edge.toml", "configuration file")
	c.AddCommand(edgeUpgradeCommand(o), edgeAnnounceCommand(o))
	return c
}

// runKeeper is the node's small parent.
func runKeeper(ctx context.Context, file string) error {
	left, err := keeper.Inherit()
	if err != nil {
		return err
	}
	cfg, err := config.LoadEdge(file)
	if err != nil {
		return usageError{err}
	}
	if left.Trial() {
		return nil
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: config.Level(cfg.Log.Level), ReplaceAttr: plain.Attr})).With("node", cfg.Node.Name, "room", "keeper")
	helpers, err := jail.Open(jail.Config{})
	if err != nil {
		return err
	}
	defer helpers.Close()
	for _, m := range helpers.Missing() {
		log.Warn("helpers run without a wall this machine does not give", "wall", m.What, "why", m.Why)
	}
	k, err := keeper.Open(ctx, keeper.Config{
		Public:  cfg.Listen.Public,
		Admin:   cfg.Listen.Admin,
		Peer:    cfg.Listen.Peer,
		Args:    []string{"server", "--config", file},
		State:   cfg.Node.State,
		Helpers: helpers,
		Event:   func(e keeper.Event) { logEvent(log, e) },
		Become:  true, Inherited: left,
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var signals sync.WaitGroup
	defer signals.Wait()
	defer stop()
	signals.Go(func() { upgradeOnSignal(ctx, k) })
	if err := k.Run(ctx); errors.Is(err, keeper.ErrConfig) {
		return usageError{err}
	} else if err != nil {
		return err
	}
	return nil
}

// upgradeOnSignal makes each SIGHUP an upgrade to what is installed.
func upgradeOnSignal(ctx context.Context, k *keeper.Keeper) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-hup:
			k.Upgrade(ctx)
		case <-ctx.Done():
			return
		}
	}
}

func logEvent(log *slog.Logger, e keeper.Event) {
	level := slog.LevelInfo
	if e.Err != nil {
		level = slog.LevelError
	}
	var attrs []slog.Attr
	if e.PID > 0 {
		attrs = append(attrs, slog.Int("pid", e.PID))
	}
	if e.Program != "" {
		attrs = append(attrs, slog.String("program", e.Program))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("err", e.Err.Error()))
	}
	if e.Wait > 0 {
		attrs = append(attrs, slog.Duration("next_start_in", e.Wait))
	}
	log.LogAttrs(context.Background(), level, "server "+e.Kind.String(), attrs...)
}

// serverCommand is what a keeper starts; nobody else does.
func serverCommand(_ *options) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:    "server",
		Short:  "the serving process of a node; started by 'selvage edge'",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.LoadEdge(file)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(keeper.ExitConfig)
			}
			return node.Run(c.Context(), cfg, version)
		},
	}
	c.Flags().StringVar(&file, "config", "edge.toml", "configuration file")
	return c
}
