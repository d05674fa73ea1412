package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/cmd/selvage/controlnode"
	"github.com/selvage-edge/selvage/cmd/selvage/node"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/guest"
)

func referenceCommand(_ *options) *cobra.Command {
	return &cobra.Command{
		Use:   "reference",
		Short: "print the reference: commands, manifest, configuration, limits, API",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return writeReference(os.Stdout, c.Root()) },
	}
}

// writeReference writes everything there is to look up, read from the code itself.
func writeReference(w io.Writer, root *cobra.Command) error {
	fmt.Fprint(w, "# Reference\n\nWritten by `selvage reference` (`make reference`); a test keeps it true.\n\n## Commands\n")
	writeCommands(w, root)
	fmt.Fprint(w, "\n## Exit codes\n\n")
	writeExitCodes(w)
	fmt.Fprint(w, "\n## Manifest: selvage.toml\n\n")
	bundle.WriteReference(w)
	fmt.Fprint(w, "\n## Limits\n\n")
	bundle.WriteLimits(w)
	fmt.Fprint(w, "\n## Faults\n\nWhat a function can fail with. The function's log says it with the limit and the key that changes it; so do the access\n"+
		"record (`fault`, `fault_limit`, `fault_knob`) and the metric `selvage_faults_total`. The client sees the status, or, when\nthe answer had begun, a response that breaks off. A table.grow beyond the limit is answered with -1, as WebAssembly has it, and is\nno fault: what a function that did not expect it does next shows as `trap`, or as `table`.\n\n")
	bundle.WriteFaults(w)
	fmt.Fprintf(w, "\nOf a stack dump on a function's standard error, as Go's runtime writes one of all goroutines when memory runs out, the log keeps %d lines.\n", guest.DumpLines)
	fmt.Fprint(w, "\n## Refusals\n\nCalls that the node refuses and the function survives: it reads a status below zero, in Go an error. The function's log says it\n"+
		"once a request; the access record (`refused_calls`) and the metric `selvage_refused_calls_total` count them.\n\n")
	bundle.WriteRefusals(w)
	fmt.Fprint(w, "\n## At the door\n\nWhat a client may do, whatever function it asks for. What is answered is counted in `selvage_refused_total` by its reason or in\n"+
		"`selvage_faults_total`; what is closed, in the metric that is named.\n\n")
	writeDoor(w)
	fmt.Fprint(w, "\n## Following logs\n\nWhat `selvage logs` may take of a control node and of nodes.\n\n")
	writeFollowing(w)
	fmt.Fprint(w, "\n## Configuration of an edge node: selvage edge --config FILE\n\n")
	config.WriteReference(w, config.DefaultEdge())
	fmt.Fprint(w, "\n## Configuration of a control node: selvage control --config FILE\n\n")
	config.WriteReference(w, config.DefaultControl())
	fmt.Fprint(w, "\n## Configuration of a name server: selvage dns --config FILE\n\n")
	config.WriteReference(w, config.DefaultNameServer())
	fmt.Fprint(w, "\n## Metrics\n\nServed at /metrics of each admin port, for Prometheus, beside those of the Go runtime (`go_`) and the process (`process_`).\nFunctions beyond the first 2,000 share the name `other`.\n\n### Of an edge node\n\n")
	telemetry.WriteMetrics(w, node.Metrics())
	fmt.Fprint(w, "\n### Of a control node\n\n")
	telemetry.WriteMetrics(w, controlnode.Metrics())
	fmt.Fprint(w, "\n## HTTP API\n\nServed by the control node; the OpenAPI document is at /v1/openapi.json.\n\n")
	api.WriteReference(w)
	return nil
}

func writeExitCodes(w io.Writer) {
	fmt.Fprint(w, "| code | what it means |\n|---|---|\n")
	for _, row := range []struct {
		code int
		what string
	}{
		{exitOK, "it is done"},
		{exitFailed, "it was tried and failed"},
		{exitUsage, "the command's words are off: nothing was tried"},
		{exitReach, "the fleet cannot be reached, or did not answer in time"},
		{exitRefused, "the fleet refused: the right is missing, the input is off, or what was named (a function, a release, a PoP, a namespace, a key) is not there"},
	} {
		fmt.Fprintf(w, "| %d | %s |\n", row.code, row.what)
	}
	fmt.Fprint(w, "\nErrors go to standard error. With `--json` an error is one object, on a line, the last there: `error` is the text, `code` the exit code,\n"+
		"`message` what happened and `hint`, where it is told apart, what to do next; `problem`, if the fleet refused, the stable name of why (`not-found`, `route-taken`);\n"+
		"`path` and `line` where a file is at fault, and `faults` each fault of a manifest (`line`, `column`, `key`, `message`). Results go to standard output.\n")
}

func writeCommands(w io.Writer, c *cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.Hidden || !sub.IsAvailableCommand() || sub.Name() == "help" || sub.Name() == "completion" {
			continue
		}
		fmt.Fprintf(w, "\n### %s\n\n%s\n", sub.CommandPath(), strings.TrimSpace(firstOf(sub.Long, sub.Short)))
		var flags []string
		sub.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" {
				return
			}
			def := ""
			if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" {
				def = " (default " + f.DefValue + ")"
			}
			flags = append(flags, fmt.Sprintf("- `--%s`: %s%s", f.Name, f.Usage, def))
		})
		fmt.Fprintf(w, "\n    %s\n", sub.UseLine())
		if len(flags) > 0 {
			fmt.Fprintf(w, "\n%s\n", strings.Join(flags, "\n"))
		}
		writeCommands(w, sub)
	}
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
