package dump

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

func equal(a, b Line) bool {
	return a.Key == b.Key && bytes.Equal(a.Value, b.Value) && bytes.Equal(a.Metadata, b.Metadata) && a.Expires.Equal(b.Expires)
}

var ends = time.Date(2030, 1, 31, 12, 0, 0, 250e6, time.UTC)

func TestLinesComeBack(t *testing.T) {
	for want, l := range map[string]Line{
		`{"key":"docs","value":"https://a/?b=<c>&d"}`:                                                  {Key: "docs", Value: []byte("https://a/?b=<c>&d")},
		`{"key":"é\n","value":"","metadata":"m","expires":"2030-01-31T12:00:00.250Z"}`:                 {Key: "é\n", Value: []byte{}, Metadata: []byte("m"), Expires: ends},
		`{"key_base64":"/w==","value_base64":"gA==","metadata_base64":"AP8="}`:                         {Key: "\xff", Value: []byte{0x80}, Metadata: []byte{0, 0xff}},
		`{"key":"k","value_base64":"` + strings.Repeat("AAAA", 100) + `"}`:                             {Key: "k", Value: make([]byte, 300)},
		`{"key":"` + strings.Repeat("k", hostcall.MaxKeyBytes) + `","value":"\ufffd` + "\ufffd" + `"}`: {Key: strings.Repeat("k", hostcall.MaxKeyBytes), Value: []byte("\ufffd\ufffd")},
	} {
		got, err := l.Append(nil)
		if text := strings.ReplaceAll(want, `\ufffd`, "\ufffd"); err != nil || string(got) != text+"\n" {
			t.Errorf("%.80q: %s, %v", l.Key, got, err)
		}
		back, err := Parse([]byte(want))
		if err != nil || !equal(back, l) {
			t.Errorf("%s: %+v, %v", want, back, err)
		}
	}
}

func TestLargestLine(t *testing.T) {
	l := Line{Key: strings.Repeat("\x00", hostcall.MaxKeyBytes), Value: bytes.Repeat([]byte{0xff}, hostcall.MaxValueBytes), Metadata: bytes.Repeat([]byte{1}, hostcall.MaxMetadataBytes), Expires: ends}
	text, err := l.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, _, err := NewReader(bytes.NewReader(text)).Next()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := Parse(raw); err != nil || !equal(back, l) {
		t.Errorf("%d bytes: %v", len(text), err)
	}
}

var badLines = map[string]string{
	`nonsense`:                          "object",
	`[]`:                                "object",
	`null`:                              "object",
	`{`:                                 "JSON",
	`{"key":"a","value":"b"`:            "JSON",
	`{"key":"a","value":"b"}{}`:         "more than one",
	`{"key":"a","value":"b"} x`:         "more than one",
	`{"value":"b"}`:                     "key",
	`{"key":"","value":"b"}`:            "key",
	`{"key":"a"}`:                       "value",
	`{"key":"a","value":null}`:          "string",
	`{"key":"a","value":7}`:             "value",
	`{"key":"a","value":["b"]}`:         "value",
	`{"key":"a","key":"b","value":"c"}`: "twice",
	`{"key":"a","key_base64":"YQ==","value":"c"}`:                            "one of them",
	`{"key":"a","value":"b","value_base64":""}`:                              "one of them",
	`{"key":"a","value_base64":"b"}`:                                         "value_base64",
	`{"key":"a","value_base64":"YR=="}`:                                      "value_base64",
	`{"key":"a","value":"b","ttl":7}`:                                        "ttl",
	`{"Key":"a","value":"b"}`:                                                "Key",
	`{"key":"a","value":"b","expires":7}`:                                    "expires",
	`{"key":"a","value":"b","expires":"tomorrow"}`:                           "expires",
	`{"key":"a\ud800","value":"b"}`:                                          "surrogate",
	`{"key":"a\udc00\ud800","value":"b"}`:                                    "surrogate",
	"{\"key\":\"\xff\",\"value\":\"b\"}":                                     "UTF-8",
	`{"key":"` + strings.Repeat("k", 513) + `"}`:                             "at most 512",
	`{"key":"a","value":"b","metadata":"` + strings.Repeat("m", 1025) + `"}`: "at most 1024",
}

func TestBadLines(t *testing.T) {
	for line, said := range badLines {
		if l, err := Parse([]byte(line)); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%.80s: %+v, %v; want %q", line, l, err, said)
		}
	}
	for line, key := range map[string]string{`{"key":"\ud83d\ude00","value":""}`: "\U0001f600", `{"key":"\\ud800","value":""}`: `\ud800`, " {\"value\":\"\" ,\"key\":\"a\"}\r": "a"} {
		if l, err := Parse([]byte(line)); err != nil || l.Key != key {
			t.Errorf("%s: %q, %v", line, l.Key, err)
		}
	}
}

func TestReaderCountsLines(t *testing.T) {
	r := NewReader(strings.NewReader("a\n\n \r\nb\nc"))
	var got []string
	var marks []Mark
	for {
		line, cut, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || cut != (string(line) == "c") {
			t.Fatal(cut, err)
		}
		got, marks = append(got, string(line)), append(marks, r.At())
	}
	if !slices.Equal(got, []string{"a", "b", "c"}) || marks[0].Line != 1 || marks[1].Line != 4 || marks[2].Line != 5 || marks[2].Bytes != 9 {
		t.Errorf("%q at %+v", got, marks)
	}
	for _, m := range marks {
		if err := NewReader(strings.NewReader("a\n\n \r\nb\nc\n")).Skip(m); err != nil {
			t.Error(err)
		}
	}
	for _, other := range []string{"a\n", "a\n\n\nb\nc", "x\n\n \r\nb\nc", ""} {
		if err := NewReader(strings.NewReader(other)).Skip(marks[2]); err == nil || !strings.Contains(err.Error(), "another input") {
			t.Errorf("%q: %v", other, err)
		}
	}
	long := NewReader(io.MultiReader(strings.NewReader("a\n"), bytes.NewReader(make([]byte, MaxLineBytes+2))))
	if _, _, err := long.Next(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := long.Next(); err == nil || !strings.Contains(err.Error(), "line 2: over") {
		t.Errorf("a line without end: %v", err)
	}
}

// What is taken is within the limits and comes back the same from what is written of it.
func FuzzParse(f *testing.F) {
	for line := range badLines {
		f.Add([]byte(line))
	}
	f.Add([]byte(`{"key":"docs","value":"v","metadata_base64":"AP8=","expires":"2030-01-31T12:00:00.25+02:00"}`))
	f.Add([]byte(`{"key_base64":"/w==","value_base64":""}`))
	f.Add([]byte(`{"key":"\ud83d\ude00\\ud800","value":"\u0000"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		l, err := Parse(line)
		if err != nil {
			if !utf8.ValidString(err.Error()) {
				t.Errorf("%q", err)
			}
			return
		}
		if l.Key == "" || len(l.Key) > hostcall.MaxKeyBytes || len(l.Value) > hostcall.MaxValueBytes || len(l.Metadata) > hostcall.MaxMetadataBytes {
			t.Fatalf("over a limit: %+v", l)
		}
		again, err := l.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(again, []byte("\n")) != 1 {
			t.Fatalf("%q is not one line", again)
		}
		if back, err := Parse(again); err != nil || !equal(back, l) {
			t.Fatalf("%s: %+v, was %+v: %v", again, back, l, err)
		}
	})
}
