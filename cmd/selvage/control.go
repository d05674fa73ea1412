package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/cmd/selvage/controlnode"
	"github.com/selvage-edge/selvage/cmd/selvage/target"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/identity"
)

func controlCommand(o *options) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "control",
		Short: "a control node: API, durable store, catalog, signing",
		Long: `Runs a control node. 'selvage control init' makes its keys first. SIGTERM ends
it; nodes serve on meanwhile.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.LoadControl(file)
			if err != nil {
				return usageError{err}
			}
			return controlnode.Run(c.Context(), cfg, version, "control", "lend", "--config", file)
		},
	}
	c.PersistentFlags().StringVar(&file, "config", "control.toml", "configuration file")
	c.AddCommand(controlInitCommand(o, &file), controlEpochCommand(o, &file), controlLendCommand(&file))
	return c
}

// controlLendCommand is what a control node starts; nobody else does.
func controlLendCommand(file *string) *cobra.Command {
	return &cobra.Command{
		Use:    "lend",
		Short:  "the process that runs a control node's helpers; started by 'selvage control'",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := config.LoadControl(*file)
			if err != nil {
				return usageError{err}
			}
			return controlnode.Lend(cfg)
		},
	}
}

func controlEpochCommand(o *options, file *string) *cobra.Command {
	return &cobra.Command{
		Use:   "new-epoch",
		Short: "after the store was restored from a backup: make every node follow from the beginning",
		Long: `Begins a new epoch of the store. Run it after the state folder was restored from
a backup or its disk went back in time, before the control node is started: it
hands out revisions again that nodes have seen, and only the epoch tells the two apart.
The control node must not be running.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.LoadControl(*file)
			if err != nil {
				return usageError{err}
			}
			n, err := controlnode.NewEpoch(c.Context(), cfg)
			if err != nil {
				return err
			}
			res := struct {
				Epoch uint64 `json:"epoch"`
			}{n}
			return o.out().Result(res, func(w io.Writer) { fmt.Fprintf(w, "epoch %d\n", n) })
		},
	}
}

type initFlags struct {
	fleet, project string
	noPassphrase   bool
}

// initResult is the --json form; the token is shown here and nowhere else.
type initResult struct {
	Root         identity.KeyID `json:"root"`
	RootKeyFile  string         `json:"root_key_file"`
	PublisherKey string         `json:"publisher_key"`
	Target       string         `json:"target"`
}

func controlInitCommand(o *options, file *string) *cobra.Command {
	var f initFlags
	c := &cobra.Command{
		Use:   "init",
		Short: "make a fleet's keys: root, CA, catalog, change log, the first publisher and token",
		Long: `Makes a fleet's identity in the state folder that the configuration names, and a
target file with the first admin token for the other commands.

The root key signs short delegations and is needed for nothing else: move its
file to a safe place afterwards. It is kept under a passphrase, asked for here
or taken from $SELVAGE_ROOT_PASSPHRASE; --no-passphrase leaves it plain (for trying).`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return runControlInit(o, *file, f) },
	}
	c.Flags().StringVar(&f.fleet, "fleet", "selvage", "the fleet's name")
	c.Flags().StringVar(&f.project, "project", "default", "the first project")
	c.Flags().BoolVar(&f.noPassphrase, "no-passphrase", false, "leave the root key unprotected but for its file mode")
	return c
}

func runControlInit(o *options, file string, f initFlags) error {
	cfg, err := config.LoadControl(file)
	if err != nil {
		return usageError{err}
	}
	pass, err := f.passphrase()
	if err != nil {
		return err
	}
	_, made, err := identity.Init(filepath.Join(cfg.Control.State, controlnode.IdentityDir), identity.InitOptions{
		Fleet: f.fleet, Name: cfg.Control.Name, Project: f.project, Passphrase: pass})
	if err != nil {
		return err
	}
	t := target.Target{
		Control: []string{"https://" + config.Reach(cfg.Listen.API, cfg.Listen.Advertise)},
		Root:    string(made.Root), Token: made.AdminToken, Project: f.project, Publisher: made.PublisherKey,
	}
	path := filepath.Join(cfg.Control.State, "target.toml")
	if err := t.Save(path); err != nil {
		return err
	}
	res := initResult{Root: made.Root, RootKeyFile: made.RootKeyFile, PublisherKey: made.PublisherKey, Target: path}
	return o.out().Result(res, func(w io.Writer) {
		fmt.Fprintf(w, `root key       %s
               in %s
               move it to a safe place: it is needed only to delegate and to revoke
publisher key  %s
target         %s (holds the admin token; mode 0600)

next: selvage control --config %s
then: selvage --target %s join-token
`, res.Root, res.RootKeyFile, res.PublisherKey, res.Target, file, res.Target)
	})
}

// passphrase asks for the root key's; nil for none.
func (f initFlags) passphrase() ([]byte, error) {
	if f.noPassphrase {
		return nil, nil
	}
	if env := os.Getenv("SELVAGE_ROOT_PASSPHRASE"); env != "" {
		return []byte(env), nil
	}
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, usagef("the root key wants a passphrase: run this at a terminal, set $SELVAGE_ROOT_PASSPHRASE, or give --no-passphrase")
	}
	fmt.Fprint(os.Stderr, "passphrase for the root key: ")
	first, err := term.ReadPassword(fd)
	fmt.Fprint(os.Stderr, "\nagain: ")
	second, err2 := term.ReadPassword(fd)
	fmt.Fprintln(os.Stderr)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	if len(first) == 0 || string(first) != string(second) {
		return nil, usagef("the passphrases differ, or are empty")
	}
	return first, nil
}

func joinTokenCommand(o *options) *cobra.Command {
	var r api.JoinTokenRequest
	var ttl time.Duration
	c := &cobra.Command{
		Use:   "join-token",
		Short: "make a one-time token with which a node joins the fleet",
		Long: `Makes a token that lets one edge node join once: give it to the node as
$SELVAGE_JOIN_TOKEN. It carries the control node's address, a secret and the
root key's fingerprint, by which the node checks everything it is told.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r.TTL = ttl.String()
			return runJoinToken(c.Context(), o, r)
		},
	}
	c.Flags().StringVar(&r.PoP, "pop", "", "only for a node of this PoP")
	c.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it may be used")
	return c
}

func runJoinToken(ctx context.Context, o *options, r api.JoinTokenRequest) error {
	t, err := o.find()
	if err != nil {
		return err
	}
	c, err := dialAPI(t)
	if err != nil {
		return err
	}
	defer c.Close()
	made, err := c.JoinToken(ctx, r)
	if err != nil {
		return err
	}
	return o.out().Result(made, func(w io.Writer) { fmt.Fprintln(w, made.Token) })
}
