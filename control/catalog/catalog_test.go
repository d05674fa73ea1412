package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/function"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newControl(t testing.TB) (*identity.Control, identity.Created) {
	t.Helper()
	c, created, err := identity.Init(filepath.Join(t.TempDir(), "id"), identity.InitOptions{Now: func() time.Time { return start }})
	if err != nil {
		t.Fatal(err)
	}
	return c, created
}

// release makes a record of "project/function" at a revision of epoch 1.
func release(id string, revision uint64, routes ...string) *Record {
	project, name, _ := strings.Cut(id, "/")
	d := function.DigestOf([]byte(id))
	return &Record{Position: Position{1, revision}, Release: &Release{
		Project: project, Function: name, Number: 1, Bundle: d, Code: d, Image: d, Started: true, Routes: routes,
		Publisher: identity.KeyID("sha256:" + strings.Repeat("0", 64)), CreatedAt: start,
	}}
}

func removal(id string, revision, number uint64) *Record {
	project, name, _ := strings.Cut(id, "/")
	return &Record{Position: Position{1, revision}, Release: &Release{Project: project, Function: name, Number: number, CreatedAt: start, Removed: true}}
}

func namespace(id string, revision uint64) *Record {
	project, name, _ := strings.Cut(id, "/")
	return &Record{Position: Position{1, revision}, Namespace: &Namespace{Project: project, Name: name, Mode: ModeCached, CreatedAt: start}}
}

func number(r *Record, n uint64) *Record {
	r.Release.Number = n
	return r
}

func epoch(r *Record, e uint64) *Record {
	r.Epoch = e
	return r
}

func bind(r *Record, ns string, write bool) *Record {
	r.Release.Bindings.KV = append(r.Release.Bindings.KV, function.KVBinding{Name: ns, Namespace: ns, Write: write})
	return r
}

func sign(t testing.TB, c *identity.Control, records ...*Record) [][]byte {
	t.Helper()
	list := make([][]byte, len(records))
	for i, r := range records {
		b, err := r.Sign(c.Catalog)
		if err != nil {
			t.Fatal(err)
		}
		list[i] = b
	}
	return list
}

// apply applies records one batch each.
func apply(t testing.TB, s *State, c *identity.Control, records ...*Record) {
	t.Helper()
	for _, r := range records {
		if err := s.Apply(r.Position, sign(t, c, r)...); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecordRoundTrip(t *testing.T) {
	c, _ := newControl(t)
	full := bind(release("shop/cart", 7, "shop.example.com/*"), "items", true)
	full.Release.Bindings.Variables = map[string]string{"A": "<b>&\u2028\"é"}
	full.Release.Bindings.Backends = []function.Backend{{Name: "api", URL: "https://api.example.com", Private: true, Timeouts: function.Timeouts{Total: time.Minute}}}
	full.Release.Limits.CPU = time.Second
	for _, r := range []*Record{full, removal("shop/cart", 8, 2), namespace("shop/items", 9)} {
		got, err := Open(c.Anchor, sign(t, c, r)[0])
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("got %+v, %v; want %+v", got, err, r)
		}
	}
}

func TestOpenRefusesEveryFlippedByte(t *testing.T) {
	c, _ := newControl(t)
	good := sign(t, c, release("shop/cart", 7, "shop.example.com/*"))[0]
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := Open(c.Anchor, bad); err == nil {
			t.Errorf("byte %d was flipped and nobody noticed", i)
		}
	}
}

