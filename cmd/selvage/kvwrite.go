package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// putFlags are kv put's.
type putFlags struct {
	ttl          time.Duration
	ifRevision   int64
	ifAbsent     bool
	metadata     string
	metadataFile string
}

func kvPut(o *options, f *project) *cobra.Command {
	var p putFlags
	c := &cobra.Command{
		Use: "put NAMESPACE KEY VALUE", Aliases: []string{"set"},
		Short: "write a value; VALUE may be @FILE, or - for standard input",
		Args:  cobra.ExactArgs(3),
		Long: fmt.Sprintf(`Writes a value, of up to %d MiB; a file's, or standard input's, is sent as it is read. The control node holds values
whole while it writes them, so many large ones at once take turns, and what finds no room there in time is refused (busy) and not written.`, hostcall.MaxValueBytes>>20),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts, err := p.options()
			if err != nil {
				return err
			}
			if err := checkKey(args[1]); err != nil {
				return err
			}
			value, err := valueOf(args[2])
			if err != nil {
				return err
			}
			return f.with(o, func(c *client.Client, project string) error {
				w, err := c.Put(cmd.Context(), project, args[0], args[1], value, opts)
				if err != nil {
					return err
				}
				return o.out().Result(w, func(out io.Writer) { fmt.Fprintf(out, "revision %d\n", w.Revision) })
			})
		},
	}
	c.Flags().DurationVar(&p.ttl, "ttl", 0, "gone after this time, such as 10m; 0 is never")
	c.Flags().Int64Var(&p.ifRevision, "if-revision", hostcall.AnyRevision, "only if the key stands at this revision")
	c.Flags().BoolVar(&p.ifAbsent, "if-absent", false, "only if the key is not there")
	c.Flags().StringVar(&p.metadata, "metadata", "", "kept with the value and listed with the key, up to 1 KiB; a put without it leaves none")
	c.Flags().StringVar(&p.metadataFile, "metadata-file", "", "file to take the metadata from, any bytes")
	c.MarkFlagsMutuallyExclusive("if-revision", "if-absent")
	c.MarkFlagsMutuallyExclusive("metadata", "metadata-file")
	return c
}

func (p *putFlags) options() (hostcall.PutOptions, error) {
	o := hostcall.PutOptions{TTL: p.ttl, IfRevision: p.ifRevision, Metadata: []byte(p.metadata)}
	if p.ttl < 0 || p.ttl > 0 && p.ttl < time.Millisecond {
		return o, usagef("--ttl %v: want at least 1ms, or 0 for ever", p.ttl)
	}
	if p.ifRevision < hostcall.AnyRevision {
		return o, usagef("--if-revision %d: want a revision, or 0 for a key that is not there", p.ifRevision)
	}
	if p.ifAbsent {
		o.IfRevision = hostcall.AbsentRevision
	}
	if p.metadataFile != "" {
		var err error
		if o.Metadata, err = readBounded(p.metadataFile, hostcall.MaxMetadataBytes); err != nil {
			return o, err
		}
	}
	if len(o.Metadata) > hostcall.MaxMetadataBytes {
		return o, overLimit{fmt.Sprintf("metadata of over %d bytes", hostcall.MaxMetadataBytes)}
	}
	return o, nil
}

// errValue is what is over the limit of values.
var errValue = overLimit{fmt.Sprintf("a value of over %d bytes", hostcall.MaxValueBytes)}

// valueOf is what VALUE stands for. A file's is read when it is sent.
func valueOf(arg string) (value client.Value, err error) {
	switch {
	case arg == "-":
		return client.Stream(os.Stdin, hostcall.MaxValueBytes, errValue), nil
	case len(arg) > 0 && arg[0] == '@':
		return fileValue(arg[1:])
	case len(arg) > hostcall.MaxValueBytes:
		return value, errValue
	}
	return client.Bytes([]byte(arg)), nil
}

func fileValue(name string) (value client.Value, err error) {
	f, err := os.Open(name)
	if err != nil {
		return value, err
	}
	info, err := f.Stat()
	if err == nil && !info.IsDir() && (!info.Mode().IsRegular() || info.Size() == 0) {
		return client.Stream(f, hostcall.MaxValueBytes, errValue), nil // a pipe, say: its size is not known before its end
	}
	f.Close()
	switch {
	case err != nil:
		return value, err
	case info.IsDir():
		return value, &fs.PathError{Op: "read", Path: name, Err: errors.New("it is a directory")}
	case info.Size() > hostcall.MaxValueBytes:
		return value, errValue
	}
	return client.File(name, info.Size()), nil
}

// readBounded reads a file, one byte more than most at the most.
func readBounded(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most+1))
}

func kvIncrement(o *options, f *project) *cobra.Command {
	by := int64(1)
	c := &cobra.Command{
		Use: "increment NAMESPACE KEY", Aliases: []string{"incr"}, Short: "add to a decimal number, in one step; a key that is not there counts as 0", Args: cobra.ExactArgs(2),
		Long: `Adds --by to the decimal number under KEY, in one step, and prints the sum. A key that is not
there counts as 0; expiry and metadata stay. The sum has to fit 64 bits with a sign.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkKey(args[1]); err != nil {
				return err
			}
			return f.with(o, func(c *client.Client, project string) error {
				sum, err := c.Increment(cmd.Context(), project, args[0], args[1], by)
				if err != nil {
					return err
				}
				return o.out().Result(sum, func(w io.Writer) { fmt.Fprintln(w, sum.Value) })
			})
		},
	}
	c.Flags().Int64Var(&by, "by", by, "what is added; below 0 to subtract (--by=-1)")
	return c
}

func kvRemove(o *options, f *project) *cobra.Command {
	ifRevision := hostcall.AnyRevision
	var ifExists bool
	c := &cobra.Command{
		Use: "rm NAMESPACE KEY", Aliases: []string{"delete", "del", "remove"}, Short: "delete a key; it exits with 4 if there is none", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(o, func(c *client.Client, project string) error {
				w, err := c.Delete(cmd.Context(), project, args[0], args[1], ifRevision)
				if err != nil {
					return err
				}
				if w.Absent && !ifExists {
					return noKey{args[0], args[1], ", --if-exists makes this no failure"}
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
