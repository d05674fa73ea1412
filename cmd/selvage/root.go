package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/target"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/runtime/nearest"
)

// errSaid is a failure that was already told in the command's own output.
var errSaid = errors.New("failed")

// usageError is a call whose words are off.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// missingError is a thing that was named and is not there.
type missingError struct{ error }

// Refused makes it end as if the fleet had said so.
func (missingError) Refused() bool { return true }

func missingf(format string, args ...any) error { return missingError{fmt.Errorf(format, args...)} }

// options are the flags every command has.
type options struct {
	json   bool
	target string
	ran    bool // a command's own work began: the words were understood
}

func (o *options) out() *term.Out               { return term.New(o.json) }
func (o *options) find() (target.Target, error) { return target.Find(o.target) }

// run is the whole program: it returns its exit code and what is left to say.
func run(ctx context.Context) (int, error) {
	var o options
	err := newRoot(&o).ExecuteContext(ctx)
	if err != nil && !o.ran {
		err = usageError{err}
	}
	return exitCode(err), err
}

func newRoot(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:   "selvage",
		Short: "WebAssembly functions on the nodes of a CDN",
		Long: `Selvage runs WebAssembly functions on the nodes of a CDN: deploy a bundle once,
and every point of presence fetches, verifies, compiles and serves it.

Try it on this machine:
  selvage up                     a control node and three PoPs on loopback
  selvage init hello             a function to begin with
  selvage deploy --wait hello    live on every PoP, a line for each
  selvage request --pop lon https://hello.edge.localhost:8443/

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the fleet cannot be reached, 4 the
fleet refused, or what was named (a function, a PoP, a key) is not there.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().BoolVar(&o.json, "json", false, "print results as JSON, and an error as one object on the last line of standard error")
	root.PersistentFlags().StringVar(&o.target, "target", "", "file that names the fleet (otherwise $SELVAGE_TARGET, .selvage/target.toml here or above, ~/.config/selvage/target.toml)")
	root.AddGroup(&cobra.Group{ID: "dev", Title: "For those who write functions:"}, &cobra.Group{ID: "ops", Title: "For those who run the fleet:"})
	for _, c := range []*cobra.Command{initCommand(o), devCommand(o), buildCommand(o), deployCommand(o), rollbackCommand(o), versionsCommand(o), logsCommand(o), removeCommand(o), statusCommand(o), kvCommand(o), requestCommand(o)} {
		c.GroupID = "dev"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{upCommand(o), controlCommand(o), edgeCommand(o), dnsCommand(o), geoCommand(o), auditCommand(o), drainCommand(o), undrainCommand(o), doctorCommand(o), supportCommand(o), joinTokenCommand(o), tokenCommand(o), publisherCommand(o), referenceCommand(o)} {
		c.GroupID = "ops"
		root.AddCommand(c)
	}
	root.AddCommand(serverCommand(o))
	root.SetFlagErrorFunc(flagError)
	o.watch(root)
	return root
}

// onlySubcommands is the work of a command that only groups others.
func onlySubcommands(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	var known []string
	for _, sub := range c.Commands() {
		known = append(append(known, sub.Name()), sub.Aliases...)
	}
	return usagef("unknown command %q for %q; %ssee '%s --help'", args[0], c.CommandPath(), nearest.Hint(args[0], known), c.CommandPath())
}

// watch notes when a command's own work begins, and makes wrong arguments say
// where to look, on c and every command below it.
func (o *options) watch(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if check(c, args) == nil {
				return nil
			}
			return wrongArguments(c.CommandPath(), c.Use, args)
		}
	}
	if work := c.RunE; work != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			o.ran = true
			return work(c, args)
		}
	}
	for _, sub := range c.Commands() {
		o.watch(sub)
	}
}

// wrongArguments says which argument of a command's Use is missing, or which is one too many.
func wrongArguments(path, use string, args []string) error {
	want := strings.Fields(use)[1:]
	var missing []string
	for _, name := range want[min(len(args), len(want)):] {
		if !strings.HasPrefix(name, "[") {
			missing = append(missing, name)
		}
	}
	what := strings.Join(missing, " and ") + " is missing"
	switch {
	case len(missing) > 1:
		what = strings.Join(missing, " and ") + " are missing"
	case len(missing) == 0:
		what = fmt.Sprintf("%q is one argument too many", args[min(len(want), len(args)-1)])
	}
	return usagef("%s\nusage: %s\nsee '%s --help'", what, strings.Join(append([]string{path}, want...), " "), path)
}

func exitCode(err error) int {
	var usage usageError
	var refused interface{ Refused() bool }
	var network *net.OpError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &refused) && refused.Refused():
		return exitRefused
	case errors.As(err, &network), request.NoAnswer(err), errors.Is(err, client.ErrUnreachable), errors.Is(err, client.ErrSilent), errors.Is(err, target.ErrNone):
		return exitReach
	default:
		return exitFailed
	}
}
