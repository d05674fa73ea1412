package store

import (
	"errors"
	"testing"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

func TestSubjectRefusesNames(t *testing.T) {
	for _, space := range []string{"/", "a/", "/a", "A", "a.b", "*", ">", "a b", "-a", "a-", "é", "a\x00", "../a"} {
		if s, err := subject("kv", space, "k"); !errors.Is(err, hostcall.ErrInvalid) {
			t.Errorf("%q became %q, %v", space, s, err)
		}
	}
}

func TestParseSubjectRefuses(t *testing.T) {
	for _, subj := range []string{"", "kv", "kv.", "kv.a.b.", "kx.a.b.aw", "kv.a.b.a+", "kv.A.b.aw", "kv.a.b.aw==", "kv.a.b.ax", "kv..aw"} {
		if space, key, err := parseSubject("kv", subj); err == nil {
			t.Errorf("%q became %q, %q", subj, space, key)
		}
	}
}

// Two keys never share a subject, and a subject stays below its namespace.
func FuzzSubject(f *testing.F) {
	f.Add("default", "links", "a", "default", "links", "b")
	f.Add("a", "b", "c.d", "a", "b", "c")
	f.Add("a", "b-c", "*", "a-b", "c", ">")
	f.Fuzz(func(t *testing.T, p1, n1, k1, p2, n2, k2 string) {
		one, err1 := subject("kv", p1+"/"+n1, k1)
		two, err2 := subject("kv", p2+"/"+n2, k2)
		if err1 == nil {
			space, key, err := parseSubject("kv", one)
			if err != nil || space != p1+"/"+n1 || key != k1 {
				t.Fatalf("%q %q %q: %q came back as %q %q, %v", p1, n1, k1, one, space, key, err)
			}
			dots := 0
			for _, c := range []byte(one) {
				switch {
				case c == '.':
					dots++
				case c == '*' || c == '>' || c <= ' ' || c >= 0x7f:
					t.Fatalf("%q is not a plain subject", one)
				}
			}
			if dots != 3 {
				t.Fatalf("%q has %d dots", one, dots)
			}
		}
		same := p1 == p2 && n1 == n2 && k1 == k2
		if err1 == nil && err2 == nil && (one == two) != same {
			t.Fatalf("%q and %q for %q %q %q and %q %q %q", one, two, p1, n1, k1, p2, n2, k2)
		}
	})
}

// What comes from the stream is ours or refused; never another key's.
func FuzzParseSubject(f *testing.F) {
	f.Add("kv.default.links.aw")
	f.Add("kv.default.links.aw==")
	f.Fuzz(func(t *testing.T, subj string) {
		space, key, err := parseSubject("kv", subj)
		if err != nil {
			return
		}
		if again, err := subject("kv", space, key); err != nil || again != subj {
			t.Fatalf("%q is %q %q, which is %q, %v", subj, space, key, again, err)
		}
	})
}
