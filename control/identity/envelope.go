package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrUntrusted is wrapped by every refusal of something signed, expired or revoked.
var ErrUntrusted = errors.New("not trusted")

// KeyID names a public key: "sha256:" and 64 hex digits of the digest of its
// PKIX (SubjectPublicKeyInfo) form. The root key's is the fleet's fingerprint.
type KeyID string

const keyIDPrefix = "sha256:"

// ParseKeyID reads a key ID, as a person may have typed a fingerprint.
func ParseKeyID(s string) (KeyID, error) {
	h, ok := strings.CutPrefix(s, keyIDPrefix)
	if !ok || len(h) != 2*sha256.Size || strings.Trim(h, "0123456789abcdef") != "" {
		return "", fmt.Errorf("fingerprint %.80q: want sha256: and 64 lower-case hex digits", s)
	}
	return KeyID(s), nil
}

// Short returns the first 12 hex digits, for people.
func (k KeyID) Short() string {
	h := strings.TrimPrefix(string(k), keyIDPrefix)
	return h[:min(12, len(h))]
}

func (k KeyID) bytes() (b [sha256.Size]byte) {
	if h, err := hex.DecodeString(strings.TrimPrefix(string(k), keyIDPrefix)); err == nil {
		copy(b[:], h)
	}
	return b
}

func keyIDOf(spki []byte) KeyID {
	sum := sha256.Sum256(spki)
	return KeyID(keyIDPrefix + hex.EncodeToString(sum[:]))
}

// SignatureBytes is the size of an envelope's signature (Ed25519).
const SignatureBytes = 64

// Envelope is a payload with one signature over it and its type.
type Envelope struct {
	PayloadType string
	Payload     []byte
	KeyID       KeyID // says where to look; it is not trusted by itself
	Sig         []byte
}

// An encoded envelope is
//
//	"SLVE" 0x01        magic and version
//	u8  length, type   printable ASCII
//	32  key ID         the digest's bytes
//	64  signature
//	u32 length, payload  little-endian; to the end
//
// Binary and not DSSE's JSON: JSON has many spellings of one content (case of names, white
// space, duplicates), and what is signed should have one.
const (
	envelopeMagic = "SLVE\x01"
	envelopeFixed = len(envelopeMagic) + 1 + sha256.Size + SignatureBytes + 4
)

// Encode returns the envelope's only byte form.
func (e Envelope) Encode() []byte {
	id := e.KeyID.bytes()
	var sig [SignatureBytes]byte
	copy(sig[:], e.Sig)
	typ := e.PayloadType[:min(len(e.PayloadType), 255)]

	b := make([]byte, 0, envelopeFixed+len(typ)+len(e.Payload))
	b = append(b, envelopeMagic...)
	b = append(b, byte(len(typ)))
	b = append(b, typ...)
	b = append(b, id[:]...)
	b = append(b, sig[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Payload)))
	return append(b, e.Payload...)
}

var errEnvelope = errors.New("envelope: not of the form this version writes")

// DecodeEnvelope reads what Encode wrote, and nothing else: any other form of
// the same content is an error. The result shares b.
func DecodeEnvelope(b []byte) (Envelope, error) {
	rest, ok := bytes.CutPrefix(b, []byte(envelopeMagic))
	if !ok || len(b) < envelopeFixed || len(rest) < int(rest[0])+envelopeFixed-len(envelopeMagic) {
		return Envelope{}, errEnvelope
	}
	n := int(rest[0])
	typ, rest := string(rest[1:1+n]), rest[1+n:]
	id, rest := rest[:sha256.Size], rest[sha256.Size:]
	sig, rest := rest[:SignatureBytes:SignatureBytes], rest[SignatureBytes:]
	size, payload := binary.LittleEndian.Uint32(rest), rest[4:]
	if uint64(size) != uint64(len(payload)) || !plainType(typ) {
		return Envelope{}, errEnvelope
	}
	return Envelope{PayloadType: typ, Payload: payload, KeyID: KeyID(keyIDPrefix + hex.EncodeToString(id)), Sig: sig}, nil
}

func plainType(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// text is strict: it refuses set bits that carry nothing.
var text = base64.RawURLEncoding.Strict()

// MarshalText returns Encode in unpadded base64url, for JSON and headers.
func (e Envelope) MarshalText() ([]byte, error) {
	return text.AppendEncode(nil, e.Encode()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (e *Envelope) UnmarshalText(t []byte) error {
	if bytes.ContainsAny(t, "\r\n") { // the decoder would skip them
		return errEnvelope
	}
	b, err := text.AppendDecode(nil, t)
	if err != nil {
		return fmt.Errorf("envelope: %w", err)
	}
	*e, err = DecodeEnvelope(b)
	return err
}

// pae is DSSE's pre-authentication encoding of a payload and its type:
// "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body, lengths in decimal.
// https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md#signature-definition
func pae(payloadType string, payload []byte) []byte {
	b := make([]byte, 0, 64+len(payloadType)+len(payload))
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(b, ' ')
	b = append(b, payloadType...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, ' ')
	return append(b, payload...)
}

// DecodePayload reads a JSON payload into v, which must be a pointer to the
// struct it was marshalled from: it refuses whatever json.Marshal(v) would
// not have written (unknown, repeated or differently spelled names, white space).
func DecodePayload(payload []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	again, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	if !bytes.Equal(again, payload) {
		return errors.New("payload: not in its one form")
	}
	return nil
}
