package identity

import "errors"

// ErrUntrusted is wrapped by every refusal of something signed, expired or revoked.
var ErrUntrusted = errors.New("not trusted")

// KeyID names a public key: "sha256:" and 64 hex digits of the digest of its
// PKIX (SubjectPublicKeyInfo) form. The root key's is the fleet's fingerprint.
type KeyID string

// SignatureBytes is the size of an envelope's signature (Ed25519).
const SignatureBytes = 64

// Envelope is a payload with one signature over it and its type.
type Envelope struct {
	PayloadType string
	Payload     []byte
	KeyID       KeyID // says where to look; it is not trusted by itself
	Sig         []byte
}

// Encode returns the envelope's only byte form.
func (e Envelope) Encode() []byte { panic("not yet") }

// DecodeEnvelope reads what Encode wrote, and nothing else: any other form of
// the same content is an error. The result shares b.
func DecodeEnvelope(b []byte) (Envelope, error) { panic("not yet") }

// MarshalText returns Encode in unpadded base64url, for JSON and headers.
func (e Envelope) MarshalText() ([]byte, error) { panic("not yet") }

// UnmarshalText reads what MarshalText wrote.
func (e *Envelope) UnmarshalText(text []byte) error { panic("not yet") }
