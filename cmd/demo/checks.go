package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// check is one thing that was tried and what came of it.
type check struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// checks gathers them in order.
type checks []check

// add notes a check; err nil means it held.
func (c *checks) add(name string, err error, format string, args ...any) {
	k := check{Check: name, OK: err == nil, Detail: fmt.Sprintf(format, args...)}
	mark := "ok"
	if err != nil {
		k.Detail, mark = firstFailure(err), "FAILED"
	}
	fmt.Printf("  %-6s %s: %s\n", mark, k.Check, k.Detail)
	*c = append(*c, k)
}

// firstFailure is the first of what may be many, cut to a line for the table.
func firstFailure(err error) string {
	text, more, _ := strings.Cut(err.Error(), "\n")
	if len(text) > 300 {
		text = text[:300] + "..."
	}
	if more != "" {
		text += fmt.Sprintf(" (and %d more)", strings.Count(more, "\n")+1)
	}
	return text
}

func (c checks) allHold() bool {
	for _, k := range c {
		if !k.OK {
			return false
		}
	}
	return len(c) > 0
}

func (c checks) table(w io.Writer) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "CHECK\tRESULT\tDETAIL")
	failed := 0
	for _, k := range c {
		result := "ok"
		if !k.OK {
			result = "FAILED"
			failed++
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", k.Check, result, k.Detail)
	}
	_ = t.Flush() // standard output; nothing is left to tell if it is gone
	fmt.Fprintf(w, "\n%d checks, %d failed\n", len(c), failed)
}

func (c checks) writeJSON(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(f)
	for _, k := range c {
		if err := enc.Encode(k); err != nil {
			f.Close()
			return err
		}
	}
	return f.Close()
}
