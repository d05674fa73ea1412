package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/identity"
)

func tokenCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "API tokens: make, list, revoke",
		Long: `API tokens let people and programs speak to the fleet ('token' in a target file,
or $SELVAGE_TOKEN). A token has a scope: read, deploy (which includes read) or
admin (which includes both), in one project or in the whole fleet.`,
	}
	c.RunE = onlySubcommands
	c.AddCommand(tokenCreate(o), tokenList(o), tokenRevoke(o))
	return c
}

// onFleet runs do with a client of the target's fleet.
func onFleet(o *options, do func(c *client.Client) error) error {
	return new(project).with(o, func(c *client.Client, _ string) error { return do(c) })
}

func tokenCreate(o *options) *cobra.Command {
	var r api.TokenRequest
	var scope string
	var life time.Duration
	c := &cobra.Command{
		Use:   "create",
		Short: "make a token and print it: it is shown this once",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if life <= 0 || life > identity.MaxTokenLife {
				return usagef("--life %v: want more than nothing and at most %v", life, identity.MaxTokenLife)
			}
			// One minute less than asked for at the most: the fleet's clock may be behind this one.
			r.Scopes, r.Expires = []identity.Scope{identity.Scope(scope)}, time.Now().Add(min(life, identity.MaxTokenLife-time.Minute))
			return onFleet(o, func(c *client.Client) error {
				made, err := c.CreateToken(cmd.Context(), r)
				if err != nil {
					return err
				}
				return o.out().Result(made, func(w io.Writer) { fmt.Fprintln(w, made.Token) })
			})
		},
	}
	c.Flags().StringVar(&scope, "scope", string(identity.ScopeRead), "read, deploy or admin")
	c.Flags().StringVar(&r.Project, "project", "", "the only project it is good for; empty: the whole fleet")
	c.Flags().StringVar(&r.Note, "note", "", "what it is for")
	c.Flags().DurationVar(&life, "life", 30*24*time.Hour, "how long it is good for, at most 2160h")
	return c
}

func tokenList(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "list the tokens, without their secrets", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return onFleet(o, func(c *client.Client) error {
				all, err := c.Tokens(cmd.Context())
				if err != nil {
					return err
				}
				return o.out().Result(all, func(w io.Writer) { printTokens(w, all) })
			})
		},
	}
}

func printTokens(w io.Writer, all []api.TokenInfo) {
	var rows [][]string
	for _, t := range all {
		scopes := make([]string, len(t.Scopes))
		for i, s := range t.Scopes {
			scopes[i] = string(s)
		}
		in := t.Project
		if in == "" {
			in = "(fleet)"
		}
		rows = append(rows, []string{t.ID, strings.Join(scopes, ","), in, t.Created.Format(time.RFC3339), t.Expires.Format(time.RFC3339), t.Note})
	}
	term.Table(w, []string{"ID", "SCOPES", "PROJECT", "CREATED", "EXPIRES", "NOTE"}, rows)
}

func tokenRevoke(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "end a token at once; 'selvage token ls' names the IDs", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onFleet(o, func(c *client.Client) error {
				if err := c.RevokeToken(cmd.Context(), args[0]); err != nil {
					return err
				}
				v := struct {
					ID      string `json:"id"`
					Revoked bool   `json:"revoked"`
				}{args[0], true}
				return o.out().Result(v, func(w io.Writer) { fmt.Fprintf(w, "%s is revoked\n", v.ID) })
			})
		},
	}
}
