package term

import (
	"bytes"
	"strings"
	"testing"
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
