package plain

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "",
		"plain é 日本 \t\n":                "plain é 日本 \t\n",
		"\x1b[2J\x1b]0;title\x07gone":    "\ufffd[2J\ufffd]0;title\ufffdgone",
		"right\r\nover\rwritten":         "right \nover written",
		"8-bit \u009b2J, DEL \x7f":       "8-bit \ufffd2J, DEL \ufffd",
		"turned \u202e\u2066 and \u200b": "turned \ufffd\ufffd and \ufffd",
		"not UTF-8 \xff\x9b":             "not UTF-8 \ufffd\ufffd",
	} {
		if got := Text(in, 1000); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got := Text(strings.Repeat("é", 10), 5); got != "éé… (16 bytes more)" {
		t.Errorf("cut to %q", got)
	}
	if got := Line("a\nb\tc", 10); got != "a b c" {
		t.Errorf("a line: %q", got)
	}
}

type stringer struct{ s string }

func (s stringer) String() string { return s.s }

// A log's line has nothing of a terminal's language in it, in whichever attribute it came.
func TestAttr(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{ReplaceAttr: Attr}))
	const bad = "a\u009b2J\u202e\x7fb"
	long := strings.Repeat("x", 1<<20)
	log.With("with", bad).WithGroup("g").Warn(bad, "text", bad, "err", errors.New(bad), "str", stringer{bad}, "long", long, "n", 3, slog.Group("h", "deep", bad))
	if strings.ContainsAny(out.String(), "\u009b\u202e\x7f") || out.Len() > 2*attrBytes {
		t.Errorf("%d bytes: %.300q", out.Len(), out.String())
	}
	var line struct {
		Msg string
		G   struct {
			Text, Err, Str, Long string
			N                    int
			H                    struct{ Deep string }
		}
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	const want = "a\ufffd2J\ufffd\ufffdb"
	if g := line.G; line.Msg != want || g.Text != want || g.Err != want || g.Str != want || g.H.Deep != want || g.N != 3 || !strings.HasPrefix(g.Long, "xxx") {
		t.Errorf("%.400s", out.String())
	}
}

func FuzzText(f *testing.F) {
	f.Add("plain", 10)
	f.Add("\x1b[31mred\u009b0m\u202e\xff", 8)
	f.Add("éééé", 3)
	f.Fuzz(func(t *testing.T, s string, most int) {
		most = max(0, most%1000)
		got := Text(s, most)
		for _, r := range got {
			if r != '\n' && r != '\t' && !unicode.IsPrint(r) && r != utf8.RuneError {
				t.Fatalf("%q has %U", got, r)
			}
		}
		if len(got) > 3*most+len("… (9223372036854775807 bytes more)") || !utf8.ValidString(got) {
			t.Fatalf("%d bytes, want about %d: %q", len(got), most, got)
		}
		if again := Text(got, len(got)); again != got {
			t.Fatalf("%q became %q", got, again)
		}
	})
}
