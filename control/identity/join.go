package identity

import (
	"context"
	"time"
)

// JoinRequest is the body of POST /v1/join.
type JoinRequest struct {
	ID     string `json:"id"`
	Secret []byte `json:"secret"`
	Name   string `json:"name"`
	PoP    string `json:"pop"`
	Region string `json:"region,omitempty"`
	CSR    []byte `json:"csr"` // DER, PKCS #10
}

// Validate reports every fault of the request's form.
func (r JoinRequest) Validate() error { panic("not yet") }

// JoinResponse is its answer.
type JoinResponse struct {
	Chain     [][]byte `json:"chain"` // leaf, CA; DER
	Trust     Bundle   `json:"trust"`
	GossipKey []byte   `json:"gossip_key"`
	Seeds     []string `json:"seeds"`   // gossip addresses
	Control   []string `json:"control"` // peer addresses of control nodes
	API       []string `json:"api"`     // addresses of the control API
}

// Node is a joined node's identity, kept in a directory of its own (0700).
type Node struct {
	Member    *Member
	Root      KeyID
	GossipKey []byte
	Seeds     []string
	Control   []string
	API       []string
}

// JoinOptions say who joins.
type JoinOptions struct {
	Name, PoP, Region string
	Now               func() time.Time // nil: time.Now
}

// Join makes a key, spends the token and saves the node's identity in dir. The
// secret is sent only to a server that proved itself down from the token's root fingerprint.
func Join(ctx context.Context, dir string, token JoinToken, o JoinOptions) (*Node, error) {
	panic("not yet")
}

// OpenNode reads what Join saved; fs.ErrNotExist (wrapped) if the node has not joined.
func OpenNode(dir string, now func() time.Time) (*Node, error) { panic("not yet") }

// RenewRequest and RenewResponse are the body and answer of POST /peer/v1/renew.
type RenewRequest struct {
	CSR []byte `json:"csr"`
}

// RenewResponse carries the new certificate and the newest trust.
type RenewResponse struct {
	Chain [][]byte `json:"chain"`
	Trust Bundle   `json:"trust"`
}
