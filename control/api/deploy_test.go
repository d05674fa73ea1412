package api

import (
	"bytes"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/function"
)

const routeHello = "routes = [\"hello.example.com/*\"]\n"

func TestDeploy(t *testing.T) {
	f := start(t)
	d := f.deploy("hello", routeHello+"[[kv]]\nname = \"links\"\naccess = \"write\"\n", module)
	r := d.Release
	if d.Unchanged || r.Number != 1 || r.Revision != 2 || r.Epoch != f.store.Epoch() || !r.Started || r.Routes[0] != "hello.example.com/*" {
		t.Errorf("first release: %+v", d)
	}
	if len(d.CreatedNamespaces) != 1 || d.CreatedNamespaces[0] != "links" || len(d.Notes) != 1 {
		t.Errorf("said: %+v", d)
	}
	for _, digest := range []function.Digest{r.Bundle, r.Code, r.Image} {
		if has, err := f.store.HasBlob(t.Context(), digest); !has || err != nil {
			t.Errorf("blob %s: %v, %v", digest.Short(), has, err)
		}
	}
	if code, err := f.store.BlobBytes(t.Context(), r.Code, 100); err != nil || !bytes.HasPrefix(code, []byte("code of ")) {
		t.Errorf("code: %q, %v", code, err)
	}
	if !f.api.Catalog().Binds("default", "links", true, nil) {
		t.Error("the binding is not in the catalog")
	}

	var again Deployed
	f.want(200, f.admin("POST", "/v1/projects/default/functions/hello/releases", DeployRequest{r.Bundle}), &again)
	if !again.Unchanged || again.Release.Number != 1 || again.Release.Revision != r.Revision {
		t.Errorf("the same bundle again: %+v", again)
	}
	second := f.deploy("hello", routeHello, module+"\x00\x02\x01a")
	if second.Release.Number != 2 || second.Release.Revision != 3 || len(second.CreatedNamespaces) != 0 {
		t.Errorf("second release: %+v", second)
	}
	var list ReleaseList
	f.want(200, f.admin("GET", "/v1/projects/default/functions/hello/releases", nil), &list)
	if len(list.Releases) != 2 || list.Releases[0].Number != 2 || list.Releases[1].Bundle != r.Bundle {
		t.Errorf("history: %+v", list)
	}
	var functions FunctionList
	f.want(200, f.admin("GET", "/v1/projects/default/functions", nil), &functions)
	if len(functions.Functions) != 1 || functions.Functions[0].Release.Number != 2 {
		t.Errorf("functions: %+v", functions)
	}

	// What is live outlives the process.
	f.listen()
	var fn Function
	f.want(200, f.admin("GET", "/v1/projects/default/functions/hello", nil), &fn)
	if fn.Release.Number != 2 || fn.Release.Code != second.Release.Code {
		t.Errorf("after a restart: %+v", fn)
	}
	var gone Release
	f.want(200, f.admin("DELETE", "/v1/projects/default/functions/hello", nil), &gone)
	if !gone.Removed || gone.Number != 3 || gone.Revision != 4 {
		t.Errorf("removed: %+v", gone)
	}
	f.refused(404, "not-found", f.admin("DELETE", "/v1/projects/default/functions/hello", nil))
	f.refused(404, "not-found", f.admin("GET", "/v1/projects/default/functions/hello", nil))
	var back Deployed
	f.want(201, f.admin("POST", "/v1/projects/default/functions/hello/releases", DeployRequest{r.Bundle}), &back)
	if back.Release.Number != 4 {
		t.Errorf("deployed again: %+v", back)
	}
}

