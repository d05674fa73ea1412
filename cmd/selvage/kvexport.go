package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/dump"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// exportFlags are kv export's.
type exportFlags struct {
	prefix string
	cursor string
	resume bool
}

func kvExport(o *options, f *project) *cobra.Command {
	var e exportFlags
	c := &cobra.Command{
		Use: "export NAMESPACE FILE|-", Short: "write a namespace's keys to a file, a line each", Args: cobra.ExactArgs(2),
		Long: `Writes the namespace's keys with values, metadata and expiry to FILE, or to standard output, in byte order. It is
no snapshot: each key is there as it was when its turn came, and every change up to the revision that it
tells at the end is in it, or one that came after it. With --resume it goes on in a FILE of before, after
the last line that is whole; until it is done a note beside it, FILE.note, has what it is of. On standard
output it goes on with --cursor, which it tells when it is broken off; then it tells no revision.

` + lineFormat,
		Example: `  selvage kv export links links.ndjson
  selvage kv export links - --prefix blog: | gzip > blog.gz`,
		RunE: func(cmd *cobra.Command, args []string) error {
			after, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(e.cursor, "="))
			if err != nil {
				return usagef("--cursor %.60q: want it as it was told", e.cursor)
			}
			if e.resume && args[1] == "-" {
				return usagef("--resume is for a FILE; on standard output go on with --cursor")
			}
			return f.with(o, func(c *client.Client, project string) error {
				x := &export{o: o, c: c, project: project, ns: args[0], prefix: e.prefix, name: args[1], after: after}
				if err := x.open(e.resume); err != nil {
					return err
				}
				err := x.run(cmd.Context())
				if err = errors.Join(err, x.close(err == nil)); err != nil {
					return x.stopped(err)
				}
				return x.say()
			})
		},
	}
	c.Flags().StringVar(&e.prefix, "prefix", "", "only keys that begin with this")
	c.Flags().StringVar(&e.cursor, "cursor", "", "go on after this, as it was told")
	c.Flags().BoolVar(&e.resume, "resume", false, "go on in a file that an export of before left")
	c.MarkFlagsMutuallyExclusive("cursor", "resume")
	return c
}

// lastLine returns the key of the last line that is whole, and where it ends.
func lastLine(in io.Reader) (key string, end int64, err error) {
	r := dump.NewReader(in)
	for {
		raw, cut, err := r.Next()
		if errors.Is(err, io.EOF) || err == nil && cut {
			return key, end, nil
		}
		if err != nil {
			return "", 0, err
		}
		l, err := dump.Parse(raw)
		if err != nil {
			return "", 0, &dump.LineError{Line: r.At().Line, Err: err}
		}
		if l.Key <= key {
			return "", 0, &dump.LineError{Line: r.At().Line, Err: errors.New("its key is not after the one before: no export wrote this file")}
		}
		key, end = l.Key, r.At().Bytes
	}
}

// export is one under way.
type export struct {
	o                         *options
	c                         *client.Client
	project, ns, prefix, name string
	after                     []byte // the last key written
	file                      *os.File
	out                       *bufio.Writer
	note                      exportNote
	sum                       exported
}

// exported is the --json form.
type exported struct {
	Namespace string `json:"namespace"`
	Keys      int64  `json:"keys"`
	Bytes     int64  `json:"bytes"`           // of values
	AsOf      uint64 `json:"as_of,omitempty"` // every change up to this revision is in it; absent: not known
	Epoch     uint64 `json:"epoch"`
}

func (x *export) run(ctx context.Context) error {
	x.sum.Namespace = x.ns
	bar := x.o.out().Bar(-1, "export "+x.ns)
	defer func() { _ = bar.Finish() }() // it only draws
	for cursor := x.after; ; {
		page, err := x.c.List(ctx, x.project, x.ns, x.prefix, cursor, hostcall.MaxReadKeys)
		if err != nil {
			return err
		}
		if err := x.reflects(page); err != nil {
			return err
		}
		if len(page.Keys) > 0 {
			before := x.sum.Bytes
			if err := x.page(ctx, page.Keys); err != nil {
				return err
			}
			_ = bar.Add64(x.sum.Bytes - before) // it only draws
		}
		if cursor = page.Next; len(cursor) == 0 {
			return nil
		}
	}
}

// page writes the keys that are still there, and has them out before it counts them.
func (x *export) page(ctx context.Context, keys []api.Key) error {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = string(k.Key)
	}
	all, err := readSome(ctx, x.c, x.project, x.ns, names)
	if err != nil {
		return err
	}
	var line []byte
	for _, e := range all {
		if !e.Found {
			continue // deleted since it was listed
		}
		l := dump.Line{Key: string(e.KeyBase64), Value: e.ValueBase64, Metadata: e.MetadataBase64}
		if e.Expires != nil {
			l.Expires = *e.Expires
		}
		if line, err = l.Append(line[:0]); err != nil {
			return err
		}
		if _, err := x.out.Write(line); err != nil {
			return err
		}
		x.sum.Keys++
		x.sum.Bytes += int64(len(l.Value))
	}
	if err := x.out.Flush(); err != nil {
		return err
	}
	x.after = keys[len(keys)-1].Key
	return nil
}

// stopped says how to go on.
func (x *export) stopped(err error) error {
	if x.name != "-" && !errors.Is(err, errAnew) {
		return fmt.Errorf("%w\n%d keys are in %s; go on with --resume", err, x.sum.Keys, x.name)
	}
	if len(x.after) == 0 || errors.Is(err, errAnew) {
		return err
	}
	return fmt.Errorf("%w\n%d keys were written; go on with --cursor %s", err, x.sum.Keys, base64.RawURLEncoding.EncodeToString(x.after))
}

// say tells what was done: beside the lines, if they are on standard output.
func (x *export) say() error {
	out := x.o.out()
	if x.name == "-" {
		out.Stdout = out.Stderr
	}
	return out.Result(x.sum, func(w io.Writer) {
		fmt.Fprintf(w, "%d keys, %s of values", x.sum.Keys, mib(x.sum.Bytes))
		if x.sum.AsOf > 0 {
			fmt.Fprintf(w, ", with every change up to revision %d", x.sum.AsOf)
		}
		fmt.Fprintln(w)
	})
}