func TestOpenRefusesOtherKeys(t *testing.T) {
	c, created := newControl(t)
	other, _ := newControl(t)
	publisher, err := identity.LoadSigner(created.PublisherKey)
	if err != nil {
		t.Fatal(err)
	}
	r := release("default/cart", 7)
	for name, key := range map[string]*identity.Signer{"changes": c.Changes, "publisher": publisher, "another fleet's catalog": other.Catalog} {
		b, err := r.Sign(key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(c.Anchor, b); !errors.Is(err, identity.ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
		if err := NewState(c.Anchor).Apply(r.Position, b); !errors.Is(err, identity.ErrUntrusted) {
			t.Errorf("%s, applied: %v", name, err)
		}
	}
	payload, _ := json.Marshal(r)
	if _, err := Open(c.Anchor, c.Catalog.Sign("text/plain", payload).Encode()); !errors.Is(err, identity.ErrUntrusted) {
		t.Errorf("another type: %v", err)
	}
}

func TestValidate(t *testing.T) {
	c, _ := newControl(t)
	change := func(f func(*Record)) *Record {
		r := release("shop/cart", 1, "shop.example.com/*")
		f(r)
		return r
	}
	for name, r := range map[string]*Record{
		"empty":               {},
		"both":                change(func(r *Record) { r.Namespace = namespace("a/b", 1).Namespace }),
		"no epoch":            change(func(r *Record) { r.Epoch = 0 }),
		"no revision":         change(func(r *Record) { r.Revision = 0 }),
		"no number":           change(func(r *Record) { r.Release.Number = 0 }),
		"project":             change(func(r *Record) { r.Release.Project = "../x" }),
		"function":            change(func(r *Record) { r.Release.Function = "" }),
		"bundle":              change(func(r *Record) { r.Release.Bundle = "sha256:1" }),
		"code":                change(func(r *Record) { r.Release.Code = "" }),
		"publisher":           change(func(r *Record) { r.Release.Publisher = "x" }),
		"route not canonical": change(func(r *Record) { r.Release.Routes = []string{"SHOP.example.com/*"} }),
		"route twice":         change(func(r *Record) { r.Release.Routes = []string{"a/*", "a/*"} }),
		"route malformed":     change(func(r *Record) { r.Release.Routes = []string{"x"} }),
		"too many routes":     change(func(r *Record) { r.Release.Routes = make([]string, 101) }),
		"limit below zero":    change(func(r *Record) { r.Release.Limits.CPU = -1 }),
		"limit over ceiling":  change(func(r *Record) { r.Release.Limits.MemoryBytes = 1 << 40 }),
		"binding twice":       change(func(r *Record) { bind(bind(r, "a", false), "a", true) }),
		"binding name":        change(func(r *Record) { bind(r, "a.>", false) }),
		"backend with too long a timeout": change(func(r *Record) {
			r.Release.Bindings.Backends = []function.Backend{{Name: "a", URL: "https://a.example", Timeouts: function.Timeouts{TLS: time.Hour}}}
		}),
		"backend without URL": change(func(r *Record) { r.Release.Bindings.Backends = []function.Backend{{Name: "a"}} }),
		"time missing":        change(func(r *Record) { r.Release.CreatedAt = time.Time{} }),
		"time elsewhere":      change(func(r *Record) { r.Release.CreatedAt = start.In(time.FixedZone("x", 3600)) }),
		"removal that says":   change(func(r *Record) { r.Release.Removed = true }),
		"namespace's mode":    {Position: Position{1, 1}, Namespace: &Namespace{Project: "a", Name: "b", Mode: "mirrored", CreatedAt: start}},
		"namespace's name":    {Position: Position{1, 1}, Namespace: &Namespace{Project: "a", Name: "*", Mode: ModeCached, CreatedAt: start}},
		"variable not UTF-8":  change(func(r *Record) { r.Release.Bindings.Variables = map[string]string{"A": "\xff"} }),
		"a record of 1 MiB":   change(func(r *Record) { r.Release.Bindings.Variables = map[string]string{"A": strings.Repeat("x", 1<<20)} }),
	} {
		if _, err := r.Sign(c.Catalog); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func TestApplyKeepsOrder(t *testing.T) {
	c, _ := newControl(t)
	s := NewState(c.Anchor)
	if err := s.Apply(Position{1, 20}, sign(t, c, release("a/f", 3), release("a/g", 10))...); err != nil {
		t.Fatal(err)
	}
	before := s.Snapshot()
	for name, try := range map[string]struct {
		to      Position
		records []*Record
		want    error // nil: any
	}{
		"the same again":              {Position{1, 10}, []*Record{release("a/g", 10)}, ErrStale},
		"an old record, moved":        {Position{1, 30}, []*Record{release("a/g", 10)}, ErrStale},
		"a record before the head":    {Position{1, 30}, []*Record{release("a/h", 20)}, ErrStale},
		"back without records":        {Position{1, 19}, nil, ErrStale},
		"no room for a record":        {Position{1, 20}, []*Record{release("a/h", 20)}, ErrStale},
		"records out of order":        {Position{1, 30}, []*Record{release("a/h", 22), release("a/i", 21)}, ErrStale},
		"the same revision twice":     {Position{1, 30}, []*Record{release("a/h", 22), release("a/i", 22)}, ErrStale},
		"a record past the end":       {Position{1, 30}, []*Record{release("a/h", 31)}, nil},
		"a record of a later epoch":   {Position{1, 30}, []*Record{epoch(release("a/h", 25), 2)}, nil},
		"another epoch":               {Position{2, 30}, []*Record{epoch(release("a/h", 30), 2)}, ErrEpoch},
		"no epoch":                    {Position{0, 30}, nil, nil},
		"a good one and one too late": {Position{1, 30}, []*Record{release("a/h", 25), release("a/h", 5)}, ErrStale},
	} {
		err := s.Apply(try.to, sign(t, c, try.records...)...)
		if err == nil || try.want != nil && !errors.Is(err, try.want) {
			t.Errorf("%s: %v", name, err)
		}
		if s.Snapshot() != before {
			t.Fatalf("%s: the state changed", name)
		}
	}
	if err := s.Apply(Position{1, 25}); err != nil {
		t.Errorf("a batch that says nothing happened: %v", err)
	}
	apply(t, s, c, release("a/h", 26))
	if got := s.Snapshot().Position(); got != (Position{1, 26}) {
		t.Errorf("at %s", got)
	}
	if len(before.Releases()) != 2 || before.Position() != (Position{1, 20}) {
		t.Error("an old snapshot changed")
	}
}

func TestSnapshotAnswers(t *testing.T) {
	c, _ := newControl(t)
	s := NewState(c.Anchor)
	apply(t, s, c,
		namespace("a/links", 1), namespace("a/logs", 2), namespace("b/links", 3),
		bind(bind(release("a/f", 4, "x.example.com/*"), "links", false), "logs", true),
		release("b/f", 5), release("a/g", 6), removal("a/g", 7, 2))
	snap := s.Snapshot()
	var names []string
	for _, r := range snap.Releases() {
		names = append(names, r.ID().String())
	}
	if !slices.Equal(names, []string{"a/f", "b/f"}) {
		t.Errorf("releases %v", names)
	}
	if r, ok := snap.Release(function.ID{Project: "a", Name: "g"}); !ok || !r.Removed {
		t.Errorf("the removed one: %+v, %v", r, ok)
	}
	if got := snap.ReleasePosition(function.ID{Project: "a", Name: "f"}); got != (Position{1, 4}) {
		t.Errorf("position %s", got)
	}
	for ask, want := range map[string]string{"a/links": "yn", "a/logs": "yy", "b/links": "nn", "a/none": "nn"} {
		project, ns, _ := strings.Cut(ask, "/")
		got := map[bool]string{true: "y", false: "n"}[snap.Binds(project, ns, false, nil)] + map[bool]string{true: "y", false: "n"}[snap.Binds(project, ns, true, nil)]
		if got != want {
			t.Errorf("%s: read, write %s; want %s", ask, got, want)
		}
	}
	if b := snap.Bound(nil); len(b) != 2 || b[0].Name != "links" || len(snap.Namespaces()) != 3 {
		t.Errorf("bound %v of %v", b, snap.Namespaces())
	}
	if owner, ok := snap.RouteOwner("x.example.com/*"); !ok || owner.String() != "a/f" {
		t.Errorf("owner %v, %v", owner, ok)
	}
	v := snap.Releases()[0].Version()
	if v.Limits != function.Default || v.ID.String() != "a/f" {
		t.Errorf("version %+v", v)
	}
}

func TestAdmit(t *testing.T) {
	c, _ := newControl(t)
	s := NewState(c.Anchor)
	apply(t, s, c, namespace("a/links", 1), bind(release("a/f", 2, "shop.example.com/*", "*/health"), "links", false), release("b/f", 3, "b.example.com/*"))
	gone := namespace("a/links", 9)
	gone.Namespace.Removed = true
	never := namespace("a/never", 9)
	never.Namespace.Removed = true
	for name, try := range map[string]struct {
		record *Record
		says   string // "": admitted
	}{
		"its own next release":                   {number(release("a/f", 9, "shop.example.com/*"), 2), ""},
		"a new function":                         {release("a/g", 9, "new.example.com/*"), ""},
		"a more specific route in the project":   {release("a/g", 9, "shop.example.com/cart/*"), ""},
		"a route of every host":                  {release("b/g", 9, "*/*"), ""},
		"a route another function has":           {release("a/g", 9, "shop.example.com/*"), `route "shop.example.com/*" belongs to function a/f`},
		"a route another project has":            {release("b/g", 9, "shop.example.com/*"), `belongs to function a/f`},
		"part of another project's host":         {release("b/g", 9, "shop.example.com/login/*"), `overlaps "shop.example.com/*", which belongs to function a/f`},
		"a wildcard over another project's host": {release("b/g", 9, "*.example.com/*"), `overlaps "shop.example.com/*"`},
		"a number someone else used":             {release("a/f", 9), "the next is 2"},
		"a number too far":                       {number(release("a/f", 9), 3), "the next is 2"},
		"a namespace that is not there":          {bind(release("a/g", 9), "none", false), `no namespace "none"`},
		"another project's namespace":            {bind(number(release("b/f", 9), 2), "links", false), `project b has no namespace "links"`},
		"a function that is not there, removed":  {removal("a/none", 9, 1), "none to remove"},
		"a function, removed":                    {removal("a/f", 9, 2), ""},
		"a bound namespace, removed":             {gone, "function a/f binds it"},
		"a namespace that is not there, removed": {never, "none to remove"},
		"a namespace":                            {namespace("b/links", 9), ""},
	} {
		err := s.Snapshot().Admit(try.record)
		if (err == nil) != (try.says == "") || err != nil && !strings.Contains(err.Error(), try.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := s.Snapshot().Admit(release("b/g", 9, "shop.example.com/*", "b.example.com/*"))
	var taken *RouteTaken
	if !errors.As(err, &taken) || taken.Owner.String() != "a/f" || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("not every reason is said: %v", err)
	}
}

func TestRoutesChangeHands(t *testing.T) {
	c, _ := newControl(t)
	s := NewState(c.Anchor)
	const r = "shop.example.com/*"
	apply(t, s, c, release("a/f", 1, r), number(release("a/f", 2), 2))
	if err := s.Snapshot().Admit(release("b/g", 3, r)); err != nil {
		t.Errorf("let go, but not free: %v", err)
	}
	apply(t, s, c, release("b/g", 3, r), removal("b/g", 4, 2))
	if err := s.Snapshot().Admit(number(release("a/f", 5, r), 3)); err != nil {
		t.Errorf("removed, but not free: %v", err)
	}
}

func TestNames(t *testing.T) {
	c, _ := newControl(t)
	s := NewState(c.Anchor)
	code, image := function.DigestOf([]byte("own code")), function.DigestOf([]byte("own image"))
	own := release("a/f", 1)
	own.Release.Code, own.Release.Image = code, image
	apply(t, s, c, own)
	before := s.Snapshot()
	if !before.Names(code, nil) || !before.Names(image, nil) || before.Names(own.Release.Bundle, nil) || before.Names("", nil) {
		t.Error("not its code and image, or more than these")
	}
	apply(t, s, c, removal("a/f", 2, 2))
	if s.Snapshot().Names(code, nil) || !before.Names(code, nil) {
		t.Error("a removal's are named, or another snapshot changed")
	}
}

// TestReaderWhoMissedTheHandOver follows a log that has forgotten the release by
// which a route was let go.
func TestReaderWhoMissedTheHandOver(t *testing.T) {
	c, _ := newControl(t)
	s := NewState(c.Anchor)
	const r = "shop.example.com/*"
	apply(t, s, c, release("a/f", 1, r)) // 2, without the route, was replaced by 9
	apply(t, s, c, release("b/g", 5, r))
	if owner, _ := s.Snapshot().RouteOwner(r); owner.String() != "b/g" {
		t.Errorf("owner %v", owner)
	}
	apply(t, s, c, number(release("a/f", 9), 3))
	if routes := s.Snapshot().Routes(); len(routes) != 1 || routes[0].Owner.String() != "b/g" {
		t.Errorf("routes %v", routes)
	}
}

func TestRebuild(t *testing.T) {
	c, _ := newControl(t)
	s := NewState(c.Anchor)
	apply(t, s, c, release("a/f", 1), release("a/lost", 2))
	b, err := s.Rebuild(2)
	if err != nil {
		t.Fatal(err)
	}
	// The store was restored to revision 1, and gave 2 again.
	if err := b.Apply(Position{2, 2}, sign(t, c, release("a/f", 1), epoch(release("a/new", 2), 2))...); err != nil {
		t.Fatal(err)
	}
	if err := b.Apply(Position{2, 5}, sign(t, c, release("a/lost", 4))...); !errors.Is(err, ErrStale) {
		t.Errorf("a record of the lost past: %v", err)
	}
	if err := b.Apply(Position{3, 5}); !errors.Is(err, ErrEpoch) {
		t.Errorf("another epoch: %v", err)
	}
	if len(s.Snapshot().Releases()) != 2 || s.Snapshot().Position() != (Position{1, 2}) {
		t.Error("the state changed before Commit")
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rebuild(1); !errors.Is(err, ErrStale) {
		t.Errorf("back to the old epoch: %v", err)
	}
	if _, ok := s.Snapshot().Release(function.ID{Project: "a", Name: "lost"}); ok || s.Snapshot().Position() != (Position{2, 2}) {
		t.Errorf("at %s", s.Snapshot().Position())
	}
	if err := s.Apply(Position{1, 9}, sign(t, c, release("a/x", 9))...); !errors.Is(err, ErrStale) {
		t.Errorf("the old epoch: %v", err)
	}
}

func TestRebuildInTheSameEpoch(t *testing.T) {
	c, _ := newControl(t)
	for name, try := range map[string]struct {
		to      uint64
		records []*Record
		ok      bool
	}{
		"all of it, and more":      {9, []*Record{release("a/f", 3), release("a/g", 4), release("a/h", 9)}, true},
		"a newer record of a key":  {9, []*Record{release("a/g", 4), number(release("a/f", 5), 2)}, true},
		"not as far":               {3, []*Record{release("a/f", 3)}, false},
		"as far, but a key lost":   {9, []*Record{release("a/f", 3)}, false},
		"as far, but a key before": {9, []*Record{release("a/f", 2), release("a/g", 4)}, false},
	} {
		s := NewState(c.Anchor)
		apply(t, s, c, release("a/f", 3), release("a/g", 4))
		b, err := s.Rebuild(1)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Apply(Position{1, try.to}, sign(t, c, try.records...)...); err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(); (err == nil) != try.ok || err != nil && !errors.Is(err, ErrStale) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSaveLoad(t *testing.T) {
	c, _ := newControl(t)
	s := NewState(c.Anchor)
	path := filepath.Join(t.TempDir(), "catalog")
	apply(t, s, c, release("a/f", 1, "x.example.com/*"), namespace("a/n", 3), removal("a/g", 4, 1))
	if err := s.Apply(Position{1, 9}); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(path); err != nil {
		t.Fatal(err)
	}
	fresh := NewState(c.Anchor)
	if err := fresh.Load(path); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(fresh.Snapshot().encode(), s.Snapshot().encode()) || fresh.Snapshot().Position() != (Position{1, 9}) {
		t.Errorf("loaded %s", fresh.Snapshot().Position())
	}
	apply(t, s, c, release("a/f", 10))
	if err := s.Load(path); !errors.Is(err, ErrStale) {
		t.Errorf("went back: %v", err)
	}
	if err := fresh.Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := errors.Join(NewState(c.Anchor).Save(empty), NewState(c.Anchor).Load(empty)); err != nil {
		t.Errorf("an empty catalog: %v", err)
	}
}

func TestLoadNoticesDamage(t *testing.T) {
	c, _ := newControl(t)
	s := NewState(c.Anchor)
	apply(t, s, c, release("a/f", 1))
	good := s.Snapshot().encode()
	path := filepath.Join(t.TempDir(), "catalog")
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		fresh := NewState(c.Anchor)
		if err := fresh.Load(path); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d: %v", i, err)
		}
		if fresh.Snapshot().Position() != (Position{}) {
			t.Fatalf("byte %d: something was loaded", i)
		}
	}
}

func TestLoadTrustsNoFile(t *testing.T) {
	c, created := newControl(t)
	other, _ := newControl(t)
	path := filepath.Join(t.TempDir(), "catalog")
	s := NewState(other.Anchor)
	apply(t, s, other, release("a/f", 1))
	if err := s.Save(path); err != nil {
		t.Fatal(err)
	}
	if err := NewState(c.Anchor).Load(path); !errors.Is(err, identity.ErrUntrusted) {
		t.Errorf("another fleet's catalog: %v", err)
	}

	s = NewState(c.Anchor)
	apply(t, s, c, release("a/f", 1))
	if err := s.Save(path); err != nil {
		t.Fatal(err)
	}
	later, err := identity.NewAnchor(c.Root, c.Anchor.Trust().Bundle(), "", func() time.Time { return start.AddDate(4, 0, 0) })
	if err != nil {
		t.Fatal(err)
	}
	if err := NewState(later).Load(path); err != nil {
		t.Errorf("a delegation that ended since: %v", err)
	}
	if err := NewState(later).Apply(Position{1, 1}, sign(t, c, release("a/f", 1))...); !errors.Is(err, identity.ErrUntrusted) {
		t.Errorf("a delegation that has ended: %v", err)
	}
	root, err := identity.LoadRootKey(created.RootKeyFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range c.Anchor.Trust().Delegations() {
		if d.Purpose == identity.PurposeCatalog {
			if err := c.Revoke(root, []string{d.Serial}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := NewState(c.Anchor).Load(path); !errors.Is(err, identity.ErrUntrusted) {
		t.Errorf("a delegation that was revoked: %v", err)
	}
}

// TestReadersSeeWholeSnapshots reads while records come in.
func TestReadersSeeWholeSnapshots(t *testing.T) {
	c, _ := newControl(t)
	s := NewState(c.Anchor)
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			last := Position{}
			for {
				select {
				case <-stop:
					return
				default:
				}
				snap := s.Snapshot()
				if snap.Position().Compare(last) < 0 || uint64(len(snap.Releases())) != snap.Position().Revision {
					t.Errorf("at %s after %s with %d releases", snap.Position(), last, len(snap.Releases()))
					return
				}
				last = snap.Position()
			}
		})
	}
	for i := range uint64(50) {
		apply(t, s, c, release("a/f"+strings.Repeat("x", int(i)), i+1))
	}
	close(stop)
	readers.Wait()
}

func FuzzDecodeRecord(f *testing.F) {
	for _, r := range []*Record{bind(release("a/f", 1, "x.example.com/*"), "n", true), removal("a/f", 2, 2), namespace("a/n", 3)} {
		payload, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
		f.Add(append(bytes.Clone(payload), ' '))                            // another form of the same
		f.Add(bytes.Replace(payload, []byte("{"), []byte(`{"more":1,`), 1)) // a field that there is not
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		r, err := decodeRecord(payload)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil || !bytes.Equal(again, payload) {
			t.Errorf("two forms of one record: %s", payload)
		}
		if strings.Count(r.Key(), "/") != 2 {
			t.Errorf("key %q", r.Key())
		}
	})
}

func FuzzDecodeFile(f *testing.F) {
	c, _ := newControl(f)
	s := NewState(c.Anchor)
	apply(f, s, c, release("a/f", 1))
	f.Add(s.Snapshot().encode())
	f.Add([]byte(fileMagic))
	whole := s.Snapshot().encode()
	f.Add(whole[:len(whole)-1])
	f.Add(append(bytes.Clone(whole), whole...))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, in := range [][]byte{b, sealed(b)} {
			if pos, records, err := decodeFile(in); err == nil {
				_ = NewState(c.Anchor).load(in)
				_, _ = pos, records
			}
		}
	})
}

// sealed gives b a right magic and sum, so that fuzzing gets past them.
func sealed(b []byte) []byte {
	return appendSum(append([]byte(fileMagic), b...))
}
