package changes

import (
	"encoding/binary"
	"fmt"

	"github.com/selvage-edge/selvage/control/identity"
)

// HeldType marks a signed Held; see identity.Envelope.
const HeldType = "application/vnd.selvage.held.v1"

// HeldPath is where control says, signed, what a namespace held: GET HeldPath/PROJECT/NAMESPACE
// with epoch and seq; 409 where that is not known: at a newer position it is.
const HeldPath = "/peer/v1/held"

// Held is control's word on what the namespace of Log had at a position: so many keys, of so many
// bytes, with that digest (runtime/tally). With it a copy may come from anybody.
type Held struct {
	Log string
	Position
	Keys  uint64
	Bytes uint64 // of keys, metadata and values up to MaxInline: a copy that has more is not it
	Sum   [32]byte
}

const heldVersion = 1

// maxHeldBytes is the longest encoding, and its signature.
const maxHeldBytes = 1 << 10

// Encode returns the bytes that are signed: u8 version, string log, uvarint epoch, seq, keys, bytes, 32 bytes sum.
func (h *Held) Encode() []byte {
	b := appendString([]byte{heldVersion}, h.Log)
	for _, n := range []uint64{h.Epoch, h.Seq, h.Keys, h.Bytes} {
		b = binary.AppendUvarint(b, n)
	}
	return append(b, h.Sum[:]...)
}

// DecodeHeld reads what Encode wrote, and nothing else.
func DecodeHeld(b []byte) (*Held, error) {
	d := decoder{b: b}
	if v := d.byte(); d.err == nil && v != heldVersion {
		return nil, fmt.Errorf("%w: what a namespace held, version %d; this binary reads version %d: upgrade it", ErrBatch, v, heldVersion)
	}
	h := &Held{Log: d.string(maxLogBytes)}
	h.Epoch, h.Seq, h.Keys, h.Bytes = d.uvarint(), d.uvarint(), d.uvarint(), d.uvarint()
	copy(h.Sum[:], d.take(len(h.Sum)))
	if d.err == nil && (len(d.b) != 0 || h.Log == "") {
		d.fail("%d bytes after its end, log %q", len(d.b), h.Log)
	}
	if d.err != nil {
		return nil, d.err
	}
	return h, nil
}

// SealHeld signs h.
func SealHeld(key *identity.Signer, h *Held) []byte { return key.Sign(HeldType, h.Encode()).Encode() }

// OpenHeld returns what a key delegated for changes signed.
func OpenHeld(t Verifier, sealed []byte) (*Held, error) {
	if len(sealed) > maxHeldBytes {
		return nil, fmt.Errorf("%w: %d bytes, over %d", ErrBatch, len(sealed), maxHeldBytes)
	}
	e, err := identity.DecodeEnvelope(sealed)
	if err != nil {
		return nil, fmt.Errorf("changes: what a namespace held: %w", err)
	}
	payload, _, err := t.Verify(identity.PurposeChanges, "", HeldType, e)
	if err != nil {
		return nil, fmt.Errorf("changes: what a namespace held: %w", err)
	}
	return DecodeHeld(payload)
}
