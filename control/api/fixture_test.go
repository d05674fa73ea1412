package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/control/store"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/jail"
)

// fixture is a control node: its store on disk, its identity, both its servers on loopback.
type fixture struct {
	*testing.T
	api       *API
	store     *store.Store
	id        *identity.Control
	created   identity.Created
	publisher *identity.Signer
	client    *http.Client
	url       string
	addr      string
	peerAddr  string
}

func start(t *testing.T, change ...func(*Config)) *fixture {
	t.Helper()
	return startBounded(t, 1<<30, change...)
}

// startBounded is start with a store of at most so many bytes.
func startBounded(t *testing.T, storeBytes int64, change ...func(*Config)) *fixture {
	t.Helper()
	f := &fixture{T: t}
	var err error
	if f.id, f.created, err = identity.Init(filepath.Join(t.TempDir(), "identity"), identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	if f.publisher, err = identity.LoadSigner(f.created.PublisherKey); err != nil {
		t.Fatal(err)
	}
	if f.store, err = store.Open(t.Context(), store.Config{Dir: t.TempDir(), MaxBytes: storeBytes, Reserve: 1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.store.Close() })
	f.listen(change...)
	return f
}

// listen opens the API over the fixture's store and serves it.
func (f *fixture) listen(change ...func(*Config)) {
	f.Helper()
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	peers, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.addr, f.peerAddr = public.Addr().String(), peers.Addr().String()
	cfg := Config{Store: f.store, Identity: f.id, Prepare: prepare, API: []string{f.addr}, Control: []string{f.peerAddr}}
	for _, c := range change {
		c(&cfg)
	}
	if f.api, err = Open(f.Context(), cfg); err != nil {
		f.Fatal(err)
	}
	f.servePublic(public)
	f.servePeers(peers)
}

func (f *fixture) servePublic(l net.Listener) {
	tls, err := f.id.APITLS([]string{"127.0.0.1"})
	if err != nil {
		f.Fatal(err)
	}
	srv := NewServer(f.api.Handler())
	srv.TLSConfig = tls
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.ServeTLS(l, "", "")
	}()
	transport := identity.ClientTransport(f.created.Root, nil)
	f.client, f.url = &http.Client{Transport: transport}, "https://"+f.addr
	f.Cleanup(func() {
		transport.CloseIdleConnections()
		srv.Close()
		<-done
	})
}

func (f *fixture) servePeers(l net.Listener) {
	member, err := f.id.Member()
	if err != nil {
		f.Fatal(err)
	}
	srv, err := peer.NewServer(peer.ServerConfig{Member: member, Handler: f.api.PeerHandler()})
	if err != nil {
		f.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(l)
	}()
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		srv.Close(ctx)
		<-done
	})
}

// prepare stands where the helper is wired in: here a module is its own code.
// What it refuses, it refuses as the helper does.
func prepare(_ context.Context, module []byte, _ function.Snapshot) (Prepared, error) {
	if bytes.Contains(module, []byte("refuse me")) {
		return Prepared{}, &jail.Refused{Reason: `the import "env.fork" is unknown: remove it`}
	}
	return Prepared{Code: append([]byte("code of "), module...), Image: []byte("image"), Started: true, Notes: []string{"math/rand is frozen"}}, nil
}

