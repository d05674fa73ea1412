package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

func kvCommand(o *options) *cobra.Command {
	var f project
	c := &cobra.Command{
		Use:   "kv",
		Short: "read and write KV namespaces at the truth",
		Long: `Reads and writes KV at the control node: a write is on disk before it is
acknowledged, and every PoP forgets its old value the moment the change reaches it.`,
	}
	c.RunE = onlySubcommands
	f.flag(c.PersistentFlags())
	c.AddCommand(kvGet(o, &f), kvPut(o, &f), kvRemove(o, &f), kvList(o, &f), kvCreate(o, &f))
	return c
}

func kvGet(o *options, f *project) *cobra.Command {
	return &cobra.Command{
		Use: "get NAMESPACE KEY", Short: "print a value", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(o, func(c *client.Client, project string) error {
				e, err := c.Get(cmd.Context(), project, args[0], args[1])
				if err != nil {
					return err
				}
				v := struct {
					Key      string     `json:"key"`
					Value    []byte     `json:"value_base64"`
					Revision uint64     `json:"revision"`
					Expires  *time.Time `json:"expires,omitempty"`
				}{args[1], e.Value, e.Revision, nil}
				if !e.Expires.IsZero() {
					v.Expires = &e.Expires
				}
				out := o.out()
				if !out.JSON && !term.IsTerminal(out.Stdout) {
					_, err := out.Stdout.Write(e.Value) // as it is: it is going into a file
					return err
				}
				return out.Result(v, func(w io.Writer) { fmt.Fprintln(w, string(e.Value)) })
			})
		},
	}
}

func kvPut(o *options, f *project) *cobra.Command {
	var ttl time.Duration
	var ifRevision int64
	var ifAbsent bool
	c := &cobra.Command{
		Use:   "put NAMESPACE KEY VALUE",
		Short: "write a value; VALUE may be @FILE, or - for standard input",
		Args:  cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			if ttl < 0 || ttl > 0 && ttl < time.Millisecond {
				return usagef("--ttl %v: want at least 1ms, or 0 for ever", ttl)
			}
			if ifRevision < hostcall.AnyRevision {
				return usagef("--if-revision %d: want a revision, or 0 for a key that is not there", ifRevision)
			}
			value, err := valueOf(args[2])
			if err != nil {
				return err
			}
			if ifAbsent {
				ifRevision = hostcall.AbsentRevision
			}
			return f.with(o, func(c *client.Client, project string) error {
				w, err := c.Put(cmd.Context(), project, args[0], args[1], value, hostcall.PutOptions{TTL: ttl, IfRevision: ifRevision})
				if err != nil {
					return err
				}
				return o.out().Result(w, func(out io.Writer) { fmt.Fprintf(out, "revision %d\n", w.Revision) })
			})
		},
	}
	c.Flags().DurationVar(&ttl, "ttl", 0, "gone after this time, such as 10m; 0 is never")
	c.Flags().Int64Var(&ifRevision, "if-revision", hostcall.AnyRevision, "only if the key stands at this revision")
	c.Flags().BoolVar(&ifAbsent, "if-absent", false, "only if the key is not there")
	c.MarkFlagsMutuallyExclusive("if-revision", "if-absent")
	return c
}

func valueOf(arg string) ([]byte, error) {
	switch {
	case arg == "-":
		return io.ReadAll(io.LimitReader(os.Stdin, hostcall.MaxValueBytes+1))
	case len(arg) > 0 && arg[0] == '@':
		return os.ReadFile(arg[1:])
	default:
		return []byte(arg), nil
	}
}

func kvRemove(o *options, f *project) *cobra.Command {
	ifRevision := hostcall.AnyRevision
	var ifExists bool
	c := &cobra.Command{
		Use: "rm NAMESPACE KEY", Short: "delete a key; it exits with 4 if there is none", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(o, func(c *client.Client, project string) error {
				w, err := c.Delete(cmd.Context(), project, args[0], args[1], ifRevision)
				if err != nil {
					return err
				}
				if w.Absent && !ifExists {
					return noKey{namespace: args[0], key: args[1]}
				}
				return o.out().Result(w, func(out io.Writer) {
					if w.Absent {
						fmt.Fprintln(out, "there was no such key")
						return
					}
					fmt.Fprintf(out, "deleted, revision %d\n", w.Revision)
				})
			})
		},
	}
	c.Flags().Int64Var(&ifRevision, "if-revision", hostcall.AnyRevision, "only if the key stands at this revision")
	c.Flags().BoolVar(&ifExists, "if-exists", false, "a key that is not there is no failure")
	return c
}

// noKey is the deletion of what is not there.
type noKey struct{ namespace, key string }

func (e noKey) Error() string {
	return fmt.Sprintf("namespace %s has no key %q; 'selvage kv ls %s' lists them, --if-exists makes this no failure", e.namespace, e.key, e.namespace)
}

// Refused makes it the exit code of kv get's answer for such a key.
func (noKey) Refused() bool { return true }

func kvList(o *options, f *project) *cobra.Command {
	var prefix string
	var limit int
	c := &cobra.Command{
		Use: "ls [NAMESPACE]", Short: "list namespaces, or a namespace's keys", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(o, func(c *client.Client, project string) error {
				if len(args) == 0 {
					return listNamespaces(cmd.Context(), o, c, project)
				}
				return listKeys(cmd.Context(), o, c, project, args[0], prefix, limit)
			})
		},
	}
	c.Flags().StringVar(&prefix, "prefix", "", "only keys that begin with this")
	c.Flags().IntVar(&limit, "limit", 10_000, "at most so many keys")
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
			rows = append(rows, []string{n.Name, string(n.Mode)})
		}
		term.Table(w, []string{"NAMESPACE", "MODE"}, rows)
	})
}

func listKeys(ctx context.Context, o *options, c *client.Client, project, ns, prefix string, limit int) error {
	if limit < 1 {
		return usagef("--limit %d: want 1 or more", limit)
	}
	keys := []api.Key{}
	var cursor []byte
	for {
		page, err := c.List(ctx, project, ns, prefix, cursor, min(limit-len(keys), hostcall.MaxListKeys))
		if err != nil {
			return err
		}
		keys = append(keys, page.Keys...)
		if cursor = page.Next; len(cursor) == 0 || len(keys) >= limit {
			break
		}
	}
	return o.out().Result(keys, func(w io.Writer) {
		var rows [][]string
		for _, k := range keys {
			name, expires := k.Text, ""
			if name == "" {
				name = strconv.QuoteToASCII(string(k.Key))
			}
			if !k.Expires.IsZero() {
				expires = k.Expires.Format(time.RFC3339)
			}
			rows = append(rows, []string{name, strconv.FormatUint(k.Revision, 10), expires})
		}
		term.Table(w, []string{"KEY", "REVISION", "EXPIRES"}, rows)
	})
}

func kvCreate(o *options, f *project) *cobra.Command {
	return &cobra.Command{
		Use: "create NAMESPACE", Short: "make a namespace; deploying a function that binds one makes it too", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(o, func(c *client.Client, project string) error {
				n, err := c.CreateNamespace(cmd.Context(), project, args[0])
				if err != nil {
					return err
				}
				return o.out().Result(n, func(w io.Writer) { fmt.Fprintf(w, "%s, mode %s\n", n.Name, n.Mode) })
			})
		},
	}
}
