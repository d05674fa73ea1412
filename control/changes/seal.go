package changes

import (
	"fmt"

	"github.com/selvage-edge/selvage/control/identity"
)

// Verifier is the trust that VerifyWith needs; *identity.Anchor and *identity.Trust are ones.
type Verifier interface {
	Verify(purpose identity.Purpose, project, payloadType string, e identity.Envelope) ([]byte, identity.KeyID, error)
}

// SealWith returns a ServerConfig.Seal that signs with key.
func SealWith(key *identity.Signer) func(payload []byte) ([]byte, error) {
	return func(payload []byte) ([]byte, error) {
		return key.Sign(PayloadType, payload).Encode(), nil
	}
}

// VerifyWith returns a FollowerConfig.Verify that accepts what a key delegated for changes signed.
func VerifyWith(t Verifier) func(sealed []byte) ([]byte, error) {
	return func(sealed []byte) ([]byte, error) {
		e, err := identity.DecodeEnvelope(sealed)
		if err != nil {
			return nil, fmt.Errorf("changes: sealed batch: %w", err)
		}
		payload, _, err := t.Verify(identity.PurposeChanges, "", PayloadType, e)
		return payload, err
	}
}
