package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/control/api"
)

// watchFlags are kv watch's.
type watchFlags struct {
	client.WatchQuery
	count int
}

func kvWatch(o *options, f *project) *cobra.Command {
	var w watchFlags
	c := &cobra.Command{
		Use: "watch NAMESPACE", Short: "show a namespace's changes, in order, as they come", Args: cobra.ExactArgs(1),
		Long: `Shows each change of the namespace, in the order of revisions, as it comes; with --since those after a
revision first, and with --since 0 all keys there are. Of a key that is written faster than it is shown what was
replaced meanwhile is left out; its newest change always comes. Where changes between cannot be told (a
revision of before the store was restored, or older than what is remembered of deletions) a gap is said, and all
there is follows. When it is broken off it says which revision to go on from. --json prints a JSON object a
line, with the fields of kv get, also a sign of life each ten seconds with the revision up to which everything was told.`,
		Example: `  selvage kv watch links
  selvage kv watch links --prefix blog: --since 0 --once`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if w.count < 0 {
				return usagef("--count %d: want 1 or more, or 0 for no end", w.count)
			}
			if cmd.Flags().Changed("since") && w.Since < 0 {
				return usagef("--since %d: want a revision, or 0 for all there is", w.Since)
			}
			return f.with(o, func(c *client.Client, project string) error {
				return w.run(cmd.Context(), o, c, project, args[0])
			})
		},
	}
	c.Flags().StringVar(&w.Prefix, "prefix", "", "only keys that begin with this")
	c.Flags().Int64Var(&w.Since, "since", -1, "changes after this revision; 0: all there is (default: those that come)")
	c.Flags().Uint64Var(&w.Epoch, "epoch", 0, "the store's epoch that --since is of (default: the present one)")
	c.Flags().IntVar(&w.count, "count", 0, "end after so many changes; 0: no end")
	c.Flags().BoolVar(&w.Once, "once", false, "end when all there is was told")
	return c
}

// errEnough ends a watch that has told what it should.
var errEnough = errors.New("enough")

func (w *watchFlags) run(ctx context.Context, o *options, c *client.Client, project, ns string) error {
	var at, epoch uint64
	left := w.count
	err := c.Watch(ctx, project, ns, w.WatchQuery, func(e api.WatchEvent) error {
		if err := showEvent(os.Stdout, o.json, e); err != nil {
			return err
		}
		at = max(at, e.Revision)
		switch e.Type {
		case api.WatchOpen, api.WatchAlive:
			epoch = e.Epoch
			return nil
		case api.WatchGap:
			at, epoch = 0, e.Epoch
			return nil
		}
		if left--; left == 0 {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) || errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil // it was told to end
	}
	if err != nil && epoch > 0 {
		return fmt.Errorf("%w\ngo on with --since %d --epoch %d", err, at, epoch)
	}
	return err
}

// shownEvent is a line of kv watch --json: its fields are those of kv get.
type shownEvent struct {
	Type string `json:"type"`
	*shownKey
	Value       *string    `json:"value,omitempty"`
	ValueBase64 []byte     `json:"value_base64,omitempty"` // absent too if it is too large for a watch: read it
	Size        uint32     `json:"size,omitempty"`         // of the value, in bytes
	Why         string     `json:"why,omitempty"`          // of a gap
	At          uint64     `json:"as_of,omitempty"`        // up to here everything was told; on lines that are no change
	Epoch       uint64     `json:"epoch,omitempty"`        // the store's; on lines that are no change
	Time        *time.Time `json:"time,omitempty"`         // its clock; on lines that are no change
}

func shownEventOf(e api.WatchEvent) shownEvent {
	s := shownEvent{Type: e.Type, Size: e.Size, Why: e.Why, Epoch: e.Epoch}
	if !e.Time.IsZero() {
		s.Time = &e.Time
	}
	switch e.Type {
	case api.WatchPut, api.WatchDelete, api.WatchExpire:
		k := showKey(api.Key{Key: e.Key, Revision: e.Revision, Expires: e.Expires, Metadata: e.Metadata})
		s.shownKey = &k
	default:
		s.At = e.Revision
	}
	if e.Type == api.WatchPut && int(e.Size) == len(e.Value) {
		s.Value, s.ValueBase64 = text(e.Value), e.Value
	}
	return s
}

// showEvent prints a line of a watch: all of it for programs, what is a change or a gap for people.
func showEvent(out io.Writer, asJSON bool, e api.WatchEvent) (err error) {
	if asJSON {
		return json.NewEncoder(out).Encode(shownEventOf(e))
	}
	key := term.Plain(keyText(e.Key))
	switch e.Type {
	case api.WatchPut:
		_, err = fmt.Fprintf(out, "%d put %s %s%s\n", e.Revision, key, term.Plain(eventValue(e)), term.Plain(eventMore(e)))
	case api.WatchDelete, api.WatchExpire:
		_, err = fmt.Fprintf(out, "%d %s %s\n", e.Revision, e.Type, key)
	case api.WatchGap:
		_, err = fmt.Fprintf(out, "-- gap: %s; all there is follows\n", term.Plain(e.Why))
	}
	return err
}

func eventValue(e api.WatchEvent) string {
	if e.Size > api.MaxWatchValue {
		return fmt.Sprintf("(%d bytes: read it)", e.Size)
	}
	return cell(e.Value)
}

func eventMore(e api.WatchEvent) (s string) {
	if len(e.Metadata) > 0 {
		s = " metadata " + cell(e.Metadata)
	}
	if !e.Expires.IsZero() {
		s += " expires " + e.Expires.Format("2006-01-02T15:04:05.000Z")
	}
	return s
}
