package compile

import (
	"errors"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/jail"
)

// Whether start-up is run ahead depends on the manifest, on what the module is
// made for, and on what start-up asks for; the author is told by name and what to do.
func TestWhoseStartUpRunsAhead(t *testing.T) {
	const (
		auto, required, off = function.SnapshotAuto, function.SnapshotRequired, function.SnapshotOff
		plain               = `(func (export "_initialize") (i32.store (i32.const 0) (i32.const 7)))`
		section             = `(start $s) (func $s (i32.store (i32.const 0) (i32.const 7)))`
		random              = `(func (export "_initialize") (drop (call $wasi_random_get (i32.const 0) (i32.const 8))))`
		clocks              = `(func (export "_initialize") (drop (call $clock_now (i32.const 0))) (drop (call $wasi_environ_sizes_get (i32.const 0) (i32.const 4))))`
		moody               = `(func (export "_initialize") (drop (call $wasi_environ_sizes_get (i32.const 0) (i32.const 4))) (call $wasi_proc_exit (i32.const 1)))`
		broken              = `(func (export "_initialize") unreachable)`
		waits               = `(func (export "_initialize") (drop (call $kv_open (i32.const 0) (i32.const 1))))`
		tables              = `(table 1 funcref) (func (export "_initialize") (table.set (i32.const 0) (ref.null func)))`
		made                = `(func (export "selvage_start") (drop (call $random (i32.const 0) (i32.const 8))) (drop (call $clock_now (i32.const 0))))`
		none                = ``
	)
	r := openJail(t, jail.Config{})
	for name, tc := range map[string]struct {
		body    string
		mode    function.Snapshot
		started bool
		says    string // in a note, or in why not
		refused string
	}{
		"none":                 {none, auto, false, "", ""},
		"none required":        {none, required, false, "", "no start-up"},
		"none off":             {none, off, false, "", ""},
		"plain":                {plain, auto, true, "ran once", ""},
		"plain off":            {plain, off, false, "again with each request", ""},
		"start section":        {section, auto, true, "ran once", ""},
		"random":               {random, auto, false, `asked for what is another with each request: random numbers; set snapshot = "required"`, ""},
		"random required":      {random, required, true, "asked for random numbers", ""},
		"clock":                {clocks, auto, false, "the time, the environment", ""},
		"clock required":       {clocks, required, true, "asked for the time", ""},
		"fails by environment": {moody, auto, false, "exited with status 1; see to it", ""},
		"environment required": {moody, required, false, "", "exited with status 1"},
		"fails always":         {broken, auto, false, "", "unreachable"},
		"waits":                {waits, auto, false, "selvage_v1.kv_open, which is not allowed during start-up; call it from the handler", ""},
		"waits required":       {waits, required, false, "", "selvage_v1.kv_open"},
		"tables":               {tables, auto, false, "table.set", ""},
		"tables required":      {tables, required, false, "", "table.set"},
		"made for it":          {made, auto, true, "asked for random numbers", ""},
		"made for it, off":     {made, off, false, "again with each request", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Prepare(t.Context(), r, guesttest.Guest(t, tc.body+`(func (export "handle"))`), tc.mode)
			var refused *jail.Refused
			if errors.As(err, &refused) != (tc.refused != "") || refused == nil && err != nil {
				t.Fatalf("err = %v; want refused %q", err, tc.refused)
			}
			if refused != nil {
				if !strings.Contains(refused.Reason, tc.refused) || tc.mode == required && !strings.Contains(refused.Reason, `snapshot = "required"`) {
					t.Errorf("refused: %s; want %q", refused.Reason, tc.refused)
				}
				return
			}
			s := p.Report.Snapshot
			said := strings.Join(append(s.Notes, s.Why), "\n")
			if p.Started != tc.started || !strings.Contains(said, tc.says) || tc.says == "" && said != "" || strings.Contains(s.Why, "\n") {
				t.Errorf("started %t, said %q; want %t, %q", p.Started, said, tc.started, tc.says)
			}
		})
	}
}
