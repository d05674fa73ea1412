package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/edge/keeper"
)

func edgeUpgradeCommand(o *options) *cobra.Command {
	var file, binary string
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "replace a running node's program without losing a request",
		Long: `Starts a new server beside the one that serves, on the node with this
configuration file, and waits for what comes of it. The new server loads routes and
functions before it takes new work; the old one finishes its own. Then the keeper
replaces itself, in place. If the new server does not come to serve, the old one
serves on, and this command fails. The configuration is read again as well.

Without --binary the program is the one that is installed where the node was
started from. A program is replaced by renaming another over it, never by writing
into it. Run it on the node's machine, as root or as the node's user.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runUpgrade(c.Context(), o, file, binary) },
	}
	c.Flags().StringVar(&file, "config", "edge.toml", "the node's configuration file")
	c.Flags().StringVar(&binary, "binary", "", "the new program; outside the node's state folder")
	return c
}

// upgraded is the result as JSON.
type upgraded struct {
	Upgraded bool    `json:"upgraded"`
	Program  string  `json:"program,omitempty"`
	Seconds  float64 `json:"seconds"`
	Why      string  `json:"why,omitempty"`
}

func runUpgrade(ctx context.Context, o *options, file, binary string) error {
	cfg, err := config.LoadEdge(file)
	if err != nil {
		return usageError{fmt.Errorf("%w; name the node's configuration file with --config", err)}
	}
	var program *os.File
	if binary != "" {
		if program, err = os.Open(binary); err != nil {
			return usageError{fmt.Errorf("the new program: %w", err)}
		}
		defer program.Close()
	}
	begin := time.Now()
	out := o.out()
	name, err := keeper.Ask(ctx, cfg.Node.State, program, func(s keeper.Stage) {
		out.Say("%5.1f s  %s", time.Since(begin).Seconds(), s)
	})
	if errors.Is(err, keeper.ErrNobody) {
		return fmt.Errorf("%w; is the node running, and is this its configuration file?", err)
	}
	r := upgraded{Upgraded: err == nil, Program: name, Seconds: time.Since(begin).Seconds()}
	if err != nil {
		r.Why = err.Error()
	}
	if perr := out.Result(r, func(w io.Writer) {
		if err == nil {
			fmt.Fprintf(w, "upgraded to %s in %.1f s\n", name, r.Seconds)
		}
	}); perr != nil {
		return perr
	}
	return err
}
