package wasip1

import (
	"testing"

	"github.com/selvage-edge/selvage/runtime/engine"
)

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, i := range Imports() {
		if seen[i.Name] {
			t.Errorf("%s is there twice", i.Name)
		}
		seen[i.Name] = true
		if len(i.Params) > engine.MaxArgs {
			t.Errorf("%s has %d parameters", i.Name, len(i.Params))
		}
		if suspends := i.Builtin.Suspends(); suspends != (i.Op != 0) {
			t.Errorf("%s: suspends %t, op %d", i.Name, suspends, i.Op)
		}
		if results := len(i.Results); results != 1 && i.Name != "proc_exit" {
			t.Errorf("%s has %d results, want an errno", i.Name, results)
		}
	}
	if len(seen) != 46 {
		t.Errorf("%d functions; preview 1 has 46", len(seen))
	}
}
