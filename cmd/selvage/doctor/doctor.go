// Package doctor looks at a machine, and a node's configuration, and says what is
// missing, what that means, and what to do.
package doctor

import (
	"cmp"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Warn Level = "warn" // it works, with less
	Fail Level = "fail" // it does not work
)

// Finding is one thing that was looked at.
type Finding struct {
	Level  Level  `json:"level"`
	Name   string `json:"name"`
	Found  string `json:"found"`
	Means  string `json:"means,omitempty"`  // what comes of it, where it is not ok
	Remedy string `json:"remedy,omitempty"` // what to do
}

// Options say what is looked at, beside the machine.
type Options struct {
	Edge    *config.Edge    // an edge node's configuration; nil: none
	Control *config.Control // a control node's; nil: none
	// ControlTime asks the fleet's control node for the time; nil: there is none to ask.
	ControlTime func() (time.Time, error)
}

// Examine looks at everything. It changes nothing: what it tries (a socket, a page of
// memory) it gives back.
func Examine(o Options) []Finding {
	var all []Finding
	all = append(all, kernel()...)
	all = append(all, memory()...)
	all = append(all, limits()...)
	all = append(all, jails()...)
	all = append(all, network()...)
	all = append(all, clock(o.ControlTime)...)
	if o.Edge != nil {
		all = append(all, edge(o.Edge)...)
	}
	if o.Control != nil {
		all = append(all, control(o.Control)...)
	}
	return all
}

// Worst returns the worst level found.
func Worst(all []Finding) Level {
	worst := OK
	for _, f := range all {
		if rank[f.Level] > rank[worst] {
			worst = f.Level
		}
	}
	return worst
}

var rank = map[Level]int{OK: 0, Warn: 1, Fail: 2}

// judge makes a finding: what is good needs no more words.
func judge(good bool, bad Level, name, found, means, remedy string) Finding {
	if good {
		return Finding{Level: OK, Name: name, Found: found}
	}
	return Finding{Level: bad, Name: name, Found: found, Means: means, Remedy: remedy}
}

// text is err's, or def without one.
func text(err error, def string) string {
	if err != nil {
		return err.Error()
	}
	return cmp.Or(def, "works")
}
