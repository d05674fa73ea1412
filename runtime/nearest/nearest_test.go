package nearest

import (
	"strings"
	"testing"
)

func TestWord(t *testing.T) {
	known := []string{"node", "listen", "control", "limits", "cpu", "queue", "queue_wait", "name"}
	for got, want := range map[string]string{
		"lisen": "listen", "listne": "listen", "Listen": "listen", "nmae": "name", "contrl": "control", "controls": "control", "limit": "limits",
		"queue-wait": "queue_wait", "cpus": "cpu", "cup": "cpu",
		"": "", "x": "", "speed": "", "something_else": "", strings.Repeat("l", 70): "",
	} {
		if w := Word(got, known); w != want {
			t.Errorf("%q: %q, want %q", got, w, want)
		}
	}
	if h := Hint("lisen", known); h != "did you mean `listen`? " || Hint("speed", known) != "" {
		t.Errorf("%q", h)
	}
}

func FuzzWord(f *testing.F) {
	f.Add("lisen", "listen")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, a, b string) {
		if w := Word(a, []string{b}); w != "" && w != b {
			t.Errorf("%q of %q", w, b)
		}
		if len(a) <= maxBytes && len(b) <= maxBytes {
			if d := distance(a, b); d != distance(b, a) || (d == 0) != (a == b) || d > max(len(a), len(b)) {
				t.Errorf("%q, %q: %d", a, b, d)
			}
		}
	})
}
