package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/edge/keeper"
)

func edgeUpgradeCommand(o *options) *cobra.Command {
	var file, binary string
	var wait bool
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "replace a running node's program without losing a request",
		Long: `Starts a new server beside the one that serves, on the node with this
configuration file, and waits for what comes of it. The new server loads routes and
functions before it takes new work; the old one finishes its own. Then the keeper
replaces itself, in place. If the new server does not come to serve, the old one
serves on, and this command fails. The configuration is read again as well;
addresses under listen are the keeper's, and take the node's stop and start.

Without --binary the program is the one that is installed where the node was
started from. A program is replaced by renaming another over it, never by writing
into it. While another upgrade is under way none is begun, and how far that one is
is said; --wait stays until it is over, and then begins. Run it on the node's machine, as root or as the node's user.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runUpgrade(c.Context(), o, file, binary, wait) },
	}
	c.Flags().StringVar(&file, "config", "edge.toml", "the node's configuration file")
	c.Flags().StringVar(&binary, "binary", "", "the new program; outside the node's state folder")
	c.Flags().BoolVar(&wait, "wait", false, "if another upgrade is under way, wait until it is over, then begin")
	return c
}

// upgraded is the result as JSON.
type upgraded struct {
	Upgraded bool    `json:"upgraded"`
	Program  string  `json:"program,omitempty"`
	Seconds  float64 `json:"seconds"`
	Why      string  `json:"why,omitempty"`
}

func runUpgrade(ctx context.Context, o *options, file, binary string, wait bool) error {
	cfg, err := config.LoadEdge(file)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w; name the node's configuration file with --config", err)
		}
		return usageError{err}
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
	say := func(what any) { out.Progress("%5.1f s  %v", time.Since(begin).Seconds(), what) }
	name, err := untilBegun(ctx, wait, say, func() (string, error) {
		return keeper.Ask(ctx, cfg.Node.State, program, func(s keeper.Stage) { say(s) })
	})
	if errors.Is(err, keeper.ErrBusy) {
		err = fmt.Errorf("%w\n--wait waits until it is over and then upgrades; the node's log says what comes of it", err)
	}
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

// between is how long it is waited before a keeper that is busy is asked again,
// and how often it is said how far it is meanwhile.
const (
	between = time.Second
	sayFar  = 10 * time.Second
)

// untilBegun asks once; with wait, again until no other upgrade is under way.
func untilBegun(ctx context.Context, wait bool, say func(what any), ask func() (string, error)) (string, error) {
	var said time.Time
	for {
		name, err := ask()
		if !wait || !errors.Is(err, keeper.ErrBusy) {
			return name, err
		}
		if time.Since(said) >= sayFar {
			say(err)
			said = time.Now()
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(between):
		}
	}
}
