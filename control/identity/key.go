package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

const pemKey = "PRIVATE KEY"

// Fingerprint returns the key ID of an Ed25519 or ECDSA public key.
func Fingerprint(pub crypto.PublicKey) (KeyID, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("fingerprint: %w", err)
	}
	return keyIDOf(spki), nil
}

// Signer signs envelopes with one Ed25519 key. Safe for concurrent use.
type Signer struct {
	key  ed25519.PrivateKey
	spki []byte
	id   KeyID
}

// NewSigner makes a key.
func NewSigner() (*Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	return signerOf(key)
}

func signerOf(key crypto.PrivateKey) (*Signer, error) {
	k, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("signing key: %T where Ed25519 is wanted", key)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	return &Signer{key: k, spki: spki, id: keyIDOf(spki)}, nil
}

// LoadSigner reads a private key file that Save wrote; it refuses one that
// others may read.
func LoadSigner(path string) (*Signer, error) {
	key, err := loadKey(path)
	if err != nil {
		return nil, fmt.Errorf("load signing key: %w", err)
	}
	return signerOf(key)
}

// Save writes the private key to path, mode 0600.
func (s *Signer) Save(path string) error { return saveKey(path, s.key) }

// ID returns the key's ID.
func (s *Signer) ID() KeyID { return s.id }

// PublicKey returns the public half in PKIX form, as a Delegation holds it.
func (s *Signer) PublicKey() []byte { return bytes.Clone(s.spki) }

// Sign puts payload in a signed envelope. It keeps payload.
func (s *Signer) Sign(payloadType string, payload []byte) Envelope {
	return Envelope{
		PayloadType: payloadType,
		Payload:     payload,
		KeyID:       s.id,
		Sig:         ed25519.Sign(s.key, pae(payloadType, payload)),
	}
}

// verifyBy checks e's signature alone.
func verifyBy(pub ed25519.PublicKey, e Envelope) error {
	if len(e.Sig) != SignatureBytes || !ed25519.Verify(pub, pae(e.PayloadType, e.Payload), e.Sig) {
		return fmt.Errorf("%w: the signature does not match; the content was changed or another key signed it", ErrUntrusted)
	}
	return nil
}

// parseEd25519 reads a PKIX public key; any other spelling of it is refused.
func parseEd25519(spki []byte) (ed25519.PublicKey, error) {
	pub, err := parsePublic(spki)
	if err != nil {
		return nil, err
	}
	k, ok := pub.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("public key: %T where Ed25519 is wanted", pub)
	}
	return k, nil
}

func parseECDSA(spki []byte) (*ecdsa.PublicKey, error) {
	pub, err := parsePublic(spki)
	if err != nil {
		return nil, err
	}
	k, ok := pub.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, fmt.Errorf("public key: %T where ECDSA P-256 is wanted", pub)
	}
	return k, nil
}

func parsePublic(spki []byte) (crypto.PublicKey, error) {
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	again, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil || !bytes.Equal(again, spki) {
		return nil, errors.New("public key: not in its one form")
	}
	return pub, nil
}

func newTLSKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a TLS key: %w", err)
	}
	return key, nil
}

func encodeKey(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

func saveKey(path string, key crypto.PrivateKey) error {
	b, err := encodeKey(key)
	if err != nil {
		return err
	}
	return WriteFile(path, b)
}

func loadKey(path string) (crypto.PrivateKey, error) {
	blocks, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	if len(blocks) != 1 || blocks[0].Type != pemKey {
		return nil, fmt.Errorf("%s: want one %s block", path, pemKey)
	}
	key, err := x509.ParsePKCS8PrivateKey(blocks[0].Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}
