package catalog

import (
	"encoding/json"
	"fmt"

	"github.com/selvage-edge/selvage/control/identity"
)

// PayloadType is the type of a record's envelope.
const PayloadType = "application/vnd.selvage.catalog.v1+json"

// MaxRecordBytes bounds a signed record: what a change stream carries inline.
const MaxRecordBytes = 64 << 10

// Verifier is the trust that records are checked by; *identity.Anchor is one.
type Verifier interface {
	Verify(purpose identity.Purpose, project, payloadType string, e identity.Envelope) ([]byte, identity.KeyID, error)
	VerifyKept(purpose identity.Purpose, project, payloadType string, e identity.Envelope) ([]byte, identity.KeyID, error)
}

var _ Verifier = (*identity.Anchor)(nil)

type verify func(purpose identity.Purpose, project, payloadType string, e identity.Envelope) ([]byte, identity.KeyID, error)

// Sign validates the record and returns its encoded envelope: the value in the
// log and in change streams.
func (r *Record) Sign(key *identity.Signer) ([]byte, error) {
	payload, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("sign catalog record: %w", err)
	}
	if _, err := decodeRecord(payload); err != nil { // what readers would refuse is not signed
		return nil, fmt.Errorf("sign: %w", err)
	}
	b := key.Sign(PayloadType, payload).Encode()
	if len(b) > MaxRecordBytes {
		return nil, fmt.Errorf("sign catalog record: %d bytes; at most %d. Put large variables in KV", len(b), MaxRecordBytes)
	}
	return b, nil
}

// Open verifies and decodes what Sign made. Errors of trust wrap identity.ErrUntrusted.
func Open(t Verifier, b []byte) (*Record, error) { return open(t.Verify, b) }

func open(v verify, b []byte) (*Record, error) {
	if len(b) > MaxRecordBytes {
		return nil, fmt.Errorf("catalog record: %d bytes; at most %d", len(b), MaxRecordBytes)
	}
	e, err := identity.DecodeEnvelope(b)
	if err != nil {
		return nil, fmt.Errorf("catalog record: %w", err)
	}
	payload, _, err := v(identity.PurposeCatalog, "", PayloadType, e)
	if err != nil {
		return nil, fmt.Errorf("catalog record: %w", err)
	}
	return decodeRecord(payload)
}

func decodeRecord(payload []byte) (*Record, error) {
	var r Record
	if err := identity.DecodePayload(payload, &r); err != nil {
		return nil, fmt.Errorf("catalog record: %w", err)
	}
	return &r, r.Validate()
}
