package bundle

import (
	"strings"
	"testing"
)

// Every documented key is one the parser knows, and in a manifest that uses
// them all there is none that is not documented.
func TestReferenceIsTrue(t *testing.T) {
	for _, k := range limitKeys {
		_, err := ParseManifest(ManifestName, []byte("name = 'x'\n[limits]\n"+k.name+" = true\n"))
		if err == nil || !strings.Contains(err.Error(), "wanted") {
			t.Errorf("limits.%s: %v", k.name, err)
		}
	}
	documented := map[string]bool{}
	for _, k := range manifestKeys {
		documented[k.name] = true
	}
	for _, k := range limitKeys {
		documented["limits."+k.name] = true
	}
	table := ""
	for line := range strings.Lines(full) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			table = strings.Trim(line, "[]") + "."
			continue
		}
		name, _, ok := strings.Cut(line, " = ")
		if ok && table != "variables." && !documented[table+name] {
			t.Errorf("%s%s is not documented", table, name)
		}
	}
}
