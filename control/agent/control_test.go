package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/control/store"
	"github.com/selvage-edge/selvage/runtime/function"
)

// control is a whole control node: its store on disk, its identity, the API and
// the peer server, both on loopback. It can be stopped and started again.
type control struct {
	t         *testing.T
	id        *identity.Control
	created   identity.Created
	publisher *identity.Signer
	dir       string
	apiAddr   string
	peerAddr  string
	store     *store.Store
	api       *api.API
	peers     net.Listener
	client    *http.Client
	end       []func()
	ahead     atomic.Int64 // ns by which the clock of store and API is off
}

func (c *control) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func newControl(t *testing.T) *control {
	t.Helper()
	c := &control{t: t, dir: t.TempDir(), apiAddr: "127.0.0.1:0", peerAddr: "127.0.0.1:0"}
	var err error
	if c.id, c.created, err = identity.Init(filepath.Join(t.TempDir(), "identity"), identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	if c.publisher, err = identity.LoadSigner(c.created.PublisherKey); err != nil {
		t.Fatal(err)
	}
	c.start()
	t.Cleanup(func() { c.stop() })
	return c
}

func (c *control) start() {
	c.t.Helper()
	c.open()
	c.servePeers(c.peers, c.api.PeerHandler())
}

// open serves developers only: nodes get no answer yet.
func (c *control) open() {
	c.t.Helper()
	var err error
	if c.store, err = store.Open(context.Background(), store.Config{Dir: c.dir, MaxBytes: 1 << 30, Reserve: 1, Now: c.now}); err != nil {
		c.t.Fatal(err)
	}
	public := c.listen(&c.apiAddr)
	c.peers = c.listen(&c.peerAddr)
	c.api, err = api.Open(context.Background(), api.Config{Store: c.store, Identity: c.id, Prepare: prepareModule, Now: c.now, API: []string{c.apiAddr}, Control: []string{c.peerAddr}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.serveAPI(public, c.api.Handler())
}

func (c *control) listen(addr *string) net.Listener {
	c.t.Helper()
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		c.t.Fatal(err)
	}
	*addr = l.Addr().String()
	return l
}

func (c *control) serveAPI(l net.Listener, h http.Handler) {
	tls, err := c.id.APITLS([]string{"127.0.0.1"})
	if err != nil {
		c.t.Fatal(err)
	}
	srv := api.NewServer(h)
	srv.TLSConfig = tls
	go srv.ServeTLS(l, "", "")
	transport := identity.ClientTransport(c.created.Root, nil)
	c.client = &http.Client{Transport: transport}
	c.end = append(c.end, func() { transport.CloseIdleConnections(); srv.Close() })
}

func (c *control) servePeers(l net.Listener, h http.Handler) {
	member, err := c.id.Member()
	if err != nil {
		c.t.Fatal(err)
	}
	srv, err := peer.NewServer(peer.ServerConfig{Member: member, Handler: h})
	if err != nil {
		c.t.Fatal(err)
	}
	go srv.Serve(l)
	c.end = append(c.end, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		srv.Close(ctx)
	})
}

func (c *control) stop() {
	for _, f := range c.end {
		f()
	}
	if c.end != nil {
		c.store.Close()
	}
	c.end = nil
}

// prepareModule stands where control's helper is wired in: the module is the code.
func prepareModule(_ context.Context, module []byte, _ function.Snapshot) (api.Prepared, error) {
	return api.Prepared{Code: module, Image: append([]byte("image of "), module...)}, nil
}

// call makes one request of the API as the administrator.
func (c *control) call(method, path string, body any, want int, out any, head ...string) {
	c.t.Helper()
	b, isBytes := body.([]byte)
	if !isBytes && body != nil {
		b, _ = json.Marshal(body)
	}
	r, err := http.NewRequest(method, "https://"+c.apiAddr+path, bytes.NewReader(b))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.created.AdminToken)
	if len(head) == 2 {
		r.Header.Set(head[0], head[1])
	}
	resp, err := c.client.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		c.t.Fatalf("%s %s: %d, %v, want %d: %s", method, path, resp.StatusCode, err, want, answer)
	}
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			c.t.Fatal(err)
		}
	}
}

// deploy makes a version of a function live. code tells versions apart.
func (c *control) deploy(name, more, code string) api.Release {
	c.t.Helper()
	manifest := fmt.Sprintf("project = \"default\"\nname = %q\n%s\n", name, more)
	packed, d, err := bundle.Pack([]byte(manifest), []byte("\x00asm\x01\x00\x00\x00"+code))
	if err != nil {
		c.t.Fatal(err)
	}
	e, err := bundle.Sign(c.publisher, "default", name, d)
	if err != nil {
		c.t.Fatal(err)
	}
	sig, err := e.MarshalText()
	if err != nil {
		c.t.Fatal(err)
	}
	var info api.BundleInfo
	c.call("PUT", "/v1/projects/default/bundles", packed, 201, &info, bundle.SignatureHeader, string(sig))
	var made api.Deployed
	c.call("POST", "/v1/projects/default/functions/"+name+"/releases", api.DeployRequest{Bundle: info.Digest}, 201, &made)
	return made.Release
}

// status is what control knows of a release on the one node there is.
func (c *control) status(r api.Release) api.NodeStatus {
	c.t.Helper()
	var s api.Status
	c.call("GET", fmt.Sprintf("/v1/projects/default/functions/%s/releases/%d/status", r.Function, r.Number), nil, 200, &s)
	if len(s.PoPs) != 1 || len(s.PoPs[0].Nodes) != 1 {
		return api.NodeStatus{}
	}
	return s.PoPs[0].Nodes[0]
}

// join makes a node of the fleet.
func (c *control) join(name, pop string) *identity.Node {
	c.t.Helper()
	var made api.JoinTokenCreated
	c.call("POST", "/v1/join-tokens", api.JoinTokenRequest{}, 201, &made)
	token, err := identity.ParseJoinToken(made.Token)
	if err != nil {
		c.t.Fatal(err)
	}
	n, err := identity.Join(context.Background(), filepath.Join(c.t.TempDir(), name), token, identity.JoinOptions{Name: name, PoP: pop})
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// peerClient reaches the peer server over mTLS as the node.
func (c *control) peerClient(n *identity.Node) *peer.Client {
	c.t.Helper()
	cl, err := peer.NewClient(peer.ClientConfig{Member: n.Member, Expect: identity.Expect{Kind: identity.KindControl}, Addresses: []string{c.peerAddr}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(cl.Close)
	return cl
}

func routeOf(hosts ...string) string {
	s := "routes = ["
	for _, h := range hosts {
		s += fmt.Sprintf("%q,", h+"/*")
	}
	return s + "]\n"
}

// codeOf is the digest of the code that deploy made of code.
func codeOf(code string) function.Digest {
	return function.DigestOf([]byte("\x00asm\x01\x00\x00\x00" + code))
}
