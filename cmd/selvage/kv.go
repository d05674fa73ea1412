package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

func kvCommand(o *options) *cobra.Command {
	var f project
	c := &cobra.Command{
		Use:   "kv",
		Short: "read and write KV namespaces at the truth",
		Long: fmt.Sprintf(`Reads and writes KV at the control node: a write is on disk before it is
acknowledged, and every PoP forgets its old value the moment the change reaches it.

Keys are any bytes, up to %d; values have up to %d MiB, and up to %d KiB of metadata beside them.
A key that is not there, and what KV refuses, ends a command with exit code 4.`,
			hostcall.MaxKeyBytes, hostcall.MaxValueBytes>>20, hostcall.MaxMetadataBytes>>10),
	}
	c.RunE = onlySubcommands
	f.flag(c.PersistentFlags())
	c.AddCommand(kvGet(o, &f), kvPut(o, &f), kvIncrement(o, &f), kvRemove(o, &f), kvList(o, &f), kvCreate(o, &f), kvWatch(o, &f), kvStats(o, &f), kvExport(o, &f), kvImport(o, &f))
	return c
}

// noKey is the answer for what is not there.
type noKey struct{ namespace, key, hint string }

func (e noKey) Error() string {
	return fmt.Sprintf("namespace %s has no key %q; 'selvage kv ls %s' lists them%s", e.namespace, e.key, e.namespace, e.hint)
}

// Refused makes it an exit code of its own, that of the fleet's no.
func (noKey) Refused() bool { return true }

// overLimit is what KV would refuse, found before it is sent.
type overLimit struct{ what string }

func (e overLimit) Error() string {
	return fmt.Sprintf("%s: KV takes keys of 1 to %d bytes, values of up to %d MiB (%d bytes) and metadata of up to %d KiB", e.what,
		hostcall.MaxKeyBytes, hostcall.MaxValueBytes>>20, hostcall.MaxValueBytes, hostcall.MaxMetadataBytes>>10)
}

// Refused makes its exit code the same as if the fleet had said it.
func (overLimit) Refused() bool { return true }

// checkKey refuses a key that KV does not take.
func checkKey(key string) error {
	if len(key) == 0 || len(key) > hostcall.MaxKeyBytes {
		return overLimit{fmt.Sprintf("a key of %d bytes", len(key))}
	}
	return nil
}

func kvCreate(o *options, f *project) *cobra.Command {
	var maxStale time.Duration
	var mode string
	c := &cobra.Command{
		Use: "create NAMESPACE", Short: "make a namespace, or set its mode and bound; deploying a function that binds one makes it too", Args: cobra.ExactArgs(1),
		Long: `Makes a namespace, or changes one that is there.

In mode cached a node keeps in memory what was read. In mode replicated each node with a function
that binds the namespace, and that may hold it, has all of it on disk (limits.replica_bytes): it answers reads
and lists from there, also after a restart without control. Where there is no room for it, and for values
over 64 KiB, it does as in mode cached; 'selvage kv stats' shows which PoPs have it.
A fleet takes mode replicated once all its nodes run a version that knows it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r := api.NamespaceRequest{Mode: catalog.Mode(mode)}
			if mode != "" && !r.Mode.Known() {
				return usagef("--mode %s: want %s or %s", mode, catalog.ModeCached, catalog.ModeReplicated)
			}
			if cmd.Flags().Changed("max-stale") {
				if maxStale != 0 && (maxStale < catalog.MinMaxStale || maxStale > catalog.MaxMaxStale) {
					return usagef("--max-stale %v: want 0 for any, or %v to %v", maxStale, catalog.MinMaxStale, catalog.MaxMaxStale)
				}
				ms := maxStale.Milliseconds()
				r.MaxStaleMS = &ms
			}
			return f.with(o, func(c *client.Client, project string) error {
				n, err := c.CreateNamespace(cmd.Context(), project, args[0], r)
				if err != nil {
					return err
				}
				return o.out().Result(n, func(w io.Writer) {
					fmt.Fprintf(w, "%s, mode %s, max stale %s\n", n.Name, n.Mode, staleBound(n.MaxStaleMS))
				})
			})
		},
	}
	c.Flags().StringVar(&mode, "mode", "", "cached or replicated (default: as it is, or cached)")
	c.Flags().DurationVar(&maxStale, "max-stale", 0, "PoPs that cannot tell that a value is at most so old do not serve it while control is away, 30s or more; 0: they serve what they have (default: as it is)")
	return c
}

// staleBound is a namespace's bound for people.
func staleBound(ms int64) string {
	if ms == 0 {
		return "any"
	}
	return (time.Duration(ms) * time.Millisecond).String()
}
