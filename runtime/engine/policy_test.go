package engine

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine/cshim"
)

func TestPolicyRefuses(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(*policy)
	}{
		{"signals-based traps", func(p *policy) { p.SignalsBasedTraps = false }},
		{"guard", func(p *policy) { p.GuardBytes = 0 }},
		{"4 GiB", func(p *policy) { p.Reservation = 1 << 20 }},
		{"threads", func(p *policy) { p.Threads = true }},
		{"memory64", func(p *policy) { p.Memory64 = true }},
		{"GC", func(p *policy) { p.GC = true }},
		{"function references", func(p *policy) { p.FunctionReferences = true }},
		{"multiple memories", func(p *policy) { p.MultiMemory = true }},
		{"exceptions", func(p *policy) { p.Exceptions = true }},
		{"tail calls", func(p *policy) { p.TailCall = true }},
		{"relaxed SIMD", func(p *policy) { p.RelaxedSIMD = true }},
		{"component model", func(p *policy) { p.ComponentModel = true }},
	} {
		p := production
		c.change(&p)
		if _, err := open(Config{}.withDefaults(), p, maps{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.want, err)
		}
	}
	if err := production.check("linux", "amd64"); err != nil {
		t.Error(err)
	}
	for _, machine := range [][2]string{{"linux", "arm64"}, {"darwin", "amd64"}} {
		if production.check(machine[0], machine[1]) == nil {
			t.Errorf("%v is accepted", machine)
		}
	}
}

// An engine that takes what it must not is found out by asking it.
func TestProveAsksTheEngine(t *testing.T) {
	if err := production.prove(cshim.Validate); err != nil {
		t.Error(err)
	}
	for _, f := range forbidden {
		lax := func(module []byte) error {
			if string(module) == f.module {
				return nil
			}
			return cshim.Validate(module)
		}
		if err := production.prove(lax); err == nil || !strings.Contains(err.Error(), f.feature) {
			t.Errorf("%s: %v", f.feature, err)
		}
	}
	if production.prove(func([]byte) error { return errors.New("no") }) == nil {
		t.Error("an engine that takes nothing passes")
	}
}

// Each probe must be refused for its feature, not for being garbage.
func TestProbesNameTheirFeature(t *testing.T) {
	words := map[string]string{
		"threads": "threads", "memory64": "memory64", "multiple memories": "multi", "GC": "gc", "exceptions": "exceptions",
		"function references": "function references", "tail calls": "tail calls", "custom page sizes": "custom", "components": "component",
	}
	for _, f := range forbidden {
		err := cshim.Validate([]byte(f.module))
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(words[f.feature])) {
			t.Errorf("%s: %v", f.feature, err)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	bad := Config{Tick: 2 * time.Second, ResidentBytes: -1, TableElements: -1}
	err := bad.Validate()
	for _, want := range []string{"tick", "resident", "table"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not reported: %v", want, err)
		}
	}
	if _, err := Open(bad); err == nil {
		t.Error("Open takes it")
	}
}

func TestSecondOpen(t *testing.T) {
	if _, err := Open(Config{}); err == nil || !strings.Contains(err.Error(), "one engine per process") {
		t.Errorf("second Open: %v", err)
	}
}

func TestFingerprint(t *testing.T) {
	other := &Engine{policy: production}
	other.policy.GuardBytes++
	same := &Engine{policy: eng.policy}
	if eng.Fingerprint() != same.Fingerprint() || eng.Fingerprint() == other.Fingerprint() {
		t.Error("the fingerprint does not follow the configuration")
	}
	if quick := (&Engine{policy: eng.policy, quick: true}); quick.Fingerprint() == eng.Fingerprint() {
		t.Error("code that was compiled without optimization has the fingerprint of a node's")
	}
}
