package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/control/logs"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/fault"
)

type logFlags struct {
	project
	logs.Query
	kind    string
	fleet   bool
	symbols string // path
}

func logsCommand(o *options) *cobra.Command {
	var f logFlags
	c := &cobra.Command{
		Use:   "logs [FUNCTION]",
		Short: "functions' logs and access records of all PoPs, merged",
		Long: `Shows what functions logged, and a line for each request, of all PoPs in the order
of their times: the last ten minutes (--since), or with -f what comes from now on.
Nodes keep the newest lines in memory, a share for each function. Lines that come
faster than they can be read are dropped, and how many is shown; no request ever
waits for its log. --json prints a JSON object a line.

A fault shows the functions it happened in. --symbols adds file and line to them: give
it the function's bundle (selvage build makes the same one again from the same source),
whose version alone is looked at, or its module. Go's modules have what it takes;
others need DWARF (-g), which stays in the bundle and never goes to nodes.`,
		Example: `  selvage logs -f greeter
  selvage logs --since 1h --level warn
  selvage logs --request 5f0c6f...          everything about one request (Selvage-Request-Id)
  selvage logs --symbols greeter/greeter.bundle greeter
  selvage logs -f --fleet --kind access     also requests that no function answered`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f.Function, f.Kind = strings.Join(args, ""), telemetry.Kind(f.kind)
			if f.Follow && !c.Flags().Changed("since") {
				f.Since = 0
			}
			if err := f.Validate(); err != nil {
				return usageError{err}
			}
			if f.fleet && f.project.project != "" {
				return usagef("--fleet and --project: want one of them")
			}
			return runLogs(c.Context(), o, &f)
		},
	}
	fl := c.Flags()
	f.flag(fl)
	fl.BoolVarP(&f.Follow, "follow", "f", false, "go on with what comes")
	fl.StringVar(&f.PoP, "pop", "", "only this PoP's nodes")
	fl.StringVar(&f.Level, "level", "", "this and above: debug, info, warn or error (failed requests are warn)")
	fl.DurationVar(&f.Since, "since", 10*time.Minute, "how far back")
	fl.IntVar(&f.Tail, "tail", 1000, "the newest of those lines, at most")
	fl.StringVar(&f.Request, "request", "", "only the request with this ID")
	fl.StringVar(&f.kind, "kind", "", "function or access (default both)")
	fl.StringVar(&f.symbols, "symbols", "", "bundle or module of the function: names the lines of its source; not with --json")
	fl.BoolVar(&f.fleet, "fleet", false, "of all projects, and requests that reached no function")
	return c
}

func runLogs(ctx context.Context, o *options, f *logFlags) error {
	if o.json && f.symbols != "" {
		return usagef("--symbols and --json: want one of them")
	}
	lines, err := openSymbols(f.symbols)
	if err != nil {
		return err
	}
	return f.with(o, func(c *client.Client, project string) error {
		if f.fleet {
			project = ""
		} else if err := known(ctx, c, project, f.Function); err != nil {
			return err
		}
		return c.Logs(ctx, project, f.Query, func(l telemetry.Line, raw []byte) error {
			if o.json {
				_, err := fmt.Fprintf(os.Stdout, "%s\n", raw)
				return err
			}
			lines.annotate(&l)
			return printLine(os.Stdout, &l)
		})
	})
}

// known fails if the project never had the function; without a name there is nothing to know.
func known(ctx context.Context, c *client.Client, project, name string) error {
	if name == "" {
		return nil
	}
	if _, err := c.Releases(ctx, project, name); err != nil {
		return fmt.Errorf("logs of %s: %w", name, err)
	}
	return nil
}

// printLine writes a line for people: when, where, who, and what.
func printLine(w io.Writer, l *telemetry.Line) error {
	who := l.Function
	if l.Project != "" && l.Project != "default" {
		who = l.Project + "/" + who
	}
	what := paragraph(l.Text)
	switch l.Kind {
	case telemetry.KindAccess:
		what = exchangeText(l)
	case telemetry.KindDropped:
		what = fmt.Sprintf("-- %d lines dropped: %s", l.Dropped, term.Plain(l.Text))
	case telemetry.KindNote:
		what = "-- " + what
	case telemetry.KindFunction:
		if l.Level != slog.LevelInfo {
			what = l.Level.String() + " " + what
		}
	}
	_, err := fmt.Fprintf(w, "%s %-8s %-12s %s\n", l.Time.Local().Format("15:04:05.000"), term.Plain(l.Node), term.Plain(who), what)
	return err
}

// paragraph is Plain text of several lines, all but the first indented.
func paragraph(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i := range lines {
		lines[i] = term.Plain(lines[i])
	}
	return strings.Join(lines, "\n    ")
}

// exchangeText is an access record in a line; the function's log has the rest of a fault.
func exchangeText(l *telemetry.Line) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s%s %d %s", l.Method, l.Host, l.Path, l.Status, time.Duration(l.DurationUS)*time.Microsecond)
	if l.MemoryBytes > 0 {
		fmt.Fprintf(&b, " cpu %s mem %.1fM", time.Duration(l.CPUUS)*time.Microsecond, float64(l.MemoryBytes)/(1<<20))
	}
	if l.Refused != "" {
		fmt.Fprintf(&b, " refused: %s", l.Refused)
	}
	if l.Fault != "" {
		first, frames, _ := strings.Cut(l.FaultError, "\n")
		if frames != "" { // they are lines of the function's own, with this request's ID
			first = strings.TrimSuffix(first, ": "+fault.StoppedIn)
		}
		fmt.Fprintf(&b, " FAULT %s", first)
	}
	fmt.Fprintf(&b, " %s", l.RequestID)
	return term.Plain(b.String())
}
