package bundle

import (
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/runtime/fault"
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

// Every key that a fault or a refusal names is one a manifest may have.
func TestFaultsNameRealKeys(t *testing.T) {
	known := map[string]bool{"kv": true, "backends": true}
	for _, k := range manifestKeys {
		known[k.name] = true
	}
	for _, k := range limitKeys {
		known["limits."+k.name] = true
	}
	for _, k := range fault.Kinds() {
		if knob := k.Knob(); knob != "" && !known[knob] {
			t.Errorf("fault %s names %s, which no manifest has", k, knob)
		}
	}
	for _, r := range fault.Refusals() {
		if knob := r.Knob(); knob != "" && !known[knob] {
			t.Errorf("refusal %s names %s, which no manifest has", r, knob)
		}
	}
}
