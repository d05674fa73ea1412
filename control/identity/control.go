package identity

import (
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Control is a control node's half of the fleet's identity, in a directory of
// its own (0700).
type Control struct {
	Fleet     string
	Name      string
	Root      KeyID
	Anchor    *Anchor
	CA        *CA
	Catalog   *Signer
	Changes   *Signer
	GossipKey []byte  // 32 bytes
	Tokens    []Token // records of the tokens made by Init, for the store to take over

	now func() time.Time
}

// A control node's files, beside those named for nodes. The root key's is made
// here and may be moved away.
const (
	FileRootKey = "root.key"
	fileCA      = "ca.key"
	fileCatalog = "catalog.key"
	fileChanges = "changes.key"
	fileTokens  = "tokens.json"
)

type controlFile struct {
	Fleet string `json:"fleet"`
	Name  string `json:"name"`
	Root  KeyID  `json:"root"`
}

// OpenControl reads what Init made; fs.ErrNotExist (wrapped) if there is nothing.
// The root key's file need not be there.
func OpenControl(dir string, now func() time.Time) (*Control, error) {
	c, err := openControl(dir, clock(now))
	if err != nil {
		return nil, fmt.Errorf("open the control node's identity in %s: %w", dir, err)
	}
	return c, nil
}

func openControl(dir string, now func() time.Time) (*Control, error) {
	var f controlFile
	if err := readJSON(filepath.Join(dir, fileFleet), &f); err != nil {
		return nil, err
	}
	c := &Control{Fleet: f.Fleet, Name: f.Name, Root: f.Root, now: now}
	var err error
	if c.Anchor, err = openAnchor(f.Root, filepath.Join(dir, fileTrust), now); err != nil {
		return nil, err
	}
	if c.CA, err = openCA(filepath.Join(dir, fileCA), c.Anchor); err != nil {
		return nil, err
	}
	if c.Catalog, err = LoadSigner(filepath.Join(dir, fileCatalog)); err != nil {
		return nil, err
	}
	if c.Changes, err = LoadSigner(filepath.Join(dir, fileChanges)); err != nil {
		return nil, err
	}
	if c.GossipKey, err = loadGossipKey(filepath.Join(dir, fileGossip)); err != nil {
		return nil, err
	}
	if err := readJSON(filepath.Join(dir, fileTokens), &c.Tokens); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return c, c.check()
}

// check proves at start that the keys still count, rather than at the first use.
func (c *Control) check() error {
	t := c.Anchor.Trust()
	_, err := c.CA.certificate()
	_, catalog := t.delegation(c.Catalog.ID(), PurposeCatalog, "", t.inTime)
	_, changes := t.delegation(c.Changes.ID(), PurposeChanges, "", t.inTime)
	return errors.Join(err, catalog, changes)
}

func openCA(path string, a *Anchor) (*CA, error) {
	key, err := loadKey(path)
	if err != nil {
		return nil, err
	}
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: %T where an ECDSA key is wanted", path, key)
	}
	return &CA{key: k, anchor: a}, nil
}

func (c *Control) peer() Peer { return Peer{Fleet: c.Fleet, Kind: KindControl, Name: c.Name} }

// Member returns this control node's place in the fleet. Its certificate and key
// are made now, live in memory, and renew themselves.
func (c *Control) Member() (*Member, error) {
	l, err := newLeaf(c.now, c.issuer(nil))
	if err != nil {
		return nil, err
	}
	return newMember(c.Anchor, l)
}

// APITLS returns the control API's server configuration: a certificate of the
// fleet's CA for hosts (names or IP addresses, without ports), made now and
// renewed in time; its key never touches the disk. Its clients are ClientTLS and ClientTransport.
func (c *Control) APITLS(hosts []string) (*tls.Config, error) {
	if len(hosts) == 0 {
		return nil, errors.New("the control API's certificate: no host; say by which names or addresses it is reached")
	}
	l, err := newLeaf(c.now, c.issuer(hosts))
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{"h2", "http/1.1"},
		Time:           c.now,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return l.certificate() },
	}, nil
}

func (c *Control) issuer(hosts []string) func(time.Time) (*tls.Certificate, error) {
	return func(now time.Time) (*tls.Certificate, error) {
		key, err := newTLSKey()
		if err != nil {
			return nil, err
		}
		chain, err := c.CA.issueControl(&key.PublicKey, c.peer(), hosts, now)
		if err != nil {
			return nil, err
		}
		return pair(chain, key)
	}
}

// Join answers a join request whose token the caller has checked
// (JoinRecord.Check) and spent, and whose name no other node has.
func (c *Control) Join(r JoinRequest, seeds, control, api []string) (JoinResponse, error) {
	p := Peer{Fleet: c.Fleet, Kind: KindNode, Name: r.Name, PoP: r.PoP, Region: r.Region}
	chain, err := c.CA.IssueNode(r.CSR, p, c.now())
	if err != nil {
		return JoinResponse{}, fmt.Errorf("join: %w", err)
	}
	return JoinResponse{Chain: chain, Trust: c.Anchor.Trust().Bundle(), GossipKey: c.GossipKey, Seeds: seeds, Control: control, API: api}, nil
}

// Renew answers a renewal by the node p, who proved itself by its present certificate.
func (c *Control) Renew(p Peer, r RenewRequest) (RenewResponse, error) {
	chain, err := c.CA.IssueNode(r.CSR, p, c.now())
	if err != nil {
		return RenewResponse{}, fmt.Errorf("renew: %w", err)
	}
	return RenewResponse{Chain: chain, Trust: c.Anchor.Trust().Bundle()}, nil
}

// NewPublisher makes a publisher key for a project, delegates it (life zero: a
// year) and saves the trust; the caller saves the key where the publisher works.
// A control process that runs meanwhile learns of it by Anchor.Reload.
func (c *Control) NewPublisher(root *RootKey, project, name string, life time.Duration) (*Signer, error) {
	key, err := NewSigner()
	if err != nil {
		return nil, err
	}
	d := Delegation{Fleet: c.Fleet, Purpose: PurposePublisher, Project: project, Subject: name, PublicKey: key.PublicKey()}
	if life != 0 {
		d.NotAfter = c.now().Add(life)
	}
	e, err := root.Delegate(d, c.now())
	if err != nil {
		return nil, err
	}
	return key, c.Anchor.Update(c.Anchor.Trust().Bundle().With([]Envelope{e}, nil))
}

// RenewDelegations has the root key delegate the CA's, the catalog's and the
// change log's keys anew, and saves the trust. Do it well before they end.
func (c *Control) RenewDelegations(root *RootKey) error {
	b, err := delegateControl(root, c.Anchor.Trust().Bundle(), c.controlKeys(), c.now())
	if err != nil {
		return err
	}
	return c.Anchor.Update(b)
}

// Revoke has the root key void delegations and certificates by serial, and saves the trust.
func (c *Control) Revoke(root *RootKey, delegations, certificates []string) error {
	b, err := root.Revoke(c.Anchor.Trust().Bundle(), delegations, certificates, c.now())
	if err != nil {
		return err
	}
	return c.Anchor.Update(b)
}

func (c *Control) controlKeys() controlKeys {
	return controlKeys{fleet: c.Fleet, name: c.Name, ca: c.CA.key, catalog: c.Catalog, changes: c.Changes}
}
