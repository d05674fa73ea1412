package bundle

import "github.com/selvage-edge/selvage/runtime/function"

// ManifestName is the manifest's file name, in a function's folder and in a bundle.
const ManifestName = "selvage.toml"

// Manifest is what a function's author asks for.
type Manifest struct {
	Project  string // "default" if the file names none
	Name     string
	Routes   []string // canonical patterns, in the file's order
	Build    Build
	Limits   function.Limits // zero fields: not given
	Bindings function.Bindings
	Source   []byte // the file as written
}

// Build says how the module is made.
type Build struct {
	Command string // run by the shell in the function's folder; empty: nothing to run
	Output  string // the module's path, relative to the folder
}

// Fault is one thing wrong with a manifest.
type Fault struct {
	Line, Column int    // from 1; 0: the file as a whole
	Key          string // "limits.cpu"
	Message      string // what is wrong and what to do
}

// Faults are all of them, in the file's order.
type Faults struct {
	File string
	List []Fault
}

// Error returns a line "file:line:col: key: message" for each fault.
func (f *Faults) Error() string { panic("not yet") }

// ParseManifest reads a manifest; file is its name for errors. The error is a
// *Faults with everything that is wrong.
func ParseManifest(file string, source []byte) (*Manifest, error) { panic("not yet") }
