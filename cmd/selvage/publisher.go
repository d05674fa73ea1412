package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/selvage-edge/selvage/control/identity"
)

type publisherFlags struct {
	project, name, rootKey, out string
	life                        time.Duration
}

func publisherCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "publisher", Short: "publisher keys: who may deploy for a project"}
	c.RunE = onlySubcommands
	var f publisherFlags
	add := &cobra.Command{
		Use:   "add",
		Short: "make a publisher key for a project",
		Long: `Makes a key with which bundles of one project are signed, has the root key
delegate it, and tells the fleet. Run it where the root key is; the new key's
file belongs where the publisher works ('publisher' in its target file).`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runPublisherAdd(c.Context(), o, f) },
	}
	fl := add.Flags()
	fl.StringVar(&f.project, "project", "", "the project (required)")
	fl.StringVar(&f.name, "name", "first", "whose key it is")
	fl.StringVar(&f.rootKey, "root-key", "", "the root key's file (required)")
	fl.StringVarP(&f.out, "output", "o", "", "where the new key goes (required); must not be there yet")
	fl.DurationVar(&f.life, "life", 365*24*time.Hour, "how long it may sign")
	for _, name := range []string{"project", "root-key", "output"} {
		if err := add.MarkFlagRequired(name); err != nil {
			panic(err) // a flag that was just defined
		}
	}
	c.AddCommand(add)
	return c
}

func runPublisherAdd(ctx context.Context, o *options, f publisherFlags) error {
	t, err := o.find()
	if err != nil {
		return err
	}
	c, err := dialAPI(t)
	if err != nil {
		return err
	}
	defer c.Close()
	root, err := identity.LoadRootKey(f.rootKey, askPassphrase)
	if err != nil {
		return err
	}
	if string(root.ID()) != t.Root {
		return usagef("%s holds the root key %s, but the fleet's is %s", f.rootKey, root.ID(), t.Root)
	}
	if _, err := os.Lstat(f.out); err == nil {
		return usagef("%s is there already; name another file", f.out)
	}
	fleet, err := c.Fleet(ctx)
	if err != nil {
		return err
	}
	key, err := identity.NewSigner()
	if err != nil {
		return err
	}
	now := time.Now()
	d, err := root.Delegate(identity.Delegation{Fleet: fleet.Fleet, Purpose: identity.PurposePublisher, Project: f.project,
		Subject: f.name, PublicKey: key.PublicKey(), NotAfter: now.Add(f.life)}, now)
	if err != nil {
		return usageError{err}
	}
	if err := key.Save(f.out); err != nil {
		return err
	}
	trust, err := c.Trust(ctx)
	if err != nil {
		return err
	}
	if err := c.PutTrust(ctx, trust.With([]identity.Envelope{d}, nil)); err != nil {
		return errors.Join(err, os.Remove(f.out))
	}
	res := struct {
		Project string         `json:"project"`
		Key     identity.KeyID `json:"key"`
		File    string         `json:"file"`
	}{f.project, key.ID(), f.out}
	return o.out().Result(res, func(w io.Writer) {
		fmt.Fprintf(w, "%s may sign for project %s; its file is %s\n", res.Key, res.Project, res.File)
	})
}

// askPassphrase gives the root key's passphrase, from the environment or the terminal.
func askPassphrase() ([]byte, error) {
	if env := os.Getenv("SELVAGE_ROOT_PASSPHRASE"); env != "" {
		return []byte(env), nil
	}
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, usagef("the root key is under a passphrase: run this at a terminal, or set $SELVAGE_ROOT_PASSPHRASE")
	}
	fmt.Fprint(os.Stderr, "passphrase of the root key: ")
	p, err := term.ReadPassword(fd)
	fmt.Fprintln(os.Stderr)
	return p, err
}
