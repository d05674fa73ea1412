package identity

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Purpose is what a delegated key may sign; a key has exactly one.
type Purpose string

// The purposes.
const (
	PurposeCA        Purpose = "ca"        // certificates of nodes and control nodes
	PurposeCatalog   Purpose = "catalog"   // catalog records
	PurposeChanges   Purpose = "changes"   // batches of change streams
	PurposePublisher Purpose = "publisher" // bundles of one project
)

// Skew is how far clocks in a fleet may differ: what is issued is valid from
// this long before.
const Skew = 5 * time.Minute

const (
	year           = 365 * 24 * time.Hour
	maxLife        = 10 * year
	delegationType = "application/vnd.selvage.delegation.v1+json"
	revocationType = "application/vnd.selvage.revocations.v1+json"
)

// lives are the default lifetimes of delegations.
var lives = map[Purpose]time.Duration{
	PurposeCA:        5 * year,
	PurposeCatalog:   2 * year,
	PurposeChanges:   2 * year,
	PurposePublisher: year,
}

// Delegation says that a key may act for one purpose, for a while. The root signs it.
type Delegation struct {
	Fleet     string    `json:"fleet"`
	Purpose   Purpose   `json:"purpose"`
	Subject   string    `json:"subject"`           // who holds the key, for people
	Project   string    `json:"project,omitempty"` // publishers only
	PublicKey []byte    `json:"public_key"`        // PKIX; ECDSA P-256 for ca, Ed25519 otherwise
	Serial    string    `json:"serial"`            // 32 hex digits, random
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// Validate reports every fault of the delegation's form.
func (d *Delegation) Validate() error {
	errs := []error{CheckName("fleet", d.Fleet), CheckName("subject", d.Subject), d.checkKey()}
	if _, ok := lives[d.Purpose]; !ok {
		errs = append(errs, fmt.Errorf("purpose %q: want ca, catalog, changes or publisher", d.Purpose))
	}
	if d.Purpose == PurposePublisher {
		errs = append(errs, CheckName("project", d.Project))
	} else if d.Project != "" {
		errs = append(errs, fmt.Errorf("project %q: only publishers have one", d.Project))
	}
	if !isSerial(d.Serial) {
		errs = append(errs, fmt.Errorf("serial %.40q: want 32 lower-case hex digits", d.Serial))
	}
	if life := d.NotAfter.Sub(d.NotBefore); life <= 0 || life > maxLife+Skew {
		errs = append(errs, fmt.Errorf("valid for %s: want more than nothing and at most ten years", life))
	}
	return errors.Join(errs...)
}

func (d *Delegation) checkKey() error {
	if d.Purpose == PurposeCA {
		_, err := parseECDSA(d.PublicKey)
		return err
	}
	_, err := parseEd25519(d.PublicKey)
	return err
}

func (d *Delegation) validAt(now time.Time) bool {
	return !now.Before(d.NotBefore) && !now.After(d.NotAfter)
}

func isSerial(s string) bool { return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == "" }

func newSerial() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Revocations lists what is void before its time. The root signs it; a higher
// Number replaces a lower one and must hold all of it.
type Revocations struct {
	Fleet        string    `json:"fleet"`
	Number       uint64    `json:"number"`
	IssuedAt     time.Time `json:"issued_at"`
	Delegations  []string  `json:"delegations,omitempty"`  // serials
	Certificates []string  `json:"certificates,omitempty"` // serials of leaves, 32 hex digits
}

func (r *Revocations) validate() error {
	errs := []error{CheckName("fleet", r.Fleet)}
	for _, s := range slices.Concat(r.Delegations, r.Certificates) {
		if !isSerial(s) {
			errs = append(errs, fmt.Errorf("serial %.40q: want 32 lower-case hex digits", s))
		}
	}
	return errors.Join(errs...)
}

// Delegate signs d with the root key. Empty fields get a random serial, a start
// of now (less Skew) and an end by the purpose.
func (r *RootKey) Delegate(d Delegation, now time.Time) (Envelope, error) {
	if d.Serial == "" {
		d.Serial = newSerial()
	}
	if d.NotBefore.IsZero() {
		d.NotBefore = now.Add(-Skew)
	}
	if d.NotAfter.IsZero() {
		d.NotAfter = now.Add(lives[d.Purpose])
	}
	d.NotBefore, d.NotAfter = d.NotBefore.UTC().Truncate(time.Second), d.NotAfter.UTC().Truncate(time.Second)
	if err := d.Validate(); err != nil {
		return Envelope{}, fmt.Errorf("delegate: %w", err)
	}
	return r.signJSON(delegationType, d)
}

// Revoke returns b with the next revocation list: all that b's own list holds,
// and these serials.
func (r *RootKey) Revoke(b Bundle, delegations, certificates []string, now time.Time) (Bundle, error) {
	t, err := NewTrust(r.ID(), b, func() time.Time { return now })
	if err != nil {
		return b, fmt.Errorf("revoke: %w", err)
	}
	next := Revocations{
		Fleet:        t.fleet,
		Number:       t.revoked.Number + 1,
		IssuedAt:     now.UTC().Truncate(time.Second),
		Delegations:  union(t.revoked.Delegations, delegations),
		Certificates: union(t.revoked.Certificates, certificates),
	}
	if err := next.validate(); err != nil {
		return b, fmt.Errorf("revoke: %w", err)
	}
	e, err := r.signJSON(revocationType, next)
	if err != nil {
		return b, fmt.Errorf("revoke: %w", err)
	}
	b.Revocations = &e
	return b, nil
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

func (s *Signer) signJSON(payloadType string, v any) (Envelope, error) {
	payload, err := json.Marshal(v)
	if err != nil {
		return Envelope{}, err
	}
	return s.Sign(payloadType, payload), nil
}
