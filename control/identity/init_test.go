package identity

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// start is when the fleets of these tests are made.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// at returns a clock that stands still.
func at(t time.Time) func() time.Time { return func() time.Time { return t } }

// newFleet makes a fleet's identity in a fresh directory.
func newFleet(t *testing.T, o InitOptions) (*Control, Created) {
	t.Helper()
	if o.Now == nil {
		o.Now = at(start)
	}
	c, created, err := Init(filepath.Join(t.TempDir(), "identity"), o)
	if err != nil {
		t.Fatal(err)
	}
	return c, created
}

func rootOf(t *testing.T, c Created) *RootKey {
	t.Helper()
	root, err := LoadRootKey(c.RootKeyFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestInitMakesWhatOpenReads(t *testing.T) {
	c, created := newFleet(t, InitOptions{Fleet: "acme", Project: "shop"})
	if c.Fleet != "acme" || c.Root != created.Root || len(c.GossipKey) != 32 {
		t.Errorf("opened %+v", c)
	}
	if err := c.Tokens[0].Check(created.AdminToken, start); err != nil || !c.Tokens[0].Allows(ScopeAdmin, "") {
		t.Errorf("admin token: %v", err)
	}
	key, err := LoadSigner(created.PublisherKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Anchor.Verify(PurposePublisher, "shop", "x", key.Sign("x", []byte("y"))); err != nil {
		t.Error(err)
	}
}

func TestInitFilesArePrivate(t *testing.T) {
	_, created := newFleet(t, InitOptions{})
	dir := filepath.Dir(created.RootKeyFile)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if info, _ := f.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", f.Name(), info.Mode())
		}
	}
	left, _ := os.ReadDir(filepath.Dir(dir))
	if len(left) != 1 {
		t.Errorf("left beside the directory: %v", left)
	}
}

func TestInitRefusesADirectoryInUse(t *testing.T) {
	_, created := newFleet(t, InitOptions{})
	before, _ := os.ReadFile(created.RootKeyFile)
	_, _, err := Init(filepath.Dir(created.RootKeyFile), InitOptions{})
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Init: %v", err)
	}
	if after, _ := os.ReadFile(created.RootKeyFile); string(after) != string(before) {
		t.Error("the root key was replaced")
	}
}

func TestControlWorksWithTheRootKeyAway(t *testing.T) {
	_, created := newFleet(t, InitOptions{})
	if err := os.Remove(created.RootKeyFile); err != nil {
		t.Fatal(err)
	}
	c, err := OpenControl(filepath.Dir(created.RootKeyFile), at(start))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Member(); err != nil {
		t.Error(err)
	}
}

func TestOpenControlSaysWhatIsWrong(t *testing.T) {
	_, err := OpenControl(t.TempDir(), nil)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty directory: %v", err)
	}
	_, created := newFleet(t, InitOptions{})
	dir := filepath.Dir(created.RootKeyFile)
	_, err = OpenControl(dir, at(start.Add(3*year)))
	if !errors.Is(err, ErrUntrusted) {
		t.Errorf("delegations over: %v", err)
	}
	if err := os.Chmod(filepath.Join(dir, fileCatalog), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err = OpenControl(dir, at(start)); err == nil {
		t.Error("a key that others may read was taken")
	}
}

func TestRenewDelegations(t *testing.T) {
	_, created := newFleet(t, InitOptions{})
	root := rootOf(t, created)
	dir := filepath.Dir(created.RootKeyFile)
	late := start.Add(year + year/2)
	c, err := OpenControl(dir, at(late))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.RenewDelegations(root); err != nil {
		t.Fatal(err)
	}
	c, err = OpenControl(dir, at(start.Add(3*year)))
	if err != nil {
		t.Fatalf("after renewal: %v", err)
	}
	if _, _, err := c.Anchor.Verify(PurposeCatalog, "", "x", c.Catalog.Sign("x", nil)); err != nil {
		t.Error(err)
	}
}

func TestSealedRootKey(t *testing.T) {
	if testing.Short() {
		t.Skip("each guess takes half a second by design")
	}
	root, err := NewRootKey()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "root.key")
	if err := root.Save(path, []byte("correct horse")); err != nil {
		t.Fatal(err)
	}
	say := func(p string) func() ([]byte, error) { return func() ([]byte, error) { return []byte(p), nil } }
	got, err := LoadRootKey(path, say("correct horse"))
	if err != nil || got.ID() != root.ID() {
		t.Errorf("right passphrase: %v", err)
	}
	if _, err := LoadRootKey(path, say("battery staple")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := LoadRootKey(path, nil); err == nil {
		t.Error("no passphrase was taken")
	}
}
