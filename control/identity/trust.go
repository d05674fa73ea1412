package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// Trust is a checked bundle: immutable, safe for concurrent use.
type Trust struct {
	fleet   string
	root    KeyID
	rootKey ed25519.PublicKey
	bundle  Bundle
	byKey   map[KeyID][]Delegation
	all     []Delegation // in the bundle's order
	cas     []*x509.Certificate
	revoked Revocations
	void    map[string]bool // revoked serials, of both sorts
	now     func() time.Time
}

// NewTrust checks every signature of b down from root and refuses all of it if
// one part is false. Expired and revoked delegations are kept but never used.
// now is the clock; nil is time.Now.
func NewTrust(root KeyID, b Bundle, now func() time.Time) (*Trust, error) {
	t := &Trust{root: root, bundle: b, byKey: map[KeyID][]Delegation{}, void: map[string]bool{}, now: clock(now)}
	for _, step := range []func() error{t.checkRoot, t.checkDelegations, t.checkRevocations, t.checkCertificates} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("trust: %w", err)
		}
	}
	return t, nil
}

func clock(now func() time.Time) func() time.Time {
	if now == nil {
		return time.Now
	}
	return now
}

func (t *Trust) checkRoot() (err error) {
	if t.rootKey, err = parseEd25519(t.bundle.Root); err != nil {
		return fmt.Errorf("%w: root %w", ErrUntrusted, err)
	}
	if id := keyIDOf(t.bundle.Root); id != t.root {
		return fmt.Errorf("%w: its root key is %s, the one pinned is %s: another fleet, or someone in between", ErrUntrusted, id, t.root)
	}
	return nil
}

func (t *Trust) checkDelegations() error {
	if n := len(t.bundle.Delegations); n == 0 || n > maxDelegations {
		return fmt.Errorf("%w: %d delegations; want 1 to %d", ErrUntrusted, n, maxDelegations)
	}
	serials := map[string]bool{}
	for i, e := range t.bundle.Delegations {
		d, err := openDelegation(t.root, t.rootKey, e)
		if err != nil {
			return fmt.Errorf("delegation %d: %w", i+1, err)
		}
		if serials[d.Serial] {
			return fmt.Errorf("%w: delegation %d: serial %s twice", ErrUntrusted, i+1, d.Serial)
		}
		serials[d.Serial] = true
		if err := t.add(d); err != nil {
			return fmt.Errorf("delegation %d: %w", i+1, err)
		}
	}
	return nil
}

