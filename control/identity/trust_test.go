package identity

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// desk is a root key with one delegated key of each sort.
type desk struct {
	root      *RootKey
	keys      map[string]*Signer
	bundle    Bundle
	delegated map[string]Delegation
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	c, created := newFleet(t, InitOptions{Project: "shop"})
	root := rootOf(t, created)
	shop, err := LoadSigner(created.PublisherKey)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{root: root, keys: map[string]*Signer{"catalog": c.Catalog, "changes": c.Changes, "shop": shop, "root": root.Signer}}
	if d.keys["bank"], err = c.NewPublisher(root, "bank", "ci", 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	if d.keys["nobody"], err = NewSigner(); err != nil {
		t.Fatal(err)
	}
	d.bundle = c.Anchor.Trust().Bundle()
	d.delegated = map[string]Delegation{}
	for _, s := range c.Anchor.Trust().Delegations() {
		for name, key := range d.keys {
			if key.ID() == s.KeyID {
				d.delegated[name] = s.Delegation
			}
		}
	}
	return d
}

func (d *desk) trust(t *testing.T, now time.Time) *Trust {
	t.Helper()
	trust, err := NewTrust(d.root.ID(), d.bundle, at(now))
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// TestPurposesAreApart tries every key for every purpose and project.
func TestPurposesAreApart(t *testing.T) {
	d := newDesk(t)
	trust := d.trust(t, start)
	allowed := map[string]string{"catalog": "catalog/", "changes": "changes/", "shop": "publisher/shop", "bank": "publisher/bank"}
	for name, key := range d.keys {
		for _, purpose := range []Purpose{PurposeCA, PurposeCatalog, PurposeChanges, PurposePublisher, "", "root"} {
			for _, project := range []string{"", "shop", "bank"} {
				_, _, err := trust.Verify(purpose, project, "x/y", key.Sign("x/y", []byte("hello")))
				want := allowed[name] == string(purpose)+"/"+project
				if (err == nil) != want {
					t.Errorf("%s signs for %s %s: %v", name, purpose, project, err)
				}
				if err != nil && !errors.Is(err, ErrUntrusted) {
					t.Errorf("%v does not wrap ErrUntrusted", err)
				}
			}
		}
	}
}

func TestTypesAreApart(t *testing.T) {
	d := newDesk(t)
	e := d.keys["catalog"].Sign("x/y", []byte("hello"))
	if _, _, err := d.trust(t, start).Verify(PurposeCatalog, "", "x/z", e); !errors.Is(err, ErrUntrusted) {
		t.Errorf("another type: %v", err)
	}
	e.PayloadType = "x/z"
	if _, _, err := d.trust(t, start).Verify(PurposeCatalog, "", "x/z", e); !errors.Is(err, ErrUntrusted) {
		t.Errorf("the type changed after signing: %v", err)
	}
}

func TestDelegationsEnd(t *testing.T) {
	d := newDesk(t)
	e := d.keys["bank"].Sign("x/y", []byte("hello"))
	for _, c := range []struct {
		name string
		now  time.Time
		says string // "": good
	}{
		{"at once, by a slow clock", start.Add(-Skew), ""},
		{"before it begins", start.Add(-Skew - time.Second), "begins at"},
		{"to the end", start.Add(24 * time.Hour), ""},
		{"after the end", start.Add(24*time.Hour + time.Second), "ended at"},
	} {
		trust := d.trust(t, c.now)
		_, _, err := trust.Verify(PurposePublisher, "bank", "x/y", e)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, _, err := trust.VerifyKept(PurposePublisher, "bank", "x/y", e); err != nil {
			t.Errorf("%s, kept: %v", c.name, err)
		}
	}
}

func TestRevoke(t *testing.T) {
	d := newDesk(t)
	b, err := d.root.Revoke(d.bundle, []string{d.delegated["bank"].Serial}, nil, start)
	if err != nil {
		t.Fatal(err)
	}
	d.bundle = b
	trust := d.trust(t, start)
	e := d.keys["bank"].Sign("x/y", nil)
	if _, _, err := trust.Verify(PurposePublisher, "bank", "x/y", e); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("revoked: %v", err)
	}
	if _, _, err := trust.VerifyKept(PurposePublisher, "bank", "x/y", e); !errors.Is(err, ErrUntrusted) {
		t.Errorf("revoked, kept: %v", err)
	}
	if _, _, err := trust.Verify(PurposePublisher, "shop", "x/y", d.keys["shop"].Sign("x/y", nil)); err != nil {
		t.Errorf("the other publisher: %v", err)
	}
	again, err := d.root.Revoke(b, []string{d.delegated["shop"].Serial}, nil, start)
	if err != nil {
		t.Fatal(err)
	}
	d.bundle = again
	if n := len(d.trust(t, start).void); n != 2 {
		t.Errorf("the second list holds %d serials", n)
	}
	if _, err := d.root.Revoke(b, []string{"zz"}, nil, start); err == nil {
		t.Error("a serial that is none was revoked")
	}
}

// TestFalseBundles changes one thing in a good bundle; all of it must be refused.
func TestFalseBundles(t *testing.T) {
	d, other := newDesk(t), newDesk(t)
	stranger, err := NewRootKey()
	if err != nil {
		t.Fatal(err)
	}
	sign := func(root *RootKey, change func(*Delegation)) Envelope {
		del := d.delegated["shop"]
		del.Serial = newSerial()
		change(&del)
		e, err := root.signJSON(delegationType, del)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	add := func(e Envelope) Bundle { return d.bundle.With([]Envelope{e}, nil) }
	caKey := func(b Bundle) []byte { return b.Certificates[0] }
	cases := map[string]Bundle{
		"nothing":                               {},
		"no delegations":                        {Root: d.bundle.Root},
		"another root":                          other.bundle,
		"another root's delegation":             add(other.bundle.Delegations[0]),
		"signed by a delegated key":             add(must(d.keys["catalog"].signJSON(delegationType, d.delegated["shop"]))),
		"signed by a stranger":                  add(sign(stranger, func(*Delegation) {})),
		"the same serial twice":                 add(d.bundle.Delegations[0]),
		"another fleet":                         add(sign(d.root, func(x *Delegation) { x.Fleet = "other" })),
		"an unknown purpose":                    add(sign(d.root, func(x *Delegation) { x.Purpose = "root" })),
		"a key for two purposes":                add(sign(d.root, func(x *Delegation) { x.Purpose, x.Project = PurposeCatalog, "" })),
		"a publisher of no project":             add(sign(d.root, func(x *Delegation) { x.Project = "" })),
		"a catalog key of a project":            add(sign(d.root, func(x *Delegation) { x.Purpose = PurposeCatalog })),
		"an Ed25519 CA":                         add(sign(d.root, func(x *Delegation) { x.Purpose, x.Project = PurposeCA, "" })),
		"the root key as publisher":             add(sign(d.root, func(x *Delegation) { x.PublicKey = d.root.PublicKey() })),
		"no key":                                add(sign(d.root, func(x *Delegation) { x.PublicKey = nil })),
		"ends before it begins":                 add(sign(d.root, func(x *Delegation) { x.NotAfter = x.NotBefore.Add(-time.Hour) })),
		"for a hundred years":                   add(sign(d.root, func(x *Delegation) { x.NotAfter = x.NotBefore.Add(100 * year) })),
		"a serial that is none":                 add(sign(d.root, func(x *Delegation) { x.Serial = "1" })),
		"a subject with a line end":             add(sign(d.root, func(x *Delegation) { x.Subject = "a\nb" })),
		"signed as something else":              add(d.root.Sign(revocationType, d.bundle.Delegations[0].Payload)),
		"a CA certificate of another fleet":     d.bundle.With(nil, [][]byte{caKey(other.bundle)}),
		"a CA certificate that is none":         d.bundle.With(nil, [][]byte{[]byte("hello")}),
		"revocations signed by a delegated key": withRevocations(d.bundle, must(d.keys["catalog"].signJSON(revocationType, Revocations{Fleet: "selvage", Number: 1}))),
		"revocations of another fleet":          withRevocations(d.bundle, must(d.root.signJSON(revocationType, Revocations{Fleet: "other", Number: 1}))),
	}
	for i := range d.bundle.Delegations {
		b := d.bundle
		b.Delegations = append([]Envelope(nil), b.Delegations...)
		b.Delegations[i].Payload = bytes.Replace(b.Delegations[i].Payload, []byte("20"), []byte("21"), 1)
		cases["payload changed in "+string(rune('0'+i))] = b
	}
	for name, b := range cases {
		if _, err := NewTrust(d.root.ID(), b, at(start)); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func withRevocations(b Bundle, e Envelope) Bundle {
	b.Revocations = &e
	return b
}

func must(e Envelope, err error) Envelope {
	if err != nil {
		panic(err)
	}
	return e
}

func TestDelegateRefusesNonsense(t *testing.T) {
	root, err := NewRootKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.Delegate(Delegation{Fleet: "A", Purpose: "x"}, start); err == nil {
		t.Error("signed")
	} else if n := strings.Count(err.Error(), "\n"); n < 3 {
		t.Errorf("not every fault is said: %v", err)
	}
}

func TestAnchorNeverGoesBack(t *testing.T) {
	d, other := newDesk(t), newDesk(t)
	path := filepath.Join(t.TempDir(), "trust.json")
	revoked, err := d.root.Revoke(d.bundle, []string{d.delegated["bank"].Serial}, nil, start)
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAnchor(d.root.ID(), d.bundle, path, at(start))
	if err != nil {
		t.Fatal(err)
	}
	changed := a.Changed()
	if err := a.Update(revoked); err != nil {
		t.Fatal(err)
	}
	<-changed
	forgetful := withRevocations(d.bundle, must(d.root.signJSON(revocationType, Revocations{Fleet: "selvage", Number: 9})))
	for name, b := range map[string]Bundle{"without the list": d.bundle, "another fleet's": other.bundle, "a list that forgets": forgetful} {
		if err := a.Update(b); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a.Trust().revoked.Number != 1 {
		t.Error("the trust went back")
	}
	saved, err := LoadBundle(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewAnchor(d.root.ID(), saved, path, at(start)); err != nil || saved.Revocations == nil {
		t.Errorf("saved: %v", err)
	}
	if err := a.Reload(); err != nil {
		t.Error(err)
	}
}
