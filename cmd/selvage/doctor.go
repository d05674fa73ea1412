package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/cmd/selvage/doctor"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
)

func doctorCommand(o *options) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "look at this machine, and a node's configuration: what is missing, what to do",
		Long: `Looks at what nodes need of this machine: kernel features, limits, jails, clock,
network; with --config also at a node's ports, certificates and folder. Each line
says what was found; one that is not ok, what it means and what to do about it. It
changes nothing. It exits with 1 if something fails.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := examine(c.Context(), o, file)
			if err != nil {
				return err
			}
			if err := o.out().Result(all, func(w io.Writer) { printFindings(w, all) }); err != nil {
				return err
			}
			if doctor.Worst(all) == doctor.Fail {
				return errSaid
			}
			return nil
		},
	}
	c.Flags().StringVar(&file, "config", "", "an edge or control node's configuration file")
	return c
}

// examine runs the doctor on the machine, the file, and the fleet if one is found.
func examine(ctx context.Context, o *options, file string) ([]doctor.Finding, error) {
	var d doctor.Options
	if file != "" {
		edge, edgeErr := config.LoadEdge(file)
		control, controlErr := config.LoadControl(file)
		switch {
		case edgeErr == nil:
			d.Edge = &edge
		case controlErr == nil:
			d.Control = &control
		case errors.Is(edgeErr, fs.ErrNotExist), errors.Is(edgeErr, fs.ErrPermission):
			return nil, usageError{edgeErr}
		default:
			return nil, usageError{errors.Join(fmt.Errorf("%s is neither an edge node's nor a control node's", file), edgeErr, controlErr)}
		}
	}
	if t, err := o.find(); err == nil {
		d.ControlTime = func() (time.Time, error) {
			c, err := dialAPI(t)
			if err != nil {
				return time.Time{}, err
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			return c.Time(ctx)
		}
	}
	return doctor.Examine(d), nil
}

func printFindings(w io.Writer, all []doctor.Finding) {
	count := map[doctor.Level]int{}
	for _, f := range all {
		count[f.Level]++
		fmt.Fprintf(w, "%-4s  %s: %s\n", f.Level, f.Name, term.Plain(f.Found))
		if f.Means != "" {
			fmt.Fprintf(w, "      means: %s\n", term.Plain(f.Means))
		}
		if f.Remedy != "" {
			fmt.Fprintf(w, "      do: %s\n", term.Plain(f.Remedy))
		}
	}
	fmt.Fprintf(w, "\n%d ok, %d warn, %d fail\n", count[doctor.OK], count[doctor.Warn], count[doctor.Fail])
}