// openDelegation reads a delegation signed by this root key and nothing else.
func openDelegation(root KeyID, key ed25519.PublicKey, e Envelope) (Delegation, error) {
	var d Delegation
	if err := openByRoot(root, key, delegationType, e, &d); err != nil {
		return d, err
	}
	if err := d.Validate(); err != nil {
		return d, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	return d, nil
}

func openByRoot(root KeyID, key ed25519.PublicKey, payloadType string, e Envelope, v any) error {
	if e.PayloadType != payloadType || e.KeyID != root {
		return fmt.Errorf("%w: %q by %s, want %q by the root key %s", ErrUntrusted, e.PayloadType, e.KeyID.Short(), payloadType, root.Short())
	}
	if err := verifyBy(key, e); err != nil {
		return err
	}
	if err := DecodePayload(e.Payload, v); err != nil {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	return nil
}

func (t *Trust) add(d Delegation) error {
	if t.fleet == "" {
		t.fleet = d.Fleet
	}
	id := keyIDOf(d.PublicKey)
	switch held := t.byKey[id]; {
	case d.Fleet != t.fleet:
		return fmt.Errorf("%w: for fleet %s among those of fleet %s", ErrUntrusted, d.Fleet, t.fleet)
	case id == t.root:
		return fmt.Errorf("%w: the root key does no other work", ErrUntrusted)
	case len(held) > 0 && held[0].Purpose != d.Purpose:
		return fmt.Errorf("%w: key %s for %s and for %s; make a key for each", ErrUntrusted, id.Short(), held[0].Purpose, d.Purpose)
	}
	t.byKey[id] = append(t.byKey[id], d)
	t.all = append(t.all, d)
	return nil
}

func (t *Trust) checkRevocations() error {
	if t.bundle.Revocations == nil {
		return nil
	}
	if err := openByRoot(t.root, t.rootKey, revocationType, *t.bundle.Revocations, &t.revoked); err != nil {
		return fmt.Errorf("revocations: %w", err)
	}
	if err := t.revoked.validate(); err != nil {
		return fmt.Errorf("%w: revocations: %w", ErrUntrusted, err)
	}
	if t.revoked.Fleet != t.fleet {
		return fmt.Errorf("%w: revocations of fleet %s among delegations of fleet %s", ErrUntrusted, t.revoked.Fleet, t.fleet)
	}
	for _, s := range slices.Concat(t.revoked.Delegations, t.revoked.Certificates) {
		t.void[s] = true
	}
	return nil
}

func (t *Trust) checkCertificates() error {
	if n := len(t.bundle.Certificates); n > maxCertificates {
		return fmt.Errorf("%w: %d CA certificates; want at most %d", ErrUntrusted, n, maxCertificates)
	}
	for i, der := range t.bundle.Certificates {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("%w: CA certificate %d: %w", ErrUntrusted, i+1, err)
		}
		if err := t.checkCA(c); err != nil {
			return fmt.Errorf("CA certificate %d: %w", i+1, err)
		}
		t.cas = append(t.cas, c)
	}
	return nil
}

func (t *Trust) checkCA(c *x509.Certificate) error {
	held := t.byKey[keyIDOf(c.RawSubjectPublicKeyInfo)]
	if len(held) == 0 || held[0].Purpose != PurposeCA {
		return fmt.Errorf("%w: its key is not delegated as the fleet's CA", ErrUntrusted)
	}
	if !c.IsCA {
		return fmt.Errorf("%w: not a CA's", ErrUntrusted)
	}
	if err := c.CheckSignatureFrom(c); err != nil {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	return nil
}

// Fleet returns the fleet's name.
func (t *Trust) Fleet() string { return t.fleet }

// Root returns the root key's fingerprint.
func (t *Trust) Root() KeyID { return t.root }

// Bundle returns what the trust was made from; do not change it.
func (t *Trust) Bundle() Bundle { return t.bundle }

// DelegationState is a delegation and whether it counts now.
type DelegationState struct {
	Delegation
	KeyID   KeyID `json:"key_id"`
	Expired bool  `json:"expired"` // or not yet valid
	Revoked bool  `json:"revoked"`
}

// Delegations returns all delegations with their state, for people.
func (t *Trust) Delegations() []DelegationState {
	now := t.now()
	states := make([]DelegationState, len(t.all))
	for i, d := range t.all {
		states[i] = DelegationState{d, keyIDOf(d.PublicKey), !d.validAt(now), t.void[d.Serial]}
	}
	return states
}

// Verify returns e's payload and the key that signed it, if that key is
// delegated for purpose (and, for publishers, project; "" otherwise) now, and e
// is of payloadType. The error wraps ErrUntrusted and says which of these failed.
func (t *Trust) Verify(purpose Purpose, project, payloadType string, e Envelope) ([]byte, KeyID, error) {
	return t.verify(purpose, project, payloadType, e, t.inTime)
}

// VerifyKept is Verify for what this process verified before and kept on disk: a
// delegation that has ended since still counts, unless it was revoked. So a node serves what it has
// although its clock is wrong at boot or a renewal was missed.
func (t *Trust) VerifyKept(purpose Purpose, project, payloadType string, e Envelope) ([]byte, KeyID, error) {
	return t.verify(purpose, project, payloadType, e, func(*Delegation) string { return "" })
}

func (t *Trust) verify(purpose Purpose, project, payloadType string, e Envelope, late func(*Delegation) string) ([]byte, KeyID, error) {
	if e.PayloadType != payloadType {
		return nil, "", fmt.Errorf("%w: signed as %.80q where %q is wanted", ErrUntrusted, e.PayloadType, payloadType)
	}
	d, err := t.delegation(e.KeyID, purpose, project, late)
	if err != nil {
		return nil, "", err
	}
	key, err := parseEd25519(d.PublicKey)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if err := verifyBy(key, e); err != nil {
		return nil, "", err
	}
	return e.Payload, e.KeyID, nil
}

// delegation returns one that allows key to act, or why none does. late says
// what is wrong with a delegation's time, "" if nothing.
func (t *Trust) delegation(key KeyID, purpose Purpose, project string, late func(*Delegation) string) (*Delegation, error) {
	held := t.byKey[key]
	if len(held) == 0 {
		return nil, fmt.Errorf("%w: key %s has no delegation from the root", ErrUntrusted, key.Short())
	}
	why := ""
	for i := range held {
		d := &held[i]
		if why = t.objection(d, purpose, project); why == "" {
			why = late(d)
		}
		if why == "" {
			return d, nil
		}
	}
	return nil, fmt.Errorf("%w: key %s: %s", ErrUntrusted, key.Short(), why)
}

// objection says why d does not allow this, whatever the time; "" if it does.
func (t *Trust) objection(d *Delegation, purpose Purpose, project string) string {
	switch {
	case d.Purpose != purpose:
		return fmt.Sprintf("it is delegated for %s, not for %s", d.Purpose, purpose)
	case d.Project != project:
		return fmt.Sprintf("it is delegated for project %s, not for %s", d.Project, project)
	case t.void[d.Serial]:
		return "its delegation was revoked"
	}
	return ""
}

func (t *Trust) inTime(d *Delegation) string {
	switch now := t.now(); {
	case now.Before(d.NotBefore):
		return fmt.Sprintf("its delegation begins at %s and the clock says %s", d.NotBefore.Format(time.RFC3339), now.Format(time.RFC3339))
	case now.After(d.NotAfter):
		return fmt.Sprintf("its delegation ended at %s; have the root key renew it", d.NotAfter.Format(time.RFC3339))
	}
	return ""
}

// authorities returns the CA certificates that count now.
func (t *Trust) authorities() []*x509.Certificate {
	var good []*x509.Certificate
	for _, c := range t.cas {
		if _, err := t.delegation(keyIDOf(c.RawSubjectPublicKeyInfo), PurposeCA, "", t.inTime); err == nil {
			good = append(good, c)
		}
	}
	return good
}
