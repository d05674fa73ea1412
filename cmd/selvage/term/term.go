// Package term writes what commands have to say: lines and tables for people,
// JSON for programs, a progress bar where there is a terminal.
package term

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/selvage-edge/selvage/runtime/plain"
)

// Out is where one command writes.
type Out struct {
	JSON   bool      // results as JSON on Stdout, nothing else there
	Stdout io.Writer // results
	Stderr io.Writer // progress and remarks
}

// New returns an Out on the process's own streams.
func New(json bool) *Out { return &Out{JSON: json, Stdout: os.Stdout, Stderr: os.Stderr} }

// Result prints v as JSON, or calls human where JSON was not asked for.
func (o *Out) Result(v any, human func(w io.Writer)) error {
	if !o.JSON {
		var text bytes.Buffer
		human(&text)
		_, err := io.WriteString(o.Stdout, plain.Text(text.String(), text.Len()))
		return err
	}
	enc := json.NewEncoder(o.Stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// Say prints a remark for people; it never mixes with JSON.
func (o *Out) Say(format string, args ...any) {
	fmt.Fprintln(o.Stderr, plain.Text(fmt.Sprintf(format, args...), maxText))
}

// Progress is Say while something is under way; with JSON it is silent, so that
// standard error holds an error alone.
func (o *Out) Progress(format string, args ...any) {
	if !o.JSON {
		o.Say(format, args...)
	}
}

// BeatEvery is how long nothing is said of something that is under way.
const BeatEvery = 10 * time.Second

// Beat says every BeatEvery what text returns, told how long it has been, until
// the function it returns is called, which also waits for the last of it, or ctx ends.
func (o *Out) Beat(ctx context.Context, text func(since time.Duration) string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		begin, tick := time.Now(), time.NewTicker(BeatEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				o.Progress("%s", text(now.Sub(begin).Round(time.Second)))
			}
		}
	})
	return func() { cancel(); work.Wait() }
}

// maxText is the most of one text from elsewhere that is shown, in bytes.
const maxText = 64 << 10

// Plain is text from elsewhere (a node's word, a key's name) as a terminal may
// see it, on one line.
func Plain(text string) string { return plain.Line(text, maxText) }

// Error is an error as a terminal may see it: the fleet's words are in it.
func Error(err error) string { return plain.Text(err.Error(), maxText) }

// Table writes rows under headings, in columns, each cell Plain.
func Table(w io.Writer, headings []string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(headings, "\t"))
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, c := range r {
			cells[i] = Plain(c)
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	_ = t.Flush() // the writer's own errors show at the next write
}

// IsTerminal reports whether progress is drawn: Stderr is a terminal and JSON was not asked for.
func (o *Out) IsTerminal() bool {
	return !o.JSON && IsTerminal(o.Stderr)
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Bar draws progress towards total on a terminal; elsewhere it draws nothing.
// Total below zero is unknown.
func (o *Out) Bar(total int64, what string) *progressbar.ProgressBar {
	if !o.IsTerminal() {
		return progressbar.DefaultBytesSilent(total, what)
	}
	return progressbar.NewOptions64(total, progressbar.OptionSetWriter(o.Stderr), progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(24))
}

// Steps draws progress counted in steps (nodes, files).
func (o *Out) Steps(total int, what string) *progressbar.ProgressBar {
	if !o.IsTerminal() {
		return progressbar.DefaultSilent(int64(total), what)
	}
	return progressbar.NewOptions(total, progressbar.OptionSetWriter(o.Stderr), progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(24))
}
