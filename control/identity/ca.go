package identity

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"time"
)

// Lifetimes of leaves, long enough for a node to serve on while control is
// away. A leaf is renewed when two thirds of its life are over.
const (
	NodeLifetime    = 30 * 24 * time.Hour
	ControlLifetime = 30 * 24 * time.Hour
)

// CA issues the fleet's certificates.
type CA struct {
	key    *ecdsa.PrivateKey
	anchor *Anchor // knows the newest certificate of the key
}

// IssueNode signs the key of csr (DER) for the node p; nothing else of csr is
// used. p.Kind must be KindNode. It returns leaf and CA certificate, DER.
func (ca *CA) IssueNode(csr []byte, p Peer, now time.Time) (chain [][]byte, err error) {
	pub, err := keyOfCSR(csr)
	if err != nil {
		return nil, err
	}
	if p.Kind != KindNode {
		return nil, fmt.Errorf("issue: kind %q: only nodes ask", p.Kind)
	}
	return ca.issue(pub, leafTemplate(p, NodeLifetime, now), p)
}

// issueControl signs pub for the control node p under hosts, if it serves any.
func (ca *CA) issueControl(pub *ecdsa.PublicKey, p Peer, hosts []string, now time.Time) ([][]byte, error) {
	t := leafTemplate(p, ControlLifetime, now)
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return ca.issue(pub, t, p)
}

func (ca *CA) issue(pub *ecdsa.PublicKey, t *x509.Certificate, p Peer) ([][]byte, error) {
	parent, err := ca.certificate()
	if err == nil && p.Fleet != ca.anchor.Trust().Fleet() {
		err = fmt.Errorf("fleet %q: this CA is of fleet %s", p.Fleet, ca.anchor.Trust().Fleet())
	}
	if err = errors.Join(err, p.Validate()); err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	if t.NotAfter.After(parent.NotAfter) {
		t.NotAfter = parent.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, ca.key)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for %s: %w", p, err)
	}
	return [][]byte{der, parent.Raw}, nil
}

// certificate returns the CA's own, the one that lasts longest.
func (ca *CA) certificate() (*x509.Certificate, error) {
	id, err := Fingerprint(ca.key.Public())
	if err != nil {
		return nil, err
	}
	var best *x509.Certificate
	for _, c := range ca.anchor.Trust().authorities() {
		if keyIDOf(c.RawSubjectPublicKeyInfo) == id && (best == nil || c.NotAfter.After(best.NotAfter)) {
			best = c
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%w: the CA's key %s has no delegation that counts now; renew it with the root key", ErrUntrusted, id.Short())
	}
	return best, nil
}

func leafTemplate(p Peer, life time.Duration, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: certSerial(),
		Subject:      pkix.Name{CommonName: p.Name},
		NotBefore:    now.Add(-Skew),
		NotAfter:     now.Add(life),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:         p.uris(),
	}
}

// certSerial is random, 127 bits, never zero (RFC 5280 section 4.1.2.2).
func certSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

// Serial returns a certificate's serial as a revocation list names it.
func Serial(c *x509.Certificate) string {
	b := c.SerialNumber.Bytes()
	if len(b) > 16 {
		return hex.EncodeToString(b)
	}
	return hex.EncodeToString(c.SerialNumber.FillBytes(make([]byte, 16)))
}

// keyOfCSR takes the key out of a certificate request that proves to have it.
func keyOfCSR(der []byte) (*ecdsa.PublicKey, error) {
	if len(der) > 16<<10 {
		return nil, errors.New("certificate request: larger than 16 KiB")
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: it does not prove its key: %w", err)
	}
	return parseECDSA(r.RawSubjectPublicKeyInfo)
}

// newCSR asks for a certificate for key; the name is the CA's to choose.
func newCSR(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return der, nil
}

// A CA certificate carries its own proof: a URI name of this scheme with the
// root's public key and the delegation of the CA's key, both in base64url.
const proofScheme = "selvage-delegation"

// newCACertificate makes the self-signed certificate of a delegated CA key.
func newCACertificate(key *ecdsa.PrivateKey, rootSPKI []byte, delegation Envelope, d Delegation) ([]byte, error) {
	proof := text.EncodeToString(rootSPKI) + "." + text.EncodeToString(delegation.Encode())
	t := &x509.Certificate{
		SerialNumber:          certSerial(),
		Subject:               pkix.Name{CommonName: "selvage " + d.Fleet + " CA"},
		NotBefore:             d.NotBefore,
		NotAfter:              d.NotAfter,
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		URIs:                  []*url.URL{{Scheme: proofScheme, Opaque: proof}},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the CA's certificate: %w", err)
	}
	return der, nil
}

// proofOf returns the delegation a CA certificate carries, verified down from
// the root's fingerprint, valid now and of the certificate's own key.
func proofOf(c *x509.Certificate, root KeyID, now time.Time) (Delegation, error) {
	spki, e, err := readProof(c)
	if err != nil {
		return Delegation{}, err
	}
	if id := keyIDOf(spki); id != root {
		return Delegation{}, fmt.Errorf("%w: its fleet's root key is %s, the one pinned is %s: another fleet, or someone in between", ErrUntrusted, id, root)
	}
	key, err := parseEd25519(spki)
	if err != nil {
		return Delegation{}, fmt.Errorf("%w: root %w", ErrUntrusted, err)
	}
	d, err := openDelegation(root, key, e)
	switch {
	case err != nil:
		return d, err
	case d.Purpose != PurposeCA || keyIDOf(d.PublicKey) != keyIDOf(c.RawSubjectPublicKeyInfo):
		return d, fmt.Errorf("%w: the delegation beside the CA certificate is not for its key", ErrUntrusted)
	case !d.validAt(now):
		return d, fmt.Errorf("%w: the CA's delegation is valid from %s to %s and the clock says %s", ErrUntrusted, d.NotBefore, d.NotAfter, now.UTC())
	}
	return d, nil
}

func readProof(c *x509.Certificate) (rootSPKI []byte, e Envelope, err error) {
	if !c.IsCA || len(c.URIs) != 1 || c.URIs[0].Scheme != proofScheme {
		return nil, e, fmt.Errorf("%w: its CA certificate carries no delegation; is this a Selvage control API?", ErrUntrusted)
	}
	root, delegation, _ := strings.Cut(c.URIs[0].Opaque, ".")
	if rootSPKI, err = text.DecodeString(root); err == nil {
		err = e.UnmarshalText([]byte(delegation))
	}
	if err != nil {
		return nil, e, fmt.Errorf("%w: the delegation in its CA certificate: %w", ErrUntrusted, err)
	}
	return rootSPKI, e, nil
}
