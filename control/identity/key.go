package identity

import (
	"crypto"
	"crypto/ed25519"
)

// Fingerprint returns the key ID of an Ed25519 or ECDSA public key.
func Fingerprint(pub crypto.PublicKey) (KeyID, error) { panic("not yet") }

// Signer signs envelopes with one Ed25519 key. Safe for concurrent use.
type Signer struct {
	key ed25519.PrivateKey
	id  KeyID
}

// NewSigner makes a key.
func NewSigner() (*Signer, error) { panic("not yet") }

// LoadSigner reads a private key file that Save wrote; it refuses one that others may read.
func LoadSigner(path string) (*Signer, error) { panic("not yet") }

// Save writes the private key to path, mode 0600.
func (s *Signer) Save(path string) error { panic("not yet") }

// ID returns the key's ID.
func (s *Signer) ID() KeyID { return s.id }

// PublicKey returns the public half in PKIX form, as a Delegation holds it.
func (s *Signer) PublicKey() []byte { panic("not yet") }

// Sign puts payload in a signed envelope. It keeps payload.
func (s *Signer) Sign(payloadType string, payload []byte) Envelope { panic("not yet") }

// RootKey is the key all trust comes from.
type RootKey struct{ *Signer }

// LoadRootKey reads a root key file; passphrase is asked for only if the file
// needs one, and may be nil if it does not.
func LoadRootKey(path string, passphrase func() ([]byte, error)) (*RootKey, error) { panic("not yet") }
