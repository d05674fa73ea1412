package identity

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/selvage-edge/selvage/runtime/atomicfile"
)

// InitOptions say what Init makes.
type InitOptions struct {
	Fleet      string // default "selvage"
	Name       string // of this control node; default "control-1"
	Project    string // of the first publisher key; default "default"
	Publisher  string // its name; default "first"
	Passphrase []byte // protects the root key's file; empty: the file is plain, mode 0600
	Now        func() time.Time
}

func (o InitOptions) withDefaults() InitOptions {
	for field, def := range map[*string]string{&o.Fleet: "selvage", &o.Name: "control-1", &o.Project: "default", &o.Publisher: "first"} {
		if *field == "" {
			*field = def
		}
	}
	o.Now = clock(o.Now)
	return o
}

// Created is what Init made and must be shown to, or moved by, a person.
type Created struct {
	Root         KeyID
	RootKeyFile  string // may be moved away; needed only to delegate and revoke
	PublisherKey string // file; belongs where the publisher works
	AdminToken   string // shown once: only its hash is kept
}

// Init makes a whole fleet's identity in dir, which must not be there or be
// empty (fs.ErrExist), and opens it. It is all there or not at all.
func Init(dir string, o InitOptions) (*Control, Created, error) {
	o = o.withDefaults()
	created, err := initBeside(dir, o)
	if err != nil {
		return nil, Created{}, fmt.Errorf("make the fleet's identity in %s: %w", dir, err)
	}
	c, err := OpenControl(dir, o.Now)
	return c, created, err
}

// initBeside makes everything in a directory beside dir and renames it.
func initBeside(dir string, o InitOptions) (Created, error) {
	dir = filepath.Clean(dir)
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return Created{}, fmt.Errorf("%w: the directory is not empty; is there an identity already?", fs.ErrExist)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return Created{}, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".*") // mode 0700
	if err != nil {
		return Created{}, err
	}
	defer os.RemoveAll(tmp) // does nothing once it is renamed
	created, err := initFiles(tmp, o)
	if err != nil {
		return Created{}, err
	}
	if err := os.Rename(tmp, dir); err != nil { // replaces an empty directory, never a full one
		return Created{}, err
	}
	created.RootKeyFile = filepath.Join(dir, FileRootKey)
	created.PublisherKey = filepath.Join(dir, publisherFile(o))
	return created, atomicfile.SyncDir(filepath.Dir(dir))
}

func publisherFile(o InitOptions) string {
	return "publisher-" + o.Project + "-" + o.Publisher + ".key"
}

func initFiles(dir string, o InitOptions) (Created, error) {
	root, err := NewRootKey()
	if err != nil {
		return Created{}, err
	}
	keys, publisher, err := newKeys(o)
	if err != nil {
		return Created{}, err
	}
	b, err := firstBundle(root, keys, publisher, o)
	if err != nil {
		return Created{}, err
	}
	secret, token, err := NewToken(Token{Scopes: []Scope{ScopeAdmin}, Note: "made by control init"}, o.Now())
	if err != nil {
		return Created{}, err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	err = errors.Join(
		root.Save(in(FileRootKey), o.Passphrase),
		saveKey(in(fileCA), keys.ca),
		keys.catalog.Save(in(fileCatalog)),
		keys.changes.Save(in(fileChanges)),
		publisher.Save(in(publisherFile(o))),
		saveGossipKey(in(fileGossip), randomBytes(gossipKeyBytes)),
		b.Save(in(fileTrust)),
		saveJSON(in(fileTokens), []Token{token}),
		saveJSON(in(fileFleet), controlFile{o.Fleet, o.Name, root.ID()}),
	)
	return Created{Root: root.ID(), AdminToken: secret}, err
}

func saveJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(path, append(b, '\n'))
}

// controlKeys are the keys of one control node that the root delegates.
type controlKeys struct {
	fleet, name      string
	ca               *ecdsa.PrivateKey
	catalog, changes *Signer
}

func newKeys(o InitOptions) (k controlKeys, publisher *Signer, err error) {
	k.fleet, k.name = o.Fleet, o.Name
	if k.ca, err = newTLSKey(); err != nil {
		return k, nil, err
	}
	if k.catalog, err = NewSigner(); err != nil {
		return k, nil, err
	}
	if k.changes, err = NewSigner(); err != nil {
		return k, nil, err
	}
	publisher, err = NewSigner()
	return k, publisher, err
}

func firstBundle(root *RootKey, keys controlKeys, publisher *Signer, o InitOptions) (Bundle, error) {
	b, err := delegateControl(root, Bundle{Root: root.PublicKey()}, keys, o.Now())
	if err != nil {
		return b, err
	}
	e, err := root.Delegate(Delegation{
		Fleet: o.Fleet, Purpose: PurposePublisher, Project: o.Project, Subject: o.Publisher, PublicKey: publisher.PublicKey(),
	}, o.Now())
	return b.With([]Envelope{e}, nil), err
}

// delegateControl returns b with a delegation of each of the keys, and a
// certificate of the CA's that carries its own.
func delegateControl(root *RootKey, b Bundle, k controlKeys, now time.Time) (Bundle, error) {
	caKey, err := x509.MarshalPKIXPublicKey(k.ca.Public())
	if err != nil {
		return b, err
	}
	for _, d := range []Delegation{
		{Purpose: PurposeCA, PublicKey: caKey},
		{Purpose: PurposeCatalog, PublicKey: k.catalog.PublicKey()},
		{Purpose: PurposeChanges, PublicKey: k.changes.PublicKey()},
	} {
		d.Fleet, d.Subject = k.fleet, k.name
		e, err := root.Delegate(d, now)
		if err != nil {
			return b, err
		}
		b = b.With([]Envelope{e}, nil)
	}
	return withCACertificate(b, k.ca, len(b.Delegations)-3)
}

// withCACertificate returns b with a certificate for the CA whose delegation is number i.
func withCACertificate(b Bundle, key *ecdsa.PrivateKey, i int) (Bundle, error) {
	var d Delegation
	if err := DecodePayload(b.Delegations[i].Payload, &d); err != nil {
		return b, err
	}
	der, err := newCACertificate(key, b.Root, b.Delegations[i], d)
	if err != nil {
		return b, err
	}
	return b.With(nil, [][]byte{der}), nil
}
