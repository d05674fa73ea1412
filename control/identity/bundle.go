package identity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// What a bundle may hold at most.
const (
	maxDelegations  = 20_000
	maxCertificates = 16
)

// Bundle is a fleet's public trust material, as GET /v1/trust and joins return
// it and nodes keep it. It proves itself: it needs no secrecy and no signature of its own.
type Bundle struct {
	Root         []byte     `json:"root"` // PKIX
	Delegations  []Envelope `json:"delegations"`
	Revocations  *Envelope  `json:"revocations,omitempty"`
	Certificates [][]byte   `json:"certificates"` // the CA's, DER
}

// LoadBundle reads a bundle file. It is not checked; see NewTrust.
func LoadBundle(path string) (Bundle, error) {
	var b Bundle
	data, err := readFile(path)
	if err == nil {
		err = json.Unmarshal(data, &b)
	}
	if err != nil {
		return Bundle{}, fmt.Errorf("load trust %s: %w", path, err)
	}
	return b, nil
}

// Save writes the bundle to path in one step.
func (b Bundle) Save(path string) error {
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return fmt.Errorf("save trust: %w", err)
	}
	return WriteFile(path, append(data, '\n'))
}

// With returns the bundle with more delegations and CA certificates; b itself does not change.
func (b Bundle) With(delegations []Envelope, certificates [][]byte) Bundle {
	b.Delegations = slices.Concat(b.Delegations, delegations)
	b.Certificates = slices.Concat(b.Certificates, certificates)
	return b
}

// Merge returns what either bundle holds. The root is more's, and so are the
// revocations if it has any: whoever takes the result over checks them.
func (b Bundle) Merge(more Bundle) Bundle {
	held := map[string]bool{}
	for _, d := range b.Delegations {
		held[string(d.Encode())] = true
	}
	isHeld := func(d Envelope) bool { return held[string(d.Encode())] }
	hasCA := func(c []byte) bool {
		return slices.ContainsFunc(b.Certificates, func(o []byte) bool { return bytes.Equal(o, c) })
	}
	out := b.With(slices.DeleteFunc(slices.Clone(more.Delegations), isHeld), slices.DeleteFunc(slices.Clone(more.Certificates), hasCA))
	out.Root = more.Root
	if more.Revocations != nil {
		out.Revocations = more.Revocations
	}
	return out
}
