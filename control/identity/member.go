package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Member is one process's place in the fleet: its certificate, and the trust by
// which it checks others. Safe for concurrent use; the certificate may be
// replaced while in use.
type Member struct {
	anchor *Anchor
	peer   Peer
	leaf   *leaf
}

func newMember(a *Anchor, l *leaf) (*Member, error) {
	c, err := l.certificate()
	if err != nil {
		return nil, err
	}
	p, err := PeerOf(c.Leaf)
	if err != nil {
		return nil, err
	}
	return &Member{anchor: a, peer: p, leaf: l}, nil
}

// Peer returns who this process is.
func (m *Member) Peer() Peer { return m.peer }

// Anchor returns the trust the member checks others by.
func (m *Member) Anchor() *Anchor { return m.anchor }

// Expiry returns when the certificate ends.
func (m *Member) Expiry() time.Time { return m.leaf.cur.Load().Leaf.NotAfter }

// ServerTLS returns the server's half of mTLS within the fleet: TLS 1.3, h2
// only, the client's certificate verified down from the root. Clients of any kind are let in.
func (m *Member) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"h2"},
		ClientAuth:             tls.RequireAnyClientCert, // verified by VerifyConnection, from the newest trust
		SessionTicketsDisabled: true,                     // a resumed session would outlive a revocation
		Time:                   m.anchor.now,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return m.leaf.certificate() },
		VerifyConnection:       m.verifier(Expect{}, true),
	}
}

// ClientTLS returns the client's half; the server must be whom want names.
func (m *Member) ClientTLS(want Expect) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		Time:       m.anchor.now,
		// Peers are known by the name in their certificate, not by the address they are reached at; VerifyConnection
		// checks the chain down from the root, and the name.
		InsecureSkipVerify:   true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return m.leaf.certificate() },
		VerifyConnection:     m.verifier(want, false),
	}
}

func (m *Member) verifier(want Expect, client bool) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return fmt.Errorf("%w: no certificate", ErrUntrusted)
		}
		_, err := m.anchor.Trust().CheckPeer(s.PeerCertificates[0], want, client)
		return err
	}
}

// leaf is a certificate with its key, replaced in time.
type leaf struct {
	cur   atomic.Pointer[tls.Certificate]
	mu    sync.Mutex
	now   func() time.Time
	renew func(now time.Time) (*tls.Certificate, error) // nil: someone else replaces it
}

// newLeaf makes the first certificate by renew.
func newLeaf(now func() time.Time, renew func(time.Time) (*tls.Certificate, error)) (*leaf, error) {
	c, err := renew(now())
	if err != nil {
		return nil, err
	}
	l := &leaf{now: now, renew: renew}
	l.cur.Store(c)
	return l, nil
}

// certificate returns the present one, renewed first if it is time. A renewal
// that fails is tried again at the next call; the present one serves to its end.
func (l *leaf) certificate() (*tls.Certificate, error) {
	c := l.cur.Load()
	if l.renew == nil || !due(c.Leaf, l.now()) {
		return c, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c = l.cur.Load(); !due(c.Leaf, l.now()) {
		return c, nil
	}
	next, err := l.renew(l.now())
	if err != nil {
		if now := l.now(); now.Before(c.Leaf.NotAfter) && !now.Before(c.Leaf.NotBefore) {
			return c, nil
		}
		return nil, err
	}
	l.cur.Store(next)
	return next, nil
}

// due reports whether two thirds of a certificate's life are over, or it has not begun: it was
// made while the clock was ahead, and nobody would take it.
func due(c *x509.Certificate, now time.Time) bool {
	return !now.Before(RenewAt(c)) || now.Before(c.NotBefore)
}

// RenewAt returns when a certificate should be renewed.
func RenewAt(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 3 * 2)
}

// pair joins a chain and its key, which must fit.
func pair(chain [][]byte, key *ecdsa.PrivateKey) (*tls.Certificate, error) {
	if len(chain) != 2 {
		return nil, errors.New("certificate: want a leaf and its CA's")
	}
	parsed, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	pub, ok := parsed.PublicKey.(*ecdsa.PublicKey)
	if !ok || !pub.Equal(key.Public()) {
		return nil, errors.New("certificate: it is for another key")
	}
	return &tls.Certificate{Certificate: [][]byte{bytes.Clone(chain[0]), bytes.Clone(chain[1])}, PrivateKey: key, Leaf: parsed}, nil
}
