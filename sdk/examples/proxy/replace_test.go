package main

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// The end of a link may be the beginning of another.
func TestReplaceWhatOverlaps(t *testing.T) {
	for in, want := range map[string]string{
		"https://a.tech":                "X",
		"https://a.techttps://a.tech":   "Xttps://a.tech",
		"https://a.techhttps://a.tech.": "XX.",
	} {
		for _, src := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in))} {
			if got, err := io.ReadAll(replace(src, "https://a.tech", "X")); err != nil || string(got) != want {
				t.Errorf("%q: %q, %v; want %q", in, got, err, want)
			}
		}
	}
}

func TestReplace(t *testing.T) {
	for in, want := range map[string]string{
		"":                 "",
		"nothing":          "nothing",
		"http://a/":        "https://edge/",
		"x http://a y":     "x https://edge y",
		"http://ahttp://a": "https://edgehttps://edge",
		"http://http://a":  "http://https://edge",
		"http://":          "http://",
		"http:/":           "http:/",
	} {
		for name, src := range map[string]io.Reader{
			"whole": strings.NewReader(in), "bytes": iotest.OneByteReader(strings.NewReader(in)), "data with EOF": iotest.DataErrReader(strings.NewReader(in)),
		} {
			got, err := io.ReadAll(replace(src, "http://a", "https://edge"))
			if err != nil || string(got) != want {
				t.Errorf("%s %q: %q, %v; want %q", name, in, got, err, want)
			}
		}
	}
}
