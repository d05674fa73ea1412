// Package catalog owns what runs where: signed records, ordered by epoch and revision.
package catalog

import (
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/function"
)

// PayloadType is the type of a record's envelope.
const PayloadType = "application/vnd.selvage.catalog.v1+json"

// Position is a place in the catalog's order. Epochs compare first.
type Position struct {
	Epoch    uint64 `json:"epoch"`
	Revision uint64 `json:"revision"`
}

// Compare returns -1, 0 or +1.
func (p Position) Compare(q Position) int { panic("not yet") }

// Release makes one function version live, or says that the function is gone.
type Release struct {
	Project   string            `json:"project"`
	Function  string            `json:"function"`
	Number    uint64            `json:"number"` // counts the function's releases, from 1
	Bundle    function.Digest   `json:"bundle,omitempty"`
	Code      function.Digest   `json:"code,omitempty"`
	Image     function.Digest   `json:"image,omitempty"`
	Started   bool              `json:"started,omitempty"`
	Routes    []string          `json:"routes,omitempty"` // canonical patterns
	Limits    function.Limits   `json:"limits"`
	Bindings  function.Bindings `json:"bindings"`
	Publisher identity.KeyID    `json:"publisher,omitempty"`
	CreatedAt time.Time         `json:"created_at"`
	Removed   bool              `json:"removed,omitempty"` // then only Project, Function, Number and CreatedAt are set
}

// ID returns the function's name.
func (r *Release) ID() function.ID { return function.ID{Project: r.Project, Name: r.Function} }

// Version returns what the runtime needs of the release.
func (r *Release) Version() function.Version { panic("not yet") }

// Mode is how nodes hold a namespace.
type Mode string

// ModeCached keeps what was read, made fresh by the namespace's change stream.
const ModeCached Mode = "cached"

// Namespace is a KV namespace of a project.
type Namespace struct {
	Project   string    `json:"project"`
	Name      string    `json:"name"`
	Mode      Mode      `json:"mode"`
	CreatedAt time.Time `json:"created_at"`
	Removed   bool      `json:"removed,omitempty"`
}

// Record is one entry of the catalog: exactly one of Release and Namespace is set.
type Record struct {
	Position
	Release   *Release   `json:"release,omitempty"`
	Namespace *Namespace `json:"namespace,omitempty"`
}

// Key names what the record is about; a later record with the same key replaces
// it. "release/PROJECT/FUNCTION" or "namespace/PROJECT/NAME".
func (r *Record) Key() string { panic("not yet") }

// Validate reports every fault of the record's form.
func (r *Record) Validate() error { panic("not yet") }

// Sign validates the record and returns its encoded envelope: the value in the log and in change streams.
func (r *Record) Sign(key *identity.Signer) ([]byte, error) { panic("not yet") }

// Verifier is the trust Open needs; *identity.Anchor is one.
type Verifier interface {
	Verify(purpose identity.Purpose, project, payloadType string, e identity.Envelope) ([]byte, identity.KeyID, error)
}

// Open verifies and decodes what Sign made.
func Open(t Verifier, b []byte) (*Record, error) { panic("not yet") }
