package compile

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/runtime/scan"
	"github.com/selvage-edge/selvage/runtime/snapshot"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// start runs start-up ahead, if the module has one and mode and the module allow,
// and returns the image to start requests from. A start-up that cannot be run
// ahead runs with every request: the report says why.
func (p *Prepared) start(s snapshot.Source, mode function.Snapshot) (*image.Image, error) {
	entries := snapshot.Entries(s.Code)
	switch {
	case len(entries) == 0 && mode == function.SnapshotRequired:
		return nil, refuse(errors.New(`snapshot = "required": the module has no start-up, which is a start section or the export ` +
			abi.ExportInitialize + " or " + abi.ExportStart + "; leave the key out"))
	case len(entries) == 0:
		return s.Image, nil
	case mode == function.SnapshotOff:
		p.Report.Snapshot.Notes = []string{`snapshot = "off": start-up runs again with each request`}
		return s.Image, nil
	}
	r, err := snapshot.Take(s, snapshot.Default)
	p.Report.Snapshot = Snapshot{Wanted: true, CPU: r.CPU, Printed: r.Printed}
	made := slices.Contains(entries, abi.ExportStart)
	if err == nil && !made && mode == function.SnapshotAuto {
		err = changing(r.Asked)
	}
	switch {
	case err == nil:
		p.Started = true
		p.Report.Snapshot.Notes = p.freezes(r)
		return r.Image, nil
	case errors.Is(err, snapshot.ErrFailed) && (made || r.Asked == engine.Asked{}):
		// It would fail the same way with every request.
		return nil, refuse(fmt.Errorf("%s%s", oneLine(err), printed(r.Printed)))
	case !isReason(err):
		return nil, err
	}
	why := oneLine(err) + "; " + advice(err)
	if mode == function.SnapshotRequired {
		return nil, refuse(fmt.Errorf(`snapshot = "required": %s%s`, why, printed(r.Printed)))
	}
	p.Report.Snapshot.Why = why
	return s.Image, nil
}

// errChanging is why a start-up that is not made to be run ahead is not.
var errChanging = errors.New("start-up asked for what is another with each request")

// changing is the error for what was asked for; nil for nothing.
func changing(a engine.Asked) error {
	if a == (engine.Asked{}) {
		return nil
	}
	return fmt.Errorf("%w: %s", errChanging, strings.Join(words(a), ", "))
}

func words(a engine.Asked) (list []string) {
	for _, x := range []struct {
		is   bool
		word string
	}{{a.Random, "random numbers"}, {a.Time, "the time"}, {a.Environment, "the environment"}} {
		if x.is {
			list = append(list, x.word)
		}
	}
	return list
}

// reasons are what may keep a start-up from being run ahead, each with what its
// author can do.
var reasons = []struct {
	is  error
	say string
}{
	{snapshot.ErrHostCall, "call it from the handler instead"},
	{snapshot.ErrInexact, "have the toolchain leave it out, or let start-up run with each request"},
	{snapshot.ErrTime, "do less there"},
	{snapshot.ErrMemory, "use less there"},
	{snapshot.ErrFailed, "see to it that it does not depend on those"},
	{errChanging, `set snapshot = "required" in the manifest if all requests may share what it made of that`},
}

func isReason(err error) bool { return advice(err) != "" }

func advice(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.is) {
			return r.say
		}
	}
	return ""
}

// freezes is what a snapshot changes for a guest, and what it does not.
func (p *Prepared) freezes(r snapshot.Result) []string {
	notes := []string{fmt.Sprintf("start-up ran once, now, in %s: each request begins with the %.1f MiB of memory that it left, "+
		"and its variables as they were then", r.CPU.Round(10*time.Microsecond), float64(r.Image.Size)/(1<<20))}
	if p.isGo() {
		return append(notes, goFreezes(p.reseeds())...)
	}
	if r.Asked.Random {
		notes = append(notes, "start-up asked for random numbers: what it made of them, a generator's seed say, is the same in every request; "+
			"those that a request asks for are fresh")
	}
	if r.Asked.Time {
		notes = append(notes, "start-up asked for the time: what it kept of it stays that of the deploy; the clock itself goes on")
	}
	if r.Asked.Environment {
		notes = append(notes, "start-up asked for the environment, which is empty there: variables are seen by those who ask in a request")
	}
	return notes
}

// goFreezes is the same for standard Go, whose runtime always asks for all three.
// reseeds says that the guest asks the host for what its runtime draws from, as the SDK does.
func goFreezes(reseeds bool) []string {
	frozen := "frozen: what start-up made of a seed (rand.New of math/rand, maphash.MakeSeed) and the environment (use edge.Var); " +
		"no variables, KV or fetch before edge.Serve"
	if !reseeds {
		frozen += "; also what the functions of math/rand draw and the order of maps, which sdk/go would seed anew"
		return []string{frozen, "fresh in each request: crypto/rand, the time"}
	}
	return []string{frozen, "fresh in each request: crypto/rand, the functions of math/rand, the order of maps, the time"}
}

// reseeds reports whether the module imports the call that sdk/go seeds Go's runtime with.
func (p *Prepared) reseeds() bool {
	return slices.Contains(p.Report.Module.Imports, scan.Import{Module: abi.Module, Name: abi.CallRandom})
}

func (p *Prepared) isGo() bool {
	return slices.ContainsFunc(p.Report.Module.Producers, func(s string) bool { return strings.HasPrefix(s, "language Go") })
}
