package identity

import (
	"crypto/tls"
	"crypto/x509"
	"time"
)

// Kind is what a process of the fleet is.
type Kind string

// The kinds.
const (
	KindNode    Kind = "node"
	KindControl Kind = "control"
)

// Peer is who a certificate names.
type Peer struct {
	Fleet  string
	Kind   Kind
	Name   string
	PoP    string // nodes only
	Region string // nodes only; may be empty
}

// PeerOf reads the identity in a leaf; it does not verify the certificate.
func PeerOf(leaf *x509.Certificate) (Peer, error) { panic("not yet") }

// CA issues the fleet's certificates.
type CA struct{}

// IssueNode signs the key of csr (DER) for the node p; nothing else of csr is
// used. p.Kind must be KindNode. It returns leaf and CA certificate, DER. Lifetime: NodeLifetime.
func (ca *CA) IssueNode(csr []byte, p Peer, now time.Time) (chain [][]byte, err error) {
	panic("not yet")
}

// Lifetimes of certificates. A leaf is renewed when two thirds of its life are over.
const (
	NodeLifetime    = 30 * 24 * time.Hour
	ControlLifetime = 30 * 24 * time.Hour
)

// Expect says whom a connection must reach. Zero fields match anything.
type Expect struct {
	Kind Kind
	Name string
}

// ClientTLS returns the configuration of a client of the control API that knows
// only the root's fingerprint: the server must prove, in the handshake, that it is a control node
// of the fleet under that root, for the host that is dialled. TLS 1.3; HTTP/2 and 1.1.
func ClientTLS(root KeyID, now func() time.Time) *tls.Config { panic("not yet") }

// Member is one process's place in the fleet: its certificate, and the trust by
// which it checks others. Safe for concurrent use; the certificate may be replaced while in use.
type Member struct{}

// Peer returns who this process is.
func (m *Member) Peer() Peer { panic("not yet") }

// Anchor returns the trust the member checks others by.
func (m *Member) Anchor() *Anchor { panic("not yet") }

// Expiry returns when the certificate ends.
func (m *Member) Expiry() time.Time { panic("not yet") }

// ServerTLS returns the server's half of mTLS within the fleet: TLS 1.3, h2 only, client certificate verified from the root.
func (m *Member) ServerTLS() *tls.Config { panic("not yet") }

// ClientTLS returns the client's half; the server must be whom want names.
func (m *Member) ClientTLS(want Expect) *tls.Config { panic("not yet") }