// node joins a node and returns its client of the peer server.
func (f *fixture) node(name, pop string) *peer.Client {
	f.Helper()
	n := f.join(name, pop)
	c, err := peer.NewClient(peer.ClientConfig{Member: n.Member, Expect: identity.Expect{Kind: identity.KindControl}, Addresses: []string{f.peerAddr}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(c.Close)
	return c
}

func (f *fixture) join(name, pop string) *identity.Node {
	f.Helper()
	var made JoinTokenCreated
	f.want(201, f.admin("POST", "/v1/join-tokens", JoinTokenRequest{PoP: pop}), &made)
	token, err := identity.ParseJoinToken(made.Token)
	if err != nil {
		f.Fatal(err)
	}
	n, err := identity.Join(f.Context(), filepath.Join(f.TempDir(), name), token, identity.JoinOptions{Name: name, PoP: pop})
	if err != nil {
		f.Fatal(err)
	}
	return n
}

// answer is a response, read.
type answer struct {
	*http.Response
	body []byte
}

// problem returns the name of the problem in the answer.
func (a answer) problem() string {
	var p Problem
	if a.Header.Get("Content-Type") != problemMedia || json.Unmarshal(a.body, &p) != nil {
		return "(not a problem: " + string(a.body) + ")"
	}
	return p.Name()
}

// doer is http.Client or peer.Client.
type doer interface {
	Do(*http.Request) (*http.Response, error)
}

// send makes a request; body is JSON unless it is bytes or a reader; head is "Name: value" lines.
func (f *fixture) send(d doer, method, url string, body any, head ...string) answer {
	f.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		r = bytes.NewReader(b)
	case io.Reader:
		r = b
	default:
		j, err := json.Marshal(b)
		if err != nil {
			f.Fatal(err)
		}
		r = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(f.Context(), method, url, r)
	if err != nil {
		f.Fatal(err)
	}
	for _, h := range head {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := d.Do(req)
	if err != nil {
		f.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.Fatalf("%s %s: %v", method, url, err)
	}
	return answer{resp, b}
}

func (f *fixture) as(token, method, path string, body any, head ...string) answer {
	f.Helper()
	return f.send(f.client, method, f.url+path, body, append(head, "Authorization: Bearer "+token)...)
}

func (f *fixture) admin(method, path string, body any, head ...string) answer {
	f.Helper()
	return f.as(f.created.AdminToken, method, path, body, head...)
}

// token makes a token of scope in project.
func (f *fixture) token(scope identity.Scope, project string) string {
	f.Helper()
	var made TokenCreated
	f.want(201, f.admin("POST", "/v1/tokens", TokenRequest{Scopes: []identity.Scope{scope}, Project: project}), &made)
	return made.Token
}

// want checks the status and reads the answer into out, if it is not nil.
func (f *fixture) want(status int, a answer, out any) {
	f.Helper()
	if a.StatusCode != status {
		f.Fatalf("%s %s: %d, want %d: %s", a.Request.Method, a.Request.URL, a.StatusCode, status, a.body)
	}
	if out != nil {
		if err := json.Unmarshal(a.body, out); err != nil {
			f.Fatalf("%s: %v", a.body, err)
		}
	}
}

// refused checks for a problem with a hint.
func (f *fixture) refused(status int, name string, a answer) *Problem {
	f.Helper()
	var p Problem
	if err := json.Unmarshal(a.body, &p); err != nil || a.StatusCode != status || p.Name() != name || p.Status != status || p.Instance == "" && name != "method-not-allowed" && name != "not-found" && name != "invalid-request" {
		f.Errorf("%s %s: %d %.300s, want %d %s", a.Request.Method, a.Request.URL, a.StatusCode, a.body, status, name)
	}
	return &p
}

const module = "\x00asm\x01\x00\x00\x00"

func manifest(project, name, more string) string {
	return fmt.Sprintf("project = %q\nname = %q\n%s\n", project, name, more)
}

// pack makes and signs a bundle.
func (f *fixture) pack(project, name, more, wasm string) (packed []byte, sig string, d function.Digest) {
	f.Helper()
	packed, d, err := bundle.Pack([]byte(manifest(project, name, more)), []byte(wasm))
	if err != nil {
		f.Fatal(err)
	}
	e, err := bundle.Sign(f.publisher, project, name, d)
	if err != nil {
		f.Fatal(err)
	}
	text, err := e.MarshalText()
	if err != nil {
		f.Fatal(err)
	}
	return packed, string(text), d
}

// upload packs and uploads.
func (f *fixture) upload(name, more, wasm string) BundleInfo {
	f.Helper()
	packed, sig, _ := f.pack("default", name, more, wasm)
	var info BundleInfo
	f.want(201, f.admin("PUT", "/v1/projects/default/bundles", packed, bundle.SignatureHeader+": "+sig), &info)
	return info
}

// deploy uploads and makes live.
func (f *fixture) deploy(name, more, wasm string) Deployed {
	f.Helper()
	info := f.upload(name, more, wasm)
	var d Deployed
	f.want(201, f.admin("POST", "/v1/projects/default/functions/"+name+"/releases", DeployRequest{info.Digest}), &d)
	return d
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestConfigReportsWhatIsMissing(t *testing.T) {
	if err := (&Config{}).Validate(); err == nil {
		t.Error("an API on nothing")
	}
	if _, err := Open(t.Context(), Config{}); err == nil || errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
