package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// RenewPath is the renewal call, on control's peer server.
const RenewPath = "/peer/v1/renew" // POST, by the node's present certificate: RenewRequest, RenewResponse

// Node is a joined node's identity, kept in a directory of its own (0700).
type Node struct {
	Member    *Member
	Root      KeyID
	GossipKey []byte // 32 bytes
	Seeds     []string
	Control   []string
	API       []string

	dir string
	now func() time.Time
}

// RenewRequest is the body of POST /peer/v1/renew.
type RenewRequest struct {
	CSR []byte `json:"csr"`
}

// RenewResponse carries the new certificate and the newest trust.
type RenewResponse struct {
	Chain [][]byte `json:"chain"`
	Trust Bundle   `json:"trust"`
}

// A node's files. The certificate and its key are one file, so that they change
// together; it is written last, so that where it is the others are.
const (
	fileNode   = "node.pem"
	fileTrust  = "trust.json"
	fileGossip = "gossip.key"
	fileFleet  = "fleet.json"
)

type nodeFile struct {
	Root    KeyID    `json:"root"`
	Seeds   []string `json:"seeds"`
	Control []string `json:"control"`
	API     []string `json:"api"`
}

func hasNode(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, fileNode))
	return err == nil
}

func saveNode(dir string, root KeyID, cert *tls.Certificate, a *JoinResponse) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := a.Trust.Save(filepath.Join(dir, fileTrust)); err != nil {
		return err
	}
	if err := saveGossipKey(filepath.Join(dir, fileGossip), a.GossipKey); err != nil {
		return err
	}
	f, err := json.MarshalIndent(nodeFile{root, a.Seeds, a.Control, a.API}, "", "  ")
	if err != nil {
		return err
	}
	if err := WriteFile(filepath.Join(dir, fileFleet), append(f, '\n')); err != nil {
		return err
	}
	return savePair(filepath.Join(dir, fileNode), cert)
}

// OpenNode reads what Join saved; fs.ErrNotExist (wrapped) if the node has not
// joined. An expired certificate is no error here: what is on disk still serves.
func OpenNode(dir string, now func() time.Time) (*Node, error) {
	n, err := openNode(dir, clock(now))
	if err != nil {
		return nil, fmt.Errorf("open the node's identity in %s: %w", dir, err)
	}
	return n, nil
}

func openNode(dir string, now func() time.Time) (*Node, error) {
	cert, err := loadPair(filepath.Join(dir, fileNode))
	if err != nil {
		return nil, err
	}
	var f nodeFile
	if err := readJSON(filepath.Join(dir, fileFleet), &f); err != nil {
		return nil, err
	}
	gossip, err := loadGossipKey(filepath.Join(dir, fileGossip))
	if err != nil {
		return nil, err
	}
	anchor, err := openAnchor(f.Root, filepath.Join(dir, fileTrust), now)
	if err != nil {
		return nil, err
	}
	l := &leaf{now: now}
	l.cur.Store(cert)
	m, err := newMember(anchor, l)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, fileNode), err)
	}
	return &Node{Member: m, Root: f.Root, GossipKey: gossip, Seeds: f.Seeds, Control: f.Control, API: f.API, dir: dir, now: now}, nil
}

func openAnchor(root KeyID, path string, now func() time.Time) (*Anchor, error) {
	b, err := LoadBundle(path)
	if err != nil {
		return nil, err
	}
	a, err := NewAnchor(root, b, path, now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

func readJSON(path string, v any) error {
	b, err := readFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// RenewAt returns when the node should renew its certificate.
func (n *Node) RenewAt() time.Time { return RenewAt(n.Member.leaf.cur.Load().Leaf) }

// Renew gets a certificate for a new key from a control node, over a connection
// that the present one opens, checks, saves and takes it over; the newest trust
// comes with it. control adds scheme and host (peer.Client does).
func (n *Node) Renew(ctx context.Context, control Doer) error {
	key, err := newTLSKey()
	if err != nil {
		return err
	}
	csr, err := newCSR(key)
	if err != nil {
		return err
	}
	var a RenewResponse
	if err := call(ctx, control, http.MethodPost, RenewPath, RenewRequest{CSR: csr}, &a); err != nil {
		return fmt.Errorf("renew the certificate: %w", err)
	}
	if err := n.take(key, a); err != nil {
		return fmt.Errorf("renew the certificate: %w", err)
	}
	return nil
}

func (n *Node) take(key *ecdsa.PrivateKey, a RenewResponse) error {
	if err := n.Member.anchor.Update(a.Trust); err != nil {
		return err
	}
	cert, err := pair(a.Chain, key)
	if err != nil {
		return err
	}
	p, err := n.Member.anchor.Trust().CheckPeer(cert.Leaf, Expect{}, true)
	if err != nil {
		return err
	}
	if p != n.Member.peer {
		return fmt.Errorf("the certificate is for %s, this is %s", p, n.Member.peer)
	}
	if err := savePair(filepath.Join(n.dir, fileNode), cert); err != nil {
		return err
	}
	n.Member.leaf.cur.Store(cert)
	return nil
}

func savePair(path string, c *tls.Certificate) error {
	b, err := encodeKey(c.PrivateKey)
	if err != nil {
		return err
	}
	for _, der := range c.Certificate {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return WriteFile(path, b)
}

func loadPair(path string) (*tls.Certificate, error) {
	blocks, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	if len(blocks) != 3 || blocks[0].Type != pemKey {
		return nil, fmt.Errorf("%s: want a private key and two certificates", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(blocks[0].Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: %T where an ECDSA key is wanted", path, key)
	}
	return pair([][]byte{blocks[1].Bytes, blocks[2].Bytes}, k)
}

const gossipKeyBytes = 32

func saveGossipKey(path string, key []byte) error {
	if len(key) != gossipKeyBytes {
		return fmt.Errorf("gossip key: %d bytes where %d are wanted", len(key), gossipKeyBytes)
	}
	return WriteFile(path, []byte(hex.EncodeToString(key)+"\n"))
}

func loadGossipKey(path string) ([]byte, error) {
	b, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err == nil && len(key) != gossipKeyBytes {
		err = errors.New("want 64 hex digits")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// Serial returns the serial of the node's certificate, as a revocation list names it.
func (n *Node) Serial() string { return Serial(n.Member.leaf.cur.Load().Leaf) }
