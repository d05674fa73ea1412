package node

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// secretBytes is the length of the node's own secret.
const secretBytes = 32

// openSecret reads the node's own secret, making it on the first start. What the
// node must be able to recognise as its own (compiled code, QUIC tokens) is keyed with what
// is derived from it; it never leaves the node.
func openSecret(path string) ([]byte, error) {
	if i, err := os.Lstat(path); err == nil && (!i.Mode().IsRegular() || i.Mode().Perm()&0o077 != 0) {
		return nil, fmt.Errorf("node secret %s is %s: it must be a plain file that only its owner can read (chmod 600)", path, i.Mode())
	}
	b, err := os.ReadFile(path)
	if err == nil && len(b) == secretBytes {
		return b, nil
	}
	if err == nil {
		return nil, fmt.Errorf("node secret %s has %d bytes, not %d: remove it to have another made (compiled code is then made again)", path, len(b), secretBytes)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("node secret: %w", err)
	}
	b = make([]byte, secretBytes)
	_, _ = rand.Read(b) // never fails
	if err := writeSecret(path, b); err != nil {
		return nil, fmt.Errorf("node secret: %w", err)
	}
	return b, nil
}

func writeSecret(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// derive returns the key for one purpose (RFC 5869).
func derive(secret []byte, purpose string) [32]byte {
	k, err := hkdf.Key(sha256.New, secret, nil, "selvage node "+purpose, 32)
	if err != nil {
		panic(err) // 32 bytes are always to be had
	}
	return [32]byte(k)
}
