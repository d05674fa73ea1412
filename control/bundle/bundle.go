package bundle

import (
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/function"
)

// Limits bound what Open accepts. Zero fields mean their defaults.
type Limits struct {
	PackedBytes   int64 // default 64 MiB
	UnpackedBytes int64 // default 64 MiB
	Ratio         int64 // unpacked to packed, counted above 1 MiB unpacked; default 100
}

// Bundle is an opened bundle: checked, not yet trusted (see Verify).
type Bundle struct {
	Manifest *Manifest
	Module   []byte
	Digest   function.Digest // of the packed bytes
}

// ErrTooLarge is wrapped by refusals over a size limit.
var ErrTooLarge error

// Pack makes the bundle of a manifest (as written) and a module. The same
// content gives the same bytes. It refuses what Open would refuse.
func Pack(manifest, module []byte) (packed []byte, digest function.Digest, err error) {
	panic("not yet")
}

// Open reads a bundle from anyone: bounded, nothing written, nothing run.
func Open(packed []byte, l Limits) (*Bundle, error) { panic("not yet") }

// PayloadType is the type of a publisher's signed statement.
const PayloadType = "application/vnd.selvage.bundle.v1+json"

// SignatureHeader is the HTTP header that carries Sign's envelope (its text form) beside an uploaded bundle.
const SignatureHeader = "Selvage-Signature"

// Sign states that the publisher released digest as project's function name.
func Sign(key *identity.Signer, project, name string, digest function.Digest) (identity.Envelope, error) {
	panic("not yet")
}

// Verifier is the trust Verify needs; *identity.Anchor and *identity.Trust are ones.
type Verifier interface {
	Verify(purpose identity.Purpose, project, payloadType string, e identity.Envelope) ([]byte, identity.KeyID, error)
}

// Verify checks that e is a publisher's statement for exactly this project, function and digest.
// Errors wrap identity.ErrUntrusted.
func Verify(t Verifier, e identity.Envelope, project, name string, digest function.Digest) (identity.KeyID, error) {
	panic("not yet")
}
