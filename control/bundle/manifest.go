package bundle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/selvage-edge/selvage/runtime/function"
)

// ManifestName is the manifest's file name, in a function's folder and in a bundle.
const ManifestName = "selvage.toml"

// MaxManifestBytes bounds a manifest.
const MaxManifestBytes = 64 << 10

// maxFaults bounds what one manifest can make us say.
const maxFaults = 100

// Manifest is what a function's author asks for.
type Manifest struct {
	Project   string // "default" if the file names none
	Name      string
	Routes    []string // canonical patterns, in the file's order
	Build     Build
	Snapshot  function.Snapshot
	Limits    function.Limits // zero fields: not given
	Bindings  function.Bindings
	Placement function.Placement
	Source    []byte // the file as written
}

// ID returns the function's name.
func (m *Manifest) ID() function.ID { return function.ID{Project: m.Project, Name: m.Name} }

// Build says how the module is made.
type Build struct {
	Command string // run by the shell in the function's folder; empty: nothing to run
	Output  string // the module's path, relative to the folder; default NAME.wasm
}

// Fault is one thing wrong with a manifest.
type Fault struct {
	Line    int    `json:"line"` // from 1
	Column  int    `json:"column"`
	Key     string `json:"key,omitempty"` // "limits.cpu", "kv[2].access" (from 1)
	Message string `json:"message"`       // what is wrong and what to do
}

// Faults are all things wrong with a manifest, in the file's order.
type Faults struct {
	File string
	List []Fault
}

// Error returns a line "file:line:column: key: message" for each fault.
func (f *Faults) Error() string {
	var b strings.Builder
	for i, one := range f.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:%d:%d: ", f.File, one.Line, one.Column)
		if one.Key != "" {
			b.WriteString(one.Key + ": ")
		}
		b.WriteString(one.Message)
	}
	return b.String()
}

// ParseManifest reads a manifest; file is its name for errors. The error is a
// *Faults with everything that is wrong. source is kept.
func ParseManifest(file string, source []byte) (*Manifest, error) {
	r := &reader{places: map[string]place{}}
	m := &Manifest{Source: source}
	if root, ok := r.open(source); ok {
		readManifest(root, m)
	}
	if len(r.faults) == 0 {
		return m, nil
	}
	slices.SortStableFunc(r.faults, func(a, b Fault) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column, strings.Compare(a.Key, b.Key))
	})
	return nil, &Faults{File: file, List: r.faults[:min(len(r.faults), maxFaults)]}
}
