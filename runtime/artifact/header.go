package artifact

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/selvage-edge/selvage/runtime/function"
)

// A file is a header of 128 bytes and the artifact. Integers are little-endian.
//
//	0   8  magic "SELVART1"
//	8   8  size of the artifact
//	16  32 digest of the code
//	48  32 SHA-256 of the engine's fingerprint
//	80  16 zero
//	96  32 HMAC-SHA256 over the 96 bytes before and the artifact
const (
	headerSize = 128
	macAt      = 96
	magic      = "SELVART1"
	maxPayload = 1 << 30
)

// header says what a file holds.
type header struct {
	size   uint64
	code   [sha256.Size]byte
	engine [sha256.Size]byte
}

var errHeader = errors.New("its header is malformed")

// identify is the header of that code's artifact, without its size.
func identify(code function.Digest, fingerprint string) (header, error) {
	h := header{engine: sha256.Sum256([]byte(fingerprint))}
	if _, err := function.ParseDigest(string(code)); err != nil {
		return h, fmt.Errorf("artifact: %w", err)
	}
	_, err := hex.Decode(h.code[:], []byte(code.Hex()))
	return h, err
}

// file is the name under which the artifact is kept.
func (h header) file() string {
	return hex.EncodeToString(h.code[:]) + "-" + hex.EncodeToString(h.engine[:8]) + suffix
}

// encode is all of the header before the HMAC.
func (h header) encode() []byte {
	b := make([]byte, macAt, headerSize)
	copy(b, magic)
	binary.LittleEndian.PutUint64(b[8:], h.size)
	copy(b[16:], h.code[:])
	copy(b[48:], h.engine[:])
	return b
}

// decodeHeader reads what encode wrote, and nothing else. It proves nothing.
func decodeHeader(b []byte) (header, error) {
	if len(b) < headerSize || !bytes.HasPrefix(b, []byte(magic)) || !bytes.Equal(b[80:macAt], make([]byte, 16)) {
		return header{}, errHeader
	}
	h := header{size: binary.LittleEndian.Uint64(b[8:])}
	if h.size > maxPayload {
		return header{}, errHeader
	}
	copy(h.code[:], b[16:])
	copy(h.engine[:], b[48:])
	return h, nil
}

// mac is the HMAC of a file. The node's key is not used itself: what it is
// used for is part of the key.
func (k Key) mac(head, artifact []byte) []byte {
	purpose := hmac.New(sha256.New, k[:])
	purpose.Write([]byte("selvage artifact 1"))
	m := hmac.New(sha256.New, purpose.Sum(nil))
	m.Write(head)
	m.Write(artifact)
	return m.Sum(nil)
}

// sign returns the whole header of an artifact.
func (k Key) sign(h header, artifact []byte) []byte {
	head := h.encode()
	return append(head, k.mac(head, artifact)...)
}

// check returns the artifact in b, a whole file, if this node wrote it and it
// is the one that was asked for.
func (k Key) check(want header, b []byte) ([]byte, error) {
	h, err := decodeHeader(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	artifact := b[headerSize:]
	if h.size != uint64(len(artifact)) {
		return nil, fmt.Errorf("%w: it has %d bytes and should have %d", ErrCorrupt, len(artifact), h.size)
	}
	if !hmac.Equal(k.mac(b[:macAt], artifact), b[macAt:headerSize]) {
		return nil, fmt.Errorf("%w: its HMAC is wrong", ErrCorrupt)
	}
	if h.code != want.code || h.engine != want.engine {
		return nil, fmt.Errorf("%w: it is the artifact of other code or of another engine", ErrCorrupt)
	}
	return artifact, nil
}
