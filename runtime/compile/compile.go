// Package compile takes a module from a developer's bytes to code and image,
// and code to an artifact; the costly and dangerous parts run in helpers.
package compile

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/jail"
	"github.com/selvage-edge/selvage/runtime/scan"
)

// Scan looks at a module without running or compiling any of it: is it within
// the limits, does it import only what the platform has, does it export what
// the platform calls. It is quick enough for a command line. Errors are scan's.
func Scan(module []byte) (scan.Report, error) { return scan.Module(module, allowed()) }

// allowed is the table of imports, of all interfaces.
var allowed = sync.OnceValue(func() []scan.Func {
	var all []scan.Func
	for _, im := range guest.Imports() {
		f := scan.Func{Module: im.Module, Name: im.Name}
		for _, k := range im.Params {
			f.Params = append(f.Params, byte(k))
		}
		for _, k := range im.Results {
			f.Results = append(f.Results, byte(k))
		}
		all = append(all, f)
	}
	return all
})

// Prepared is a module made ready to be stored: both halves by themselves, and
// what was found out.
type Prepared struct {
	Code    []byte // compile it on every node that has not seen it
	Image   []byte // encoded by runtime/image
	Started bool   // the image was taken after start-up: run only handle
	Report  Report
}

// Report is what a developer may want to know of a module.
type Report struct {
	Module      scan.Report   `json:"module"`
	MemoryBytes uint64        `json:"memory_bytes"` // that an instance has from the start
	Compile     time.Duration `json:"compile_ns"`
	Artifact    int           `json:"artifact_bytes"`
	Snapshot    Snapshot      `json:"snapshot"`
}

// Snapshot is what became of start-up.
type Snapshot struct {
	Wanted  bool          `json:"wanted"`  // the module has a start-up, and it may be run ahead
	Why     string        `json:"why"`     // it was wanted and not taken: the reason, and what to do
	CPU     time.Duration `json:"cpu_ns"`  // that every request is spared, or would be
	Printed string        `json:"printed"` // by start-up
	Notes   []string      `json:"notes"`   // what a snapshot changes for this guest
}

// Prepare scans, splits and compiles a module in a helper and runs its start-up
// there, as mode says. A *jail.Refused is for the developer: the module is at
// fault. So are jail.ErrTime and jail.ErrMemory, nearly always.
func Prepare(ctx context.Context, r jail.Runner, module []byte, mode function.Snapshot) (Prepared, error) {
	res, err := r.Run(ctx, jail.Prepare, encode(prepareMark, []byte(mode), module))
	if err != nil {
		return Prepared{}, fmt.Errorf("prepare: %w", err)
	}
	p, err := decodePrepared(res.Output)
	if err != nil {
		return Prepared{}, fmt.Errorf("prepare: the helper's output: %w", err)
	}
	return p, nil
}
