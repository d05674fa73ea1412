package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// shownEntry is a key's entry as kv get --json prints it. Bytes are there in base64, and as text where they are UTF-8.
type shownEntry struct {
	Key            string     `json:"key,omitempty"`
	KeyBase64      []byte     `json:"key_base64"`
	Found          bool       `json:"found"`
	Value          *string    `json:"value,omitempty"`
	ValueBase64    []byte     `json:"value_base64,omitempty"`
	Metadata       *string    `json:"metadata,omitempty"`
	MetadataBase64 []byte     `json:"metadata_base64,omitempty"`
	Revision       uint64     `json:"revision,omitempty"`
	Expires        *time.Time `json:"expires,omitempty"` // on the store's clock
	StaleMS        int64      `json:"stale_ms"`          // control is the truth itself: 0 ms old when it answered
	AsOf           uint64     `json:"as_of"`             // every change up to this revision is in the answer
	Epoch          uint64     `json:"epoch"`
	Time           time.Time  `json:"time"` // the store's clock at the answer
}

func shown(key string, e client.Entry, found bool) shownEntry {
	s := shownEntry{KeyBase64: []byte(key), Found: found, AsOf: e.AsOf, Epoch: e.Epoch, Time: e.Time}
	if utf8.ValidString(key) {
		s.Key = key
	}
	if !found {
		return s
	}
	s.Value, s.ValueBase64, s.Revision = text(e.Value), e.Value, e.Revision
	if len(e.Metadata) > 0 {
		s.Metadata, s.MetadataBase64 = text(e.Metadata), e.Metadata
	}
	if !e.Expires.IsZero() {
		s.Expires = &e.Expires
	}
	return s
}

// text is b if it is UTF-8.
func text(b []byte) *string {
	if !utf8.Valid(b) {
		return nil
	}
	s := string(b)
	return &s
}

func kvGet(o *options, f *project) *cobra.Command {
	var metadata bool
	c := &cobra.Command{
		Use: "get NAMESPACE KEY...", Short: "print a value, or several with what is known of them", Args: cobra.MinimumNArgs(2),
		Long: `Prints a key's value, byte for byte where the output is not a terminal, or with --metadata what was put
beside it. Of several keys it prints a table. --json has value, metadata, revision, expiry and
staleness, of several keys as a list. A key that is not there ends it with exit code 4.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, k := range args[1:] {
				if err := checkKey(k); err != nil {
					return err
				}
			}
			return f.with(o, func(c *client.Client, project string) error {
				if len(args) > 2 {
					return getMany(cmd.Context(), o, c, project, args[0], args[1:])
				}
				return getOne(cmd.Context(), o, c, project, args[0], args[1], metadata)
			})
		},
	}
	c.Flags().BoolVar(&metadata, "metadata", false, "print the metadata instead of the value")
	return c
}

func getOne(ctx context.Context, o *options, c *client.Client, project, ns, key string, metadata bool) error {
	e, value, err := c.Open(ctx, project, ns, key)
	if isNotFound(err) {
		return noKey{namespace: ns, key: key}
	}
	if err != nil {
		return err
	}
	defer value.Close()
	out := o.out()
	if !out.JSON && !term.IsTerminal(out.Stdout) { // as it is, and as it comes: it is going into a file
		if metadata {
			_, err := out.Stdout.Write(e.Metadata)
			return err
		}
		if n, err := io.Copy(out.Stdout, value); err != nil {
			return fmt.Errorf("the value is not whole, only its first %d bytes were written: %w", n, err)
		}
		return nil
	}
	if e.Value, err = io.ReadAll(io.LimitReader(value, hostcall.MaxValueBytes+1)); err != nil {
		return fmt.Errorf("read the value: %w", err)
	}
	what := e.Value
	if metadata {
		what = e.Metadata
	}
	return out.Result(shown(key, e, true), func(w io.Writer) { fmt.Fprintln(w, string(what)) })
}

// isNotFound reports whether the fleet said that a key is not there.
func isNotFound(err error) bool {
	var r *client.Refusal
	return errors.As(err, &r) && r.Status == http.StatusNotFound && r.Name() == "not-found"
}

func getMany(ctx context.Context, o *options, c *client.Client, project, ns string, keys []string) error {
	var all []shownEntry
	for len(keys) > 0 {
		n := min(len(keys), hostcall.MaxReadKeys)
		some, err := readSome(ctx, c, project, ns, keys[:n])
		if err != nil {
			return err
		}
		all, keys = append(all, some...), keys[n:]
	}
	if err := o.out().Result(all, func(w io.Writer) { entryTable(w, all) }); err != nil {
		return err
	}
	for _, e := range all {
		if !e.Found {
			return noKey{namespace: ns, key: string(e.KeyBase64)}
		}
	}
	return nil
}

// readSome reads keys in one answer, or in several where the values are too many for one.
func readSome(ctx context.Context, c *client.Client, project, ns string, keys []string) ([]shownEntry, error) {
	raw := make([][]byte, len(keys))
	for i, k := range keys {
		raw[i] = []byte(k)
	}
	got, err := c.Read(ctx, project, ns, raw)
	var r *client.Refusal
	if errors.As(err, &r) && r.Status == http.StatusRequestEntityTooLarge && len(keys) > 1 {
		half := len(keys) / 2
		first, err := readSome(ctx, c, project, ns, keys[:half])
		if err != nil {
			return nil, err
		}
		rest, err := readSome(ctx, c, project, ns, keys[half:])
		return append(first, rest...), err
	}
	if err != nil {
		return nil, err
	}
	all := make([]shownEntry, len(keys))
	for i, e := range got.Entries {
		all[i] = shown(keys[i], client.Entry{Value: e.Value, Metadata: e.Metadata, Revision: e.Revision, Expires: e.Expires, AsOf: got.AsOf, Epoch: got.Epoch, Time: got.Time}, e.Found)
	}
	return all, nil
}

// maxCell is the most of a value that a table shows, in bytes.
const maxCell = 60

func entryTable(w io.Writer, all []shownEntry) {
	var rows [][]string
	for _, e := range all {
		row := []string{keyText(e.KeyBase64), "-", "", "", "(not there)"}
		if e.Found {
			row = []string{keyText(e.KeyBase64), strconv.FormatUint(e.Revision, 10), "", cell(e.MetadataBase64), cell(e.ValueBase64)}
			if e.Expires != nil {
				row[2] = e.Expires.Format(time.RFC3339)
			}
		}
		rows = append(rows, row)
	}
	term.Table(w, []string{"KEY", "REVISION", "EXPIRES", "METADATA", "VALUE"}, rows)
}

// keyText is a key for people: quoted where it is no text.
func keyText(key []byte) string {
	if !utf8.Valid(key) {
		return strconv.QuoteToASCII(string(key))
	}
	return string(key)
}

// cell is the beginning of some bytes.
func cell(b []byte) string {
	if len(b) <= maxCell {
		return keyText(b)
	}
	first := b[:maxCell]
	if utf8.Valid(b) {
		first = bytes.ToValidUTF8(first, nil) // no half of a character
	}
	return fmt.Sprintf("%s… (%d bytes)", keyText(first), len(b))
}
