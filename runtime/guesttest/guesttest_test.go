package guesttest

import (
	"slices"
	"strings"
	"testing"
)

// TestRealGoGuestsFindTheirImports builds a standard Go guest that uses net/http
// as server and as client, and looks at what it asks for.
func TestRealGoGuestsFindTheirImports(t *testing.T) {
	if testing.Short() {
		t.Skip("builds net/http for wasip1")
	}
	offered := Offered()
	imports := Imports(t, GoGuest(t, Source(t, "raw")))
	for _, i := range imports {
		if !slices.Contains(offered, i) {
			t.Errorf("the host does not have %s", i)
		}
	}
	if !slices.ContainsFunc(imports, func(i string) bool { return strings.Contains(i, "path_open") }) {
		t.Errorf("this is not the guest it was meant to be: it imports %q", imports)
	}
}

func TestOfferedAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range Offered() {
		name, _, _ := strings.Cut(o, " ")
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
	}
}
