package identity

import "time"

// Purpose is what a delegated key may sign; a key has exactly one.
type Purpose string

// The purposes.
const (
	PurposeCA        Purpose = "ca"        // certificates of nodes and control nodes
	PurposeCatalog   Purpose = "catalog"   // catalog records
	PurposeChanges   Purpose = "changes"   // batches of change streams
	PurposePublisher Purpose = "publisher" // bundles of one project
)

// Delegation says that a key may act for one purpose, for a while. The root signs it.
type Delegation struct {
	Fleet     string    `json:"fleet"`
	Purpose   Purpose   `json:"purpose"`
	Subject   string    `json:"subject"`           // who holds the key, for people
	Project   string    `json:"project,omitempty"` // publishers only
	PublicKey []byte    `json:"public_key"`        // PKIX; ECDSA for ca, Ed25519 otherwise
	Serial    string    `json:"serial"`            // 32 hex digits, random
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// Revocations lists what is void before its time. The root signs it; a higher
// Number replaces a lower one and must hold all of it.
type Revocations struct {
	Fleet        string    `json:"fleet"`
	Number       uint64    `json:"number"`
	IssuedAt     time.Time `json:"issued_at"`
	Delegations  []string  `json:"delegations,omitempty"`  // serials
	Certificates []string  `json:"certificates,omitempty"` // serials of leaves, lower-case hex
}

// Bundle is a fleet's public trust material, as GET /v1/trust and joins return
// it and nodes keep it. It proves itself: it needs no secrecy and no signature of its own.
type Bundle struct {
	Root         []byte     `json:"root"` // PKIX
	Delegations  []Envelope `json:"delegations"`
	Revocations  *Envelope  `json:"revocations,omitempty"`
	Certificates [][]byte   `json:"certificates"` // the CA's, DER
}

// Delegate signs d with the root key, giving it a serial if it has none and
// lifetimes by its purpose if they are zero.
func (r *RootKey) Delegate(d Delegation, now time.Time) (Envelope, error) { panic("not yet") }

// Revoke signs the next revocation list of the fleet: all that the bundle's own list holds, and these serials.
func (r *RootKey) Revoke(b Bundle, delegations, certificates []string, now time.Time) (Bundle, error) {
	panic("not yet")
}

// LoadBundle reads a bundle file.
func LoadBundle(path string) (Bundle, error) { panic("not yet") }

// Save writes the bundle to path in one step.
func (b Bundle) Save(path string) error { panic("not yet") }
