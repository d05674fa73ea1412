package identity

import (
	"sync"
	"sync/atomic"
	"time"
)

// Trust is a checked bundle: immutable, safe for concurrent use.
type Trust struct {
	fleet string
}

// NewTrust checks every signature of b down from root and refuses all of it if
// one part is false. Expired and revoked delegations are kept but never used.
// now is the clock; nil is time.Now.
func NewTrust(root KeyID, b Bundle, now func() time.Time) (*Trust, error) { panic("not yet") }

// Fleet returns the fleet's name.
func (t *Trust) Fleet() string { return t.fleet }

// Root returns the root key's fingerprint.
func (t *Trust) Root() KeyID { panic("not yet") }

// Bundle returns what the trust was made from; do not change it.
func (t *Trust) Bundle() Bundle { panic("not yet") }

// Delegations returns all delegations with their state, for people.
func (t *Trust) Delegations() []DelegationState { panic("not yet") }

// DelegationState is a delegation and whether it counts now.
type DelegationState struct {
	Delegation
	KeyID   KeyID
	Expired bool
	Revoked bool
}

// Verify returns e's payload and the key that signed it, if that key is
// delegated for purpose (and, for publishers, project; "" otherwise) now, and e is of payloadType.
// The error wraps ErrUntrusted and says which of these failed.
func (t *Trust) Verify(purpose Purpose, project, payloadType string, e Envelope) ([]byte, KeyID, error) {
	panic("not yet")
}

// Anchor holds the newest trust a process has, pinned to one root.
type Anchor struct {
	root KeyID
	path string
	cur  atomic.Pointer[Trust]
	mu   sync.Mutex
	now  func() time.Time
}

// NewAnchor checks b and holds it. If path is not empty, updates are saved there.
func NewAnchor(root KeyID, b Bundle, path string, now func() time.Time) (*Anchor, error) {
	panic("not yet")
}

// Trust returns the newest trust.
func (a *Anchor) Trust() *Trust { return a.cur.Load() }

// Verify is Trust().Verify.
func (a *Anchor) Verify(purpose Purpose, project, payloadType string, e Envelope) ([]byte, KeyID, error) {
	return a.Trust().Verify(purpose, project, payloadType, e)
}

// Update checks b and replaces the trust with it; it refuses another root or
// fleet and an older revocation list. Nothing changes on error.
func (a *Anchor) Update(b Bundle) error { panic("not yet") }
