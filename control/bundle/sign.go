package bundle

import (
	"encoding/json"
	"fmt"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/function"
)

// PayloadType is the type of a publisher's signed statement.
const PayloadType = "application/vnd.selvage.bundle.v1+json"

// SignatureHeader is the HTTP header that carries Sign's envelope, in its text
// form, beside an uploaded bundle.
const SignatureHeader = "Selvage-Signature"

// statement is what a publisher signs: the names are in it, so that a bundle
// cannot be passed off as another function's or another project's.
type statement struct {
	Project  string          `json:"project"`
	Function string          `json:"function"`
	Digest   function.Digest `json:"digest"`
}

// Sign states that the publisher released digest as project's function name.
func Sign(key *identity.Signer, project, name string, digest function.Digest) (identity.Envelope, error) {
	payload, err := json.Marshal(statement{project, name, digest})
	if err != nil {
		return identity.Envelope{}, fmt.Errorf("sign bundle: %w", err)
	}
	return key.Sign(PayloadType, payload), nil
}

// Verifier is the trust Verify needs.
type Verifier interface {
	Verify(purpose identity.Purpose, project, payloadType string, e identity.Envelope) ([]byte, identity.KeyID, error)
}

var (
	_ Verifier = (*identity.Anchor)(nil)
	_ Verifier = (*identity.Trust)(nil)
)

// Verify checks that e is a publisher's statement for exactly this project,
// function and digest. Errors wrap identity.ErrUntrusted.
func Verify(t Verifier, e identity.Envelope, project, name string, digest function.Digest) (identity.KeyID, error) {
	payload, key, err := t.Verify(identity.PurposePublisher, project, PayloadType, e)
	if err != nil {
		return "", fmt.Errorf("verify bundle: %w", err)
	}
	var s statement
	if err := identity.DecodePayload(payload, &s); err != nil {
		return "", fmt.Errorf("verify bundle: %w: %w", identity.ErrUntrusted, err)
	}
	if want := (statement{project, name, digest}); s != want {
		return "", fmt.Errorf("verify bundle: %w: the signature is for %s/%s %s, this is %s/%s %s",
			identity.ErrUntrusted, s.Project, s.Function, s.Digest.Short(), project, name, digest.Short())
	}
	return key, nil
}
