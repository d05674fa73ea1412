package main

import (
	"context"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// listFlags are kv ls's.
type listFlags struct {
	prefix   string
	limit    int
	keysOnly bool
	metadata bool
}

func kvList(o *options, f *project) *cobra.Command {
	var l listFlags
	c := &cobra.Command{
		Use: "ls [NAMESPACE]", Aliases: []string{"list"}, Short: "list namespaces, or a namespace's keys with revision and expiry", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if l.limit < 1 {
				return usagef("--limit %d: want 1 or more", l.limit)
			}
			return f.with(o, func(c *client.Client, project string) error {
				if len(args) == 0 {
					return listNamespaces(cmd.Context(), o, c, project)
				}
				return listKeys(cmd.Context(), o, c, project, args[0], l)
			})
		},
	}
	c.Flags().StringVar(&l.prefix, "prefix", "", "only keys that begin with this")
	c.Flags().IntVar(&l.limit, "limit", 10_000, "at most so many keys")
	c.Flags().BoolVar(&l.keysOnly, "keys-only", false, "nothing but keys, one a line, quoted where they are no text; --json has everything anyhow")
	c.Flags().BoolVar(&l.metadata, "metadata", false, "with the metadata")
	c.MarkFlagsMutuallyExclusive("keys-only", "metadata")
	return c
}

func listNamespaces(ctx context.Context, o *options, c *client.Client, project string) error {
	all, err := c.Namespaces(ctx, project)
	if err != nil {
		return err
	}
	return o.out().Result(all, func(w io.Writer) {
		var rows [][]string
		for _, n := range all {
			rows = append(rows, []string{n.Name, string(n.Mode), staleBound(n.MaxStaleMS)})
		}
		term.Table(w, []string{"NAMESPACE", "MODE", "MAX STALE"}, rows)
	})
}

func listKeys(ctx context.Context, o *options, c *client.Client, project, ns string, l listFlags) error {
	keys := []api.Key{}
	var cursor []byte
	for {
		page, err := c.List(ctx, project, ns, l.prefix, cursor, min(l.limit-len(keys), hostcall.MaxListKeys))
		if err != nil {
			return err
		}
		keys = append(keys, page.Keys...)
		if cursor = page.Next; len(cursor) == 0 || len(keys) >= l.limit {
			break
		}
	}
	shown := make([]shownKey, len(keys))
	for i, k := range keys {
		shown[i] = showKey(k)
	}
	return o.out().Result(shown, func(w io.Writer) { l.print(w, keys) })
}

// shownKey is a key as kv ls --json prints it: its fields are those of kv get.
type shownKey struct {
	Key            string     `json:"key,omitempty"`
	KeyBase64      []byte     `json:"key_base64"`
	Metadata       *string    `json:"metadata,omitempty"`
	MetadataBase64 []byte     `json:"metadata_base64,omitempty"`
	Revision       uint64     `json:"revision"`
	Expires        *time.Time `json:"expires,omitempty"`
}

func showKey(k api.Key) shownKey {
	s := shownKey{KeyBase64: k.Key, Revision: k.Revision}
	if utf8.Valid(k.Key) {
		s.Key = string(k.Key)
	}
	if len(k.Metadata) > 0 {
		s.Metadata, s.MetadataBase64 = text(k.Metadata), k.Metadata
	}
	if !k.Expires.IsZero() {
		s.Expires = &k.Expires
	}
	return s
}

func (l listFlags) print(w io.Writer, keys []api.Key) {
	if l.keysOnly {
		for _, k := range keys {
			_, _ = io.WriteString(w, term.Plain(keyText(k.Key))+"\n") // memory: it does not fail
		}
		return
	}
	headings := []string{"KEY", "REVISION", "EXPIRES"}
	if l.metadata {
		headings = append(headings, "METADATA")
	}
	var rows [][]string
	for _, k := range keys {
		row := []string{keyText(k.Key), strconv.FormatUint(k.Revision, 10), ""}
		if !k.Expires.IsZero() {
			row[2] = k.Expires.Format(time.RFC3339)
		}
		if l.metadata {
			row = append(row, cell(k.Metadata))
		}
		rows = append(rows, row)
	}
	term.Table(w, headings, rows)
}