func TestBadBundlesAreRefused(t *testing.T) {
	f := start(t, func(c *Config) { c.Bundle.PackedBytes = 64 << 10 })
	packed, sig, _ := f.pack("default", "hello", routeHello, module)
	_, otherSig, _ := f.pack("default", "other", "", module)
	foreign, foreignSig, _ := f.pack("acme", "hello", "", module)
	stranger, err := identity.NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	e, err := bundle.Sign(stranger, "default", "hello", function.DigestOf(packed))
	if err != nil {
		t.Fatal(err)
	}
	strangerSig, err := e.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	tampered := bytes.Clone(packed)
	tampered[len(tampered)/2] ^= 1

	for name, c := range map[string]struct {
		path, sig, problem string
		body               []byte
		status             int
	}{
		"no signature":         {"default", "", "not-signed", packed, 403},
		"not a signature":      {"default", "AAAA", "invalid-request", packed, 400},
		"another's signature":  {"default", string(strangerSig), "untrusted", packed, 403},
		"another bundle's":     {"default", otherSig, "untrusted", packed, 403},
		"tampered with":        {"default", sig, "bad-bundle", tampered, 422},
		"cut short":            {"default", sig, "bad-bundle", packed[:len(packed)-3], 422},
		"not a bundle":         {"default", sig, "bad-bundle", []byte("hello"), 422},
		"empty":                {"default", sig, "bad-bundle", nil, 422},
		"too large":            {"default", sig, "too-large", make([]byte, 64<<10+1), 413},
		"another project":      {"default", foreignSig, "other-project", foreign, 422},
		"not delegated for it": {"acme", foreignSig, "untrusted", foreign, 403},
		"not a name":           {"Default", sig, "invalid-request", packed, 400},
	} {
		t.Run(name, func(t *testing.T) {
			g := *f
			g.T = t
			head := []string{}
			if c.sig != "" {
				head = append(head, bundle.SignatureHeader+": "+c.sig)
			}
			p := g.refused(c.status, c.problem, f.admin("PUT", "/v1/projects/"+c.path+"/bundles", c.body, head...))
			if p.Hint == "" {
				t.Errorf("no hint: %+v", p)
			}
		})
	}
	// A body whose length is not announced is bounded all the same.
	long := f.admin("PUT", "/v1/projects/default/bundles", anyReader{strings.NewReader(strings.Repeat("x", 1<<17))}, bundle.SignatureHeader+": "+sig)
	f.refused(413, "too-large", long)
}

// anyReader hides a reader's length from the client.
type anyReader struct{ r *strings.Reader }

func (a anyReader) Read(p []byte) (int, error) { return a.r.Read(p) }

func TestManifestFaultsComeWithTheirLines(t *testing.T) {
	f := start(t)
	// Pack refuses a wrong manifest, so the archive is made around a good one of the same length.
	good, bad := "name = \"hello\"\nroutes = [\"h.example.com/*\"]\n", "name = \"hello\"\nrautes = [\"h.example.com/*\"]\n"
	packed, _, err := bundle.Pack([]byte(good), []byte(module))
	if err != nil {
		t.Fatal(err)
	}
	broken := repack(t, packed, good, bad)
	e, err := bundle.Sign(f.publisher, "default", "hello", function.DigestOf(broken))
	if err != nil {
		t.Fatal(err)
	}
	text, err := e.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	p := f.refused(422, "bad-manifest", f.admin("PUT", "/v1/projects/default/bundles", broken, bundle.SignatureHeader+": "+string(text)))
	if len(p.Faults) == 0 || p.Faults[0].Line != 2 || p.Faults[0].Key != "rautes" {
		t.Errorf("faults: %+v", p.Faults)
	}
}

// repack replaces text inside a packed bundle by other text of its length.
func repack(t *testing.T, packed []byte, old, text string) []byte {
	t.Helper()
	r, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	raw, err := r.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(bytes.ReplaceAll(raw, []byte(old), []byte(text)), nil)
}

