// Package report states what a node says of itself and of the functions it runs,
// and adds it up per release and PoP.
package report

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/runtime/function"
)

// Path is where a node posts its Report, as JSON, on control's peer listener.
const Path = "/peer/v1/report"

// MaxBytes bounds one encoded Report.
const MaxBytes = 4 << 20

// State is where a node is with one release.
type State string

// The states. Live, Failed, Removed and Elsewhere are final.
const (
	Fetching  State = "fetching"  // the blobs are on their way
	Compiling State = "compiling" // code is being compiled, or the image mapped
	Live      State = "live"      // the route table serves it
	Failed    State = "failed"    // it cannot run here; Why says it
	Removed   State = "removed"   // it is no longer served
	Elsewhere State = "elsewhere" // it may not be held here: requests go on to where it may
)

// Final reports whether the state changes only with another release.
func (s State) Final() bool { return s == Live || s == Failed || s == Removed || s == Elsewhere }

func (s State) known() bool {
	return s == Fetching || s == Compiling || s.Final()
}

// Report is one node's word. The whole of it replaces the one before: a function
// that is not in it does not run there.
type Report struct {
	Node      string     `json:"node"` // must be the name in the node's certificate
	PoP       string     `json:"pop"`
	Region    string     `json:"region,omitempty"`
	Labels    []string   `json:"labels,omitempty"` // what its operator calls it, as key=value
	Public    string     `json:"public,omitempty"` // address requests reach, host:port
	Build     string     `json:"build,omitempty"`  // version of the binary
	Started   time.Time  `json:"started"`          // of the server process
	At        time.Time  `json:"at"`               // on the node's clock
	Epoch     uint64     `json:"epoch"`            // the catalog's, as applied here
	Revision  uint64     `json:"revision"`
	Draining  bool       `json:"draining,omitempty"` // it says that new traffic should go elsewhere
	Functions []Function `json:"functions,omitempty"`
	KV        []Space    `json:"kv,omitempty"`     // namespaces used here, MaxSpaces at most
	Copies    []Copy     `json:"copies,omitempty"` // of replicated namespaces that should be here, MaxSpaces at most
}

// MaxSpaces bounds the namespaces of one Report.
const MaxSpaces = 4096

// Space is what one KV namespace was asked for on the node since its server started.
type Space struct {
	Project   string `json:"project"`
	Namespace string `json:"namespace"`
	kv.Usage
}

// SpacesOf puts what edge/kv counts into a report's form; of too many it keeps the first.
func SpacesOf(all []kv.SpaceUsage) []Space {
	var out []Space
	for _, s := range all[:min(len(all), MaxSpaces)] {
		out = append(out, Space{s.Project, s.Name, s.Usage})
	}
	return out
}

// Function is where the node is with one function.
type Function struct {
	Project   string          `json:"project"`
	Function  string          `json:"function"`
	Release   uint64          `json:"release"` // its number
	Digest    function.Digest `json:"digest"`  // the bundle's
	State     State           `json:"state"`
	Why       string          `json:"why,omitempty"`
	CompileMS float64         `json:"compile_ms"`           // time to artifact, 0 when none was needed
	FromCache bool            `json:"from_cache,omitempty"` // the artifact was on disk
	ReadyMS   float64         `json:"ready_ms,omitempty"`   // from seeing the release to this state
}

// Validate refuses what no honest node sends; of an endless Why it keeps the beginning.
func (r *Report) Validate() error {
	if r.Node == "" || len(r.Node) > 128 || r.PoP == "" || len(r.PoP) > 128 {
		return errors.New("report: node and pop must be named, in at most 128 bytes")
	}
	if len(r.Labels) > 16 {
		return fmt.Errorf("report: %d labels, at most 16", len(r.Labels))
	}
	for _, s := range r.Labels {
		if _, err := function.ParseLabel(s); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	if len(r.KV) > MaxSpaces {
		return fmt.Errorf("report: %d namespaces, at most %d", len(r.KV), MaxSpaces)
	}
	for i, s := range r.KV {
		if s.Project == "" || s.Namespace == "" || len(s.Project)+len(s.Namespace) > 256 {
			return fmt.Errorf("report: namespace %d has no name or too long a one", i)
		}
	}
	if len(r.Copies) > MaxSpaces {
		return fmt.Errorf("report: %d copies, at most %d", len(r.Copies), MaxSpaces)
	}
	for i := range r.Copies {
		if err := r.Copies[i].validate(); err != nil {
			return fmt.Errorf("report: copy %d: %w", i, err)
		}
	}
	for i := range r.Functions {
		f := &r.Functions[i]
		if f.Project == "" || f.Function == "" || len(f.Project)+len(f.Function) > 256 {
			return fmt.Errorf("report: function %d has no name or too long a one", i)
		}
		if !f.State.known() {
			return fmt.Errorf("report: %s/%s: state %.40q is unknown", f.Project, f.Function, f.State)
		}
		if len(f.Why) > 4096 {
			f.Why = strings.ToValidUTF8(f.Why[:4096], "")
		}
	}
	return nil
}
