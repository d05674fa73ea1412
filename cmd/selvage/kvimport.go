package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/dump"
	"github.com/selvage-edge/selvage/control/identity"
)

// lineFormat is what kv export writes and kv import reads, for --help.
const lineFormat = `One JSON object a line (NDJSON):
  key or key_base64            1 to 512 bytes
  value or value_base64        up to 25 MiB
  metadata or metadata_base64  up to 1 KiB, or neither
  expires                      RFC 3339, on the store's clock, or absent
The _base64 forms are for bytes that are no UTF-8. Other fields are refused.`

// importFlags are kv import's.
type importFlags struct {
	resume   string
	fromLine int64
	dryRun   bool
}

func kvImport(o *options, f *project) *cobra.Command {
	var i importFlags
	c := &cobra.Command{
		Use: "import NAMESPACE FILE|-", Short: "write the keys of a file that kv export wrote", Args: cobra.ExactArgs(2),
		Long: `Writes a line's key for each line of FILE, or of standard input, and replaces what is there. Lines of one
key are written in their order. It stops at a line that is bad, with its number, and nothing of that
line is applied; those before it are. With --resume it keeps a note of how far it came and goes on from
there the next time, if the lines up to there are still the same; the note is removed at the end.

` + lineFormat,
		Example: `  selvage kv import links links.ndjson --resume links.note
  selvage kv import links links.ndjson --dry-run`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if i.fromLine < 1 {
				return usagef("--from-line %d: want 1 or more", i.fromLine)
			}
			in, size, err := openInput(args[1])
			if err != nil {
				return err
			}
			defer in.Close()
			return f.with(o, func(c *client.Client, project string) error {
				return i.run(cmd.Context(), o, c, project, args[0], args[1], in, size)
			})
		},
	}
	c.Flags().StringVar(&i.resume, "resume", "", "file with the note of how far it came; it need not be there the first time")
	c.Flags().Int64Var(&i.fromLine, "from-line", 1, "the first line to be written")
	c.Flags().BoolVar(&i.dryRun, "dry-run", false, "check every line, and write nothing")
	c.MarkFlagsMutuallyExclusive("resume", "from-line")
	c.MarkFlagsMutuallyExclusive("resume", "dry-run")
	return c
}

// openInput opens a file, or standard input for "-", whose size is -1.
func openInput(name string) (io.ReadCloser, int64, error) {
	if name == "-" {
		return io.NopCloser(os.Stdin), -1, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// imported is the --json form.
type imported struct {
	Namespace string `json:"namespace"`
	Resumed   int64  `json:"resumed_after,omitempty"` // the line
	DryRun    bool   `json:"dry_run,omitempty"`
	dump.Summary
}

func (i *importFlags) run(ctx context.Context, o *options, c *client.Client, project, ns, name string, in io.Reader, size int64) error {
	n, err := i.note(project + "/" + ns)
	if err != nil {
		return err
	}
	bar := o.out().Bar(size, "import "+ns)
	cfg := dump.Config{In: io.TeeReader(in, bar), From: i.fromLine, After: n.Mark}
	if !i.dryRun {
		cfg.Put = func(ctx context.Context, l dump.Line) error {
			_, err := c.PutUntil(ctx, project, ns, l.Key, l.Value, l.Metadata, l.Expires)
			return over(err)
		}
	}
	if i.resume != "" {
		cfg.Reached = func(m dump.Mark) error { return n.save(i.resume, m) }
	}
	sum, err := dump.Import(ctx, cfg)
	_ = bar.Finish() // it only draws
	if err != nil {
		return i.stopped(name, sum, err)
	}
	if i.resume != "" {
		if err := os.Remove(i.resume); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return o.out().Result(imported{ns, n.Mark.Line, i.dryRun, sum}, func(w io.Writer) { printImport(w, i.dryRun, sum) })
}

func printImport(w io.Writer, dryRun bool, sum dump.Summary) {
	did := "written"
	if dryRun {
		did = "good, nothing written"
	}
	fmt.Fprintf(w, "%d keys %s, %s of values", sum.Written, did, mib(sum.Bytes))
	if sum.Over > 0 {
		fmt.Fprintf(w, "; %d left out, their time is over", sum.Over)
	}
	fmt.Fprintln(w)
}

// over turns the fleet's word that a value has ended into the import's.
func over(err error) error {
	var r *client.Refusal
	if errors.As(err, &r) && r.Name() == "expired" {
		return dump.ErrOver
	}
	return err
}

// stopped says where an import stopped, why, and how to go on.
func (i *importFlags) stopped(name string, sum dump.Summary, err error) error {
	if name == "-" {
		name = "standard input"
	}
	if i.dryRun {
		return fmt.Errorf("%s: %w", name, err)
	}
	how := fmt.Sprintf("--from-line %d", sum.Done.Line+1)
	if i.resume != "" {
		how = "the same --resume"
	}
	done := fmt.Sprintf("all up to line %d is written", sum.Done.Line)
	if sum.Done.Line == 0 {
		done = "nothing is written"
	}
	return fmt.Errorf("%s: %w\n%s; go on with %s", name, err, done, how)
}

// note is how far an import came, of what.
type note struct {
	Namespace string    `json:"namespace"` // project/name
	Mark      dump.Mark `json:"mark"`
}

// note reads the note of before; there may be none.
func (i *importFlags) note(namespace string) (note, error) {
	n := note{Namespace: namespace}
	if i.resume == "" {
		return n, nil
	}
	b, err := os.ReadFile(i.resume)
	if errors.Is(err, fs.ErrNotExist) {
		return n, nil
	}
	if err != nil {
		return n, err
	}
	var was note
	if err := json.Unmarshal(b, &was); err != nil || was.Mark.Line < 1 {
		return n, usagef("--resume %s: this is no note of an import; name another file", i.resume)
	}
	if was.Namespace != namespace {
		return n, usagef("--resume %s: it is of an import into %s, not %s", i.resume, was.Namespace, namespace)
	}
	return was, nil
}

func (n note) save(path string, m dump.Mark) error {
	n.Mark = m
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return identity.WriteFile(path, append(b, '\n'))
}

func mib(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
