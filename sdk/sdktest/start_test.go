package sdktest

import (
	"os"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/runtime/guesttest"
)

// TestStartUpThatFails has start-ups that must fail at deploy, and say why.
func TestStartUpThatFails(t *testing.T) {
	module, err := os.ReadFile(build(t, "guest"))
	if err != nil {
		t.Fatal(err)
	}
	code, img := guesttest.Split(t, module)
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
			_, err := start(t, code, img, "START="+mode)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("start-up: %v, want %q", err, want)
			}
		})
	}
}
