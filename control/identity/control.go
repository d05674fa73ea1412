package identity

import (
	"crypto/tls"
	"time"
)

// InitOptions say what Init makes.
type InitOptions struct {
	Fleet      string // default "selvage"
	Name       string // of this control node; default "control-1"
	Project    string // of the first publisher key; default "default"
	Passphrase []byte // protects the root key's file; empty: the file is plain, mode 0600
	Now        func() time.Time
}

// Created is what Init made and must be shown or moved by a person.
type Created struct {
	Root         KeyID
	RootKeyFile  string // may be moved away; needed only to delegate and revoke
	PublisherKey string // file
	AdminToken   string // shown once
}

// Control is a control node's half of the fleet's identity, in a directory of its own (0700).
type Control struct {
	Fleet     string
	Name      string
	Root      KeyID
	Anchor    *Anchor
	CA        *CA
	Catalog   *Signer
	Changes   *Signer
	GossipKey []byte  // 32 bytes
	Tokens    []Token // the first admin token's record, for the store to take over
}

// Init makes a whole fleet's identity in dir, which must not hold one yet, and opens it.
func Init(dir string, o InitOptions) (*Control, Created, error) { panic("not yet") }

// OpenControl reads what Init made. The root key's file need not be there.
func OpenControl(dir string, now func() time.Time) (*Control, error) { panic("not yet") }

// Member returns this control node's place in the fleet; its certificate renews itself.
func (c *Control) Member() (*Member, error) { panic("not yet") }

// Join answers a join request whose secret the caller has checked and spent.
func (c *Control) Join(r JoinRequest, seeds, control, api []string) (JoinResponse, error) {
	panic("not yet")
}

// Renew answers a renewal by the node p, who proved itself by its present certificate.
func (c *Control) Renew(p Peer, r RenewRequest) (RenewResponse, error) { panic("not yet") }

// NewPublisher makes a publisher key for a project, delegated by the root key,
// saves the bundle, and returns the key; the caller saves it where the publisher works.
func (c *Control) NewPublisher(root *RootKey, project, name string, life time.Duration) (*Signer, error) {
	panic("not yet")
}

// APITLS returns the control API's server configuration: a certificate of the
// fleet's CA for hosts (names or IP addresses, without ports), made now and renewed in time. The key never touches the disk.
func (c *Control) APITLS(hosts []string) (*tls.Config, error) { panic("not yet") }
