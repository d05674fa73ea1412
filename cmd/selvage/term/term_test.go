package term

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What comes from guests and nodes reaches a terminal as text only, one line a row.
func TestTableIsPlain(t *testing.T) {
	var b bytes.Buffer
	Table(&b, []string{"KEY", "WHY"}, [][]string{{"a\x1b]0;owned\x07", "two\nlines\tand \u202egnp.exe"}, {"日本", "ok"}})
	got := b.String()
	if strings.ContainsAny(got, "\x1b\x07\u202e") || strings.Count(got, "\n") != 3 || !strings.Contains(got, "日本") {
		t.Errorf("%q", got)
	}
}

// Whatever a command says for people goes this way.
func TestWordsArePlain(t *testing.T) {
	var out, remarks bytes.Buffer
	o := &Out{Stdout: &out, Stderr: &remarks}
	const bad = "\x1b]0;owned\x07\u009b"
	if err := o.Result(nil, func(w io.Writer) { fmt.Fprintf(w, "fleet %s\nnode\tx\n", bad) }); err != nil {
		t.Fatal(err)
	}
	o.Say("it says %s", bad)
	all := out.String() + remarks.String() + Error(errors.New(bad+strings.Repeat("x", 1<<20)))
	if strings.ContainsAny(all, "\x1b\x07\u009b") || len(all) > 2*maxText || !strings.Contains(all, "\nnode\tx\n") {
		t.Errorf("%.300q", all)
	}
}

// What takes long says so every ten seconds, and nothing once it is over.
func TestBeat(t *testing.T) {
	for asJSON, want := range map[bool]string{false: "still at it, 10s\nstill at it, 20s\n", true: ""} {
		synctest.Test(t, func(t *testing.T) {
			var remarks bytes.Buffer
			o := &Out{JSON: asJSON, Stderr: &remarks}
			stop := o.Beat(t.Context(), func(since time.Duration) string { return fmt.Sprintf("still at it, %v", since) })
			time.Sleep(25 * time.Second)
			stop()
			time.Sleep(time.Minute)
			if remarks.String() != want {
				t.Errorf("with JSON %v: %q", asJSON, &remarks)
			}
		})
	}
}
