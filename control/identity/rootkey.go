package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/scrypt"
)

const (
	pemRoot   = "SELVAGE ROOT KEY"
	pemSealed = "SELVAGE SEALED ROOT KEY"
)

// The cost of guessing a passphrase (RFC 7914): 2^17 * 8 * 128 bytes = 128 MiB
// and about half a second each. The file's salt header is bound by AES-GCM's
// additional data; the cost is fixed by the block's version, so that no file
// can ask for more.
const (
	scryptN   = 1 << 17
	scryptR   = 8
	scryptP   = 1
	saltBytes = 16
	sealV1    = "scrypt-131072-8-1+aes-256-gcm"
)

// ErrPassphrase is returned for a wrong passphrase, or a damaged file: they look alike.
var ErrPassphrase = errors.New("wrong passphrase, or the root key's file is damaged")

// RootKey is the key all trust comes from.
type RootKey struct{ *Signer }

// NewRootKey makes a root key.
func NewRootKey() (*RootKey, error) {
	s, err := NewSigner()
	if err != nil {
		return nil, err
	}
	return &RootKey{s}, nil
}

// Save writes the key to path, mode 0600, sealed if passphrase is not empty.
func (r *RootKey) Save(path string, passphrase []byte) error {
	der, err := x509.MarshalPKCS8PrivateKey(r.key)
	if err != nil {
		return fmt.Errorf("encode root key: %w", err)
	}
	block := &pem.Block{Type: pemRoot, Bytes: der}
	if len(passphrase) > 0 {
		if block, err = seal(der, passphrase); err != nil {
			return fmt.Errorf("seal root key: %w", err)
		}
	}
	return WriteFile(path, pem.EncodeToMemory(block))
}

// LoadRootKey reads a root key file; passphrase is asked for only if the file
// needs one, and may be nil if it does not.
func LoadRootKey(path string, passphrase func() ([]byte, error)) (*RootKey, error) {
	r, err := loadRootKey(path, passphrase)
	if err != nil {
		return nil, fmt.Errorf("load root key %s: %w", path, err)
	}
	return r, nil
}

func loadRootKey(path string, passphrase func() ([]byte, error)) (*RootKey, error) {
	blocks, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	if len(blocks) != 1 {
		return nil, errors.New("want one PEM block")
	}
	der, err := unwrapRoot(blocks[0], passphrase)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	s, err := signerOf(key)
	if err != nil {
		return nil, err
	}
	return &RootKey{s}, nil
}

func unwrapRoot(block *pem.Block, passphrase func() ([]byte, error)) ([]byte, error) {
	switch block.Type {
	case pemRoot:
		return block.Bytes, nil
	case pemSealed:
		if passphrase == nil {
			return nil, errors.New("it is sealed; give its passphrase")
		}
		p, err := passphrase()
		if err != nil {
			return nil, err
		}
		return unseal(block, p)
	}
	return nil, fmt.Errorf("a %q block is not a root key", block.Type)
}

func seal(plain, passphrase []byte) (*pem.Block, error) {
	salt := make([]byte, saltBytes)
	rand.Read(salt) // never fails: crypto/rand ends the process instead
	aead, err := sealer(passphrase, salt)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	return &pem.Block{
		Type:    pemSealed,
		Headers: map[string]string{"Seal": sealV1, "Salt": hex.EncodeToString(salt)},
		Bytes:   aead.Seal(nonce, nonce, plain, salt),
	}, nil
}

func unseal(block *pem.Block, passphrase []byte) ([]byte, error) {
	if s := block.Headers["Seal"]; s != sealV1 {
		return nil, fmt.Errorf("sealed as %q; this version knows %s", s, sealV1)
	}
	salt, err := hex.DecodeString(block.Headers["Salt"])
	if err != nil || len(salt) != saltBytes {
		return nil, ErrPassphrase
	}
	aead, err := sealer(passphrase, salt)
	if err != nil {
		return nil, err
	}
	n := aead.NonceSize()
	if len(block.Bytes) < n {
		return nil, ErrPassphrase
	}
	plain, err := aead.Open(nil, block.Bytes[:n], block.Bytes[n:], salt)
	if err != nil {
		return nil, ErrPassphrase
	}
	return plain, nil
}

func sealer(passphrase, salt []byte) (cipher.AEAD, error) {
	key, err := scrypt.Key(passphrase, salt, scryptN, scryptR, scryptP, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