func TestReleasesAreRefused(t *testing.T) {
	f := start(t)
	releases := func(fn string) string { return "/v1/projects/default/functions/" + fn + "/releases" }
	f.deploy("first", routeHello, module)
	taken := f.upload("second", routeHello, module)
	p := f.refused(409, "route-taken", f.admin("POST", releases("second"), DeployRequest{taken.Digest}))
	if !strings.Contains(p.Detail, "default/first") || !strings.Contains(p.Hint, "default/first") {
		t.Errorf("who holds the route is not said: %+v", p)
	}
	bad := f.upload("third", "", module+"refuse me")
	if p := f.refused(422, "module-refused", f.admin("POST", releases("third"), DeployRequest{bad.Digest})); !strings.Contains(p.Detail, "env.fork") {
		t.Errorf("why is not said: %+v", p)
	}
	f.refused(404, "not-found", f.admin("POST", releases("other"), DeployRequest{taken.Digest})) // uploaded for another function
	f.refused(404, "not-found", f.admin("POST", releases("second"), DeployRequest{function.DigestOf([]byte("nothing"))}))
	f.refused(400, "invalid-request", f.admin("POST", releases("second"), DeployRequest{"sha256:.."}))
	f.refused(400, "invalid-request", f.admin("POST", releases("second"), []byte(`{"bundel": "x"}`)))
	f.refused(400, "invalid-request", f.admin("POST", releases("second"), []byte(`{"bundle":`)))
	f.refused(400, "invalid-request", f.admin("POST", releases("second"), []byte(`{} {}`)))
	f.refused(413, "too-large", f.admin("POST", releases("second"), make([]byte, 1<<20+1)))
	if len(f.api.Catalog().Releases()) != 1 {
		t.Errorf("catalog: %+v", f.api.Catalog().Releases())
	}
}

func TestRevokedPublisherCannotMakeLive(t *testing.T) {
	f := start(t)
	info := f.upload("hello", routeHello, module)
	root, err := identity.LoadRootKey(f.created.RootKeyFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	var serial string
	for _, d := range f.id.Anchor.Trust().Delegations() {
		if d.Purpose == identity.PurposePublisher {
			serial = d.Serial
		}
	}
	if err := f.id.Revoke(root, []string{serial}, nil); err != nil {
		t.Fatal(err)
	}
	f.refused(403, "untrusted", f.admin("POST", "/v1/projects/default/functions/hello/releases", DeployRequest{info.Digest}))
}

// Many at once take numbers and revisions without a gap and without a loss.
func TestDeploysAtOnce(t *testing.T) {
	f := start(t)
	var digests []function.Digest
	for i := range 6 {
		digests = append(digests, f.upload("hello", routeHello, module+"\x00\x02\x01"+string(rune('a'+i))).Digest)
	}
	var wg sync.WaitGroup
	for _, d := range digests {
		wg.Go(func() {
			a := f.admin("POST", "/v1/projects/default/functions/hello/releases", DeployRequest{d})
			if a.StatusCode != http.StatusCreated {
				t.Errorf("%d: %s", a.StatusCode, a.body)
			}
		})
	}
	wg.Wait()
	var list ReleaseList
	f.want(200, f.admin("GET", "/v1/projects/default/functions/hello/releases", nil), &list)
	for i, r := range list.Releases {
		if want := uint64(len(digests) - i); r.Number != want || r.Revision != want {
			t.Errorf("release %d at revision %d, want %d", r.Number, r.Revision, want)
		}
	}
	if len(list.Releases) != len(digests) {
		t.Errorf("%d releases, want %d", len(list.Releases), len(digests))
	}
}

// Two control nodes on one store follow each other's changes.
func TestAnotherControlNodeWasFaster(t *testing.T) {
	f := start(t)
	one := *f
	f.listen()
	one.deploy("one", "routes = [\"one.example.com/*\"]\n", module)
	d := f.deploy("two", "routes = [\"two.example.com/*\"]\n", module)
	if d.Release.Revision != 2 {
		t.Errorf("revision %d, want 2", d.Release.Revision)
	}
	taken := f.upload("three", "routes = [\"one.example.com/*\"]\n", module)
	f.refused(409, "route-taken", f.admin("POST", "/v1/projects/default/functions/three/releases", DeployRequest{taken.Digest}))
	back := one.deploy("four", "routes = [\"four.example.com/*\"]\n", module)
	if back.Release.Revision != 3 {
		t.Errorf("revision %d, want 3", back.Release.Revision)
	}
}
