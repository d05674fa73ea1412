package sdktest

import (
	"os"
	"strings"
	"testing"
)

// TestStartUpThatFails has start-ups that must fail at deploy, and say why.
func TestStartUpThatFails(t *testing.T) {
	module, err := os.ReadFile(build(t, "guest"))
	if err != nil {
		t.Fatal(err)
	}
	s := source(t, module)
	for mode, want := range map[string]string{
		"no-serve": "main returned without calling edge.Serve",
		"panic":    "a bug at start",
		"warm-up":  "a bug in Warm",
		"variable": "edge: Var(NAME) was called at start-up",
		"kv":       "kv_open",
		"exit":     "exit status 3",
		"asleep":   "deadlock",
	} {
		t.Run(mode, func(t *testing.T) {
			err := startWith(t, s, "START="+mode)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("start-up: %v, want %q", err, want)
			}
		})
	}
}
