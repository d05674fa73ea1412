package route

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// The golden files in testdata have three parts: routes ("owner pattern"),
// lookups ("host path -> owner", "-" for none) and, instead of lookups, error:
// what Build must say, line by line.
func TestTables(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { checkFile(t, file) })
	}
}

func checkFile(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string][]string{}
	for _, f := range txtar.Parse(data).Files {
		parts[f.Name] = lines(string(f.Data))
	}
	table, err := Build(entries(t, parts["routes"]))
	if want := parts["error"]; want != nil {
		if err == nil || err.Error() != strings.Join(want, "\n") {
			t.Fatalf("error:\n%v\nwant:\n%s", err, strings.Join(want, "\n"))
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range parts["lookups"] {
		checkLookup(t, table, entries(t, parts["routes"]), l)
	}
}

func lines(s string) (all []string) {
	for sc := bufio.NewScanner(strings.NewReader(s)); sc.Scan(); {
		if l := strings.TrimSpace(sc.Text()); l != "" && l[0] != '#' {
			all = append(all, l)
		}
	}
	return all
}

func entries(t *testing.T, routes []string) (all []Entry[string]) {
	t.Helper()
	for _, l := range routes {
		owner, pattern, ok := strings.Cut(l, " ")
		if !ok {
			t.Fatalf("route line %q: want owner and pattern", l)
		}
		all = append(all, Entry[string]{Pattern: pattern, Owner: owner, Target: &owner})
	}
	return all
}

func checkLookup(t *testing.T, table *Table[string], all []Entry[string], l string) {
	t.Helper()
	request, want, _ := strings.Cut(l, " -> ")
	host, path, _ := strings.Cut(request, " ")
	got := "-"
	if target, ok := table.Lookup(host, path); ok {
		got = *target
	}
	if got != want {
		t.Errorf("%s %s: got %s, want %s", host, path, got, want)
	}
	matches := false
	for _, e := range all {
		p, err := ParsePattern(e.Pattern)
		if err != nil {
			t.Fatal(err)
		}
		if p.Match(host, path) {
			matches = true
		}
	}
	if matches != (want != "-") {
		t.Errorf("%s %s: Match says %v for some pattern, the table %s", host, path, matches, want)
	}
}

func TestPattern(t *testing.T) {
	good := map[string]string{
		"Example.COM./a/../b%7e": "example.com/b~",
		"*/*":                    "*/*",
		"*.Example.com/x/*":      "*.example.com/x/*",
		"a/x//*":                 "a/x/*",
		"[::1]/":                 "[::1]/",
	}
	for in, want := range good {
		p, err := ParsePattern(in)
		if err != nil || p.String() != want {
			t.Errorf("ParsePattern(%q) = %v, %v, want %s", in, p, err, want)
			continue
		}
		if q, err := ParsePattern(p.String()); err != nil || q != p {
			t.Errorf("%q does not parse to itself: %v, %v", p, q, err)
		}
	}
	for _, in := range []string{"", "example.com", "/a", "a*/b", "*a.com/", "a.*.com/", "a:80/", "a/b*", "a/*/b", "a/%zz", "a/b?c", "*.[::1]/", "*./"} {
		if p, err := ParsePattern(in); err == nil {
			t.Errorf("ParsePattern(%q) = %v, want an error", in, p)
		}
	}
}

func TestOverlap(t *testing.T) {
	tests := []struct {
		p, q string
		want bool
	}{
		{"a.com/x", "a.com/x", true},
		{"a.com/x", "a.com/y", false},
		{"a.com/x", "b.com/x", false},
		{"a.com/x/*", "a.com/x", true},
		{"a.com/x/*", "a.com/x/y/*", true},
		{"a.com/x/*", "a.com/xy/*", false},
		{"a.com/*", "*/x", true},
		{"*.a.com/*", "b.a.com/x", true},
		{"*.a.com/*", "a.com/x", false},
		{"*.a.com/*", "*.b.a.com/*", true},
		{"*.a.com/*", "*.b.com/*", false},
		{"*/*", "*.b.com/*", true},
	}
	for _, tt := range tests {
		p, err1 := ParsePattern(tt.p)
		q, err2 := ParsePattern(tt.q)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if p.Overlap(q) != tt.want || q.Overlap(p) != tt.want {
			t.Errorf("%s and %s: %v and %v, want %v", p, q, p.Overlap(q), q.Overlap(p), tt.want)
		}
	}
}

// FuzzPattern checks that a pattern parses to its canonical text and back.
func FuzzPattern(f *testing.F) {
	f.Add("*.Example.com/a/%2e/*")
	f.Add("[::1]/x")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePattern(s)
		if err != nil {
			return
		}
		if q, err := ParsePattern(p.String()); err != nil || q != p {
			t.Fatalf("%q is %q, which is %q, %v", s, p, q, err)
		}
	})
}

func fiveThousand(tb testing.TB) *Table[int] {
	var all []Entry[int]
	for i := range 1000 {
		host := fmt.Sprintf("tenant-%d.example.com", i)
		for _, path := range []string{"/*", "/api/*", "/api/v1/users", "/static/*"} {
			all = append(all, Entry[int]{Pattern: host + path, Owner: host, Target: new(int)})
		}
		all = append(all, Entry[int]{Pattern: fmt.Sprintf("*.wild-%d.example.net/*", i), Owner: host, Target: new(int)})
	}
	t, err := Build(all)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func TestLookupDoesNotAllocate(t *testing.T) {
	table := fiveThousand(t)
	for _, r := range lookups {
		if n := testing.AllocsPerRun(100, func() { table.Lookup(r.host, r.path) }); n > 0 {
			t.Errorf("%s: %v allocations", r.name, n)
		}
	}
}

var lookups = []struct{ name, host, path string }{
	{"exact", "tenant-500.example.com", "/api/v1/users"},
	{"prefix", "tenant-500.example.com", "/static/css/site.css"},
	{"wildcard", "a.b.wild-500.example.net", "/"},
	{"miss", "nobody.example.org", "/a/b/c/d"},
	{"hostile", "tenant-500.example.com", "/api" + strings.Repeat("/a", 8000)},
}

func BenchmarkLookup5000(b *testing.B) {
	table := fiveThousand(b)
	for _, r := range lookups {
		b.Run(r.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.Lookup(r.host, r.path)
			}
		})
	}
}
