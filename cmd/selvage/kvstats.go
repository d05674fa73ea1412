package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/edge/kv"
)

func kvStats(o *options, f *project) *cobra.Command {
	return &cobra.Command{
		Use: "stats NAMESPACE", Short: "what a namespace holds, and what each PoP was asked of it", Args: cobra.ExactArgs(1),
		Long: `Shows the namespace's keys and bytes, and for each PoP and in sum the reads that were answered from memory
and from the nodes' copies of a replicated namespace, those that asked the key's owner in the PoP or control, or waited for what another had asked; what was refused
because all there was was too old; writes and bytes; the nodes that have a
whole copy, and those that have no room for one; and how old what was read may have been. Nodes count
from the start of their server on, and report every half minute: HEARD says how old the oldest report is.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(o, func(c *client.Client, project string) error {
				s, err := c.NamespaceStats(cmd.Context(), project, args[0])
				if err != nil {
					return err
				}
				return o.out().Result(s, func(w io.Writer) { printStats(w, s) })
			})
		},
	}
}

func printStats(w io.Writer, s api.NamespaceStats) {
	fmt.Fprintf(w, "%s: %d keys, %s\n\n", s.Namespace, s.Keys, mib(s.Bytes))
	rows, stale := [][]string{}, [][]string{}
	for _, p := range s.PoPs {
		rows = append(rows, append(usageRow(p.PoP, p.Usage), age(p.Reported)))
		stale = append(stale, staleRow(p.PoP, p.Usage))
	}
	rows, stale = append(rows, append(usageRow("all", s.Total), "")), append(stale, staleRow("all", s.Total))
	term.Table(w, []string{"POP", "HITS", "OF THEM ABSENT", "REPLICA", "MISSES", "OWNER", "CONTROL", "JOINED", "REFUSED", "WRITES", "READ", "WRITTEN", "COPIES", "NO ROOM", "HEARD"}, rows)
	fmt.Fprintln(w)
	headings := []string{"READS AT MOST SO OLD"}
	for _, ms := range s.StaleBoundsMS {
		headings = append(headings, (time.Duration(ms) * time.Millisecond).String())
	}
	term.Table(w, append(headings, "MORE"), stale)
}

func usageRow(pop string, u kv.Usage) []string {
	row := []string{pop}
	for _, n := range []uint64{u.Hits, u.NegativeHits, u.Replica, u.Misses, u.Owner, u.Origin, u.Joined, u.Refused, u.Writes} {
		row = append(row, fmt.Sprint(n))
	}
	return append(row, mib(int64(u.BytesRead)), mib(int64(u.BytesWritten)), fmt.Sprint(u.Copies), fmt.Sprint(u.NoRoom))
}

func staleRow(pop string, u kv.Usage) []string {
	row := []string{pop}
	for _, n := range u.Stale {
		row = append(row, fmt.Sprint(n))
	}
	return row
}
