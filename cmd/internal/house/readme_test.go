package house

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadmeNamesTests holds README to what it says: each `go test PACKAGE -run TEST`
// runs a test that is there.
func TestReadmeNamesTests(t *testing.T) {
	const root = "../../.."
	page, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`go test (\\./[a-z/]+) -run ([A-Za-z0-9]+)`").FindAllStringSubmatch(string(page), -1)
	if all := strings.Count(string(page), "`go test "); len(named) == 0 || len(named) != all {
		t.Fatalf("%d of the %d commands that test are of the form `go test ./PACKAGE -run TEST`", len(named), all)
	}
	for _, n := range named {
		files, err := filepath.Glob(filepath.Join(root, n[1], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range files {
			source, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(source), "\nfunc "+n[2])
		}
		if !found {
			t.Errorf("README names %s of %s, and there is no such test", n[2], n[1])
		}
	}
}
