package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// api is the public half of a control node, which remembers what it was sent.
type api struct {
	addr   string
	answer func(JoinRequest) (int, any)
	trust  func() Bundle
	mu     struct {
		sync.Mutex
		paths []string
		sent  bytes.Buffer
	}
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	a.mu.paths = append(a.mu.paths, r.Method+" "+r.URL.Path)
	a.mu.sent.Write(body)
	a.mu.Unlock()
	if r.URL.Path == TrustPath {
		json.NewEncoder(w).Encode(a.trust())
		return
	}
	var req JoinRequest
	json.Unmarshal(body, &req)
	status, answer := a.answer(req)
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer)
}

// sawSecret reports whether any of the secret, in any form it travels in, arrived.
func (a *api) sawSecret(token JoinToken) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	form, _ := json.Marshal(token.Secret)
	return bytes.Contains(a.mu.sent.Bytes(), bytes.Trim(form, `"`)) || bytes.Contains(a.mu.sent.Bytes(), token.Secret)
}

// serveAPI serves c's public API under a TLS configuration (nil: c's own).
func serveAPI(t *testing.T, c *Control, conf *tls.Config) *api {
	t.Helper()
	if conf == nil {
		var err error
		if conf, err = c.APITLS([]string{"127.0.0.1", "localhost"}); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &api{addr: l.Addr().String(), trust: func() Bundle { return c.Anchor.Trust().Bundle() }}
	a.answer = func(r JoinRequest) (int, any) {
		resp, err := c.Join(r, []string{"10.0.0.1:7946"}, []string{"10.0.0.1:8444"}, []string{a.addr})
		if err != nil {
			return http.StatusUnprocessableEntity, Refused{Detail: err.Error()}
		}
		return http.StatusOK, resp
	}
	s := &http.Server{Handler: a, TLSConfig: conf, ErrorLog: log.New(io.Discard, "", 0)}
	var done sync.WaitGroup
	done.Go(func() { s.ServeTLS(l, "", "") })
	t.Cleanup(func() { s.Close(); done.Wait() })
	return a
}

func joinToken(t *testing.T, c *Control, addresses ...string) JoinToken {
	t.Helper()
	token, _, err := NewJoinToken(c.Fleet, c.Root, addresses, "", 0, start)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

var edge1 = JoinOptions{Name: "edge-1", PoP: "fra", Region: "eu", Now: at(start)}

func TestJoin(t *testing.T) {
	c, _ := newFleet(t, InitOptions{Fleet: "acme"})
	a := serveAPI(t, c, nil)
	dir := filepath.Join(t.TempDir(), "node")
	node, err := Join(context.Background(), dir, joinToken(t, c, "127.0.0.1:1", a.addr), edge1)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Peer{"acme", KindNode, "edge-1", "fra", "eu"}); node.Member.Peer() != want {
		t.Errorf("joined as %+v", node.Member.Peer())
	}
	if !bytes.Equal(node.GossipKey, c.GossipKey) || node.Control[0] != "10.0.0.1:8444" || node.Seeds[0] != "10.0.0.1:7946" || node.API[0] != a.addr {
		t.Errorf("got %+v", node)
	}
	if got := node.Member.Expiry(); !got.Equal(start.Add(NodeLifetime)) {
		t.Errorf("expires %s", got)
	}
	checkPrivate(t, dir)
	checkKeyStays(t, a, dir)
	if _, err := Join(context.Background(), dir, joinToken(t, c, a.addr), edge1); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second join: %v", err)
	}
	again, err := OpenNode(dir, at(start))
	if err != nil || again.Member.Peer() != node.Member.Peer() {
		t.Errorf("opened again: %v", err)
	}
}

func checkPrivate(t *testing.T, dir string) {
	t.Helper()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info, err)
	}
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if info, _ := f.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", f.Name(), info.Mode())
		}
	}
}

// checkKeyStays checks that nothing of the node's private key was sent.
func checkKeyStays(t *testing.T, a *api, dir string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, fileNode))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var r JoinRequest
	if err := json.Unmarshal(a.mu.sent.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	for _, sent := range [][]byte{a.mu.sent.Bytes(), r.CSR} {
		if bytes.Contains(sent, raw) || bytes.Contains(sent, block.Bytes) {
			t.Error("the private key was sent")
		}
	}
}

// TestSecretGoesToNobodyElse puts all sorts of servers where control should be.
func TestSecretGoesToNobodyElse(t *testing.T) {
	c, created := newFleet(t, InitOptions{Fleet: "acme"})
	other, _ := newFleet(t, InitOptions{Fleet: "acme"})
	late, _ := newFleet(t, InitOptions{Fleet: "acme", Now: at(start.Add(-6 * year))})
	node := nodeOf(t, c)

	for name, conf := range map[string]*tls.Config{
		"a man in the middle with a certificate of his own": selfSigned(t, nil),
		"one who sends the fleet's CA certificate along":    selfSigned(t, c.Anchor.Trust().Bundle().Certificates[0]),
		"another fleet of the same name":                    apiTLS(t, other, "127.0.0.1"),
		"another fleet's leaf before this fleet's CA":       spliced(t, other, c),
		"control, under another address":                    apiTLS(t, c, "10.0.0.1"),
		"control, under a name only":                        apiTLS(t, c, "localhost"),
		"a node of the fleet":                               nodeAsServer(t, node),
		"a node's key with the address in its request":      nodeWithSAN(t, c),
		"TLS 1.2":                            withTLS12(apiTLS(t, c, "127.0.0.1")),
		"control without its CA certificate": bare(t, c),
	} {
		t.Run(name, func(t *testing.T) {
			refusesToJoin(t, c, serveAPI(t, c, conf))
		})
	}
	t.Run("a CA whose delegation is over", func(t *testing.T) {
		refusesToJoin(t, late, serveAPI(t, late, apiTLS(t, late, "127.0.0.1")))
	})
	t.Run("control, revoked", func(t *testing.T) {
		conf := apiTLS(t, c, "127.0.0.1")
		cert, _ := conf.GetCertificate(nil)
		if err := c.Revoke(rootOf(t, created), nil, []string{Serial(cert.Leaf)}); err != nil {
			t.Fatal(err)
		}
		refusesToJoin(t, c, serveAPI(t, c, conf))
	})
	t.Run("control that shows another fleet's trust", func(t *testing.T) {
		a := serveAPI(t, c, nil)
		a.trust = func() Bundle { return other.Anchor.Trust().Bundle() }
		refusesToJoin(t, c, a)
	})
}

func refusesToJoin(t *testing.T, c *Control, a *api) {
	t.Helper()
	token := joinToken(t, c, a.addr)
	dir := filepath.Join(t.TempDir(), "node")
	_, err := Join(context.Background(), dir, token, edge1)
	if err == nil {
		t.Fatal("joined")
	}
	if a.sawSecret(token) {
		t.Error("the secret was sent")
	}
	for _, p := range a.mu.paths {
		if p == "POST "+JoinPath {
			t.Error("the join was sent")
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("something was saved")
	}
	t.Logf("refused: %v", err)
}

func apiTLS(t *testing.T, c *Control, hosts ...string) *tls.Config {
	t.Helper()
	conf, err := c.APITLS(hosts)
	if err != nil {
		t.Fatal(err)
	}
	return conf
}

func fixed(chain [][]byte, key any) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: key}}, NextProtos: []string{"h2", "http/1.1"}}
}

// selfSigned is someone with a key of his own and everything public.
func selfSigned(t *testing.T, ca []byte) *tls.Config {
	t.Helper()
	key, err := newTLSKey()
	if err != nil {
		t.Fatal(err)
	}
	tmpl := leafTemplate(Peer{Fleet: "acme", Kind: KindControl, Name: "control-1"}, time.Hour, start)
	tmpl.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	parent := tmpl
	if ca != nil {
		if parent, err = x509.ParseCertificate(ca); err != nil {
			t.Fatal(err)
		}
		parent.PublicKey = key.Public() // he says the CA is the issuer, and signs himself
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if ca == nil {
		ca = der
	}
	return fixed([][]byte{der, ca}, key)
}

func spliced(t *testing.T, leafOf, caOf *Control) *tls.Config {
	t.Helper()
	cert, err := apiTLS(t, leafOf, "127.0.0.1").GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return fixed([][]byte{cert.Certificate[0], caOf.Anchor.Trust().Bundle().Certificates[0]}, cert.PrivateKey)
}

func bare(t *testing.T, c *Control) *tls.Config {
	t.Helper()
	cert, err := apiTLS(t, c, "127.0.0.1").GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return fixed(cert.Certificate[:1], cert.PrivateKey)
}

func withTLS12(conf *tls.Config) *tls.Config {
	conf.MinVersion, conf.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	return conf
}

func nodeOf(t *testing.T, c *Control) *Node {
	t.Helper()
	node, err := Join(context.Background(), filepath.Join(t.TempDir(), "node"), joinToken(t, c, serveAPI(t, c, nil).addr), edge1)
	if err != nil {
		t.Fatal(err)
	}
	return node
}

func nodeAsServer(t *testing.T, n *Node) *tls.Config {
	t.Helper()
	cert, err := n.Member.leaf.certificate()
	if err != nil {
		t.Fatal(err)
	}
	return fixed(cert.Certificate, cert.PrivateKey)
}

// nodeWithSAN is a node that put the control API's address and control's name
// into its certificate request.
func nodeWithSAN(t *testing.T, c *Control) *tls.Config {
	t.Helper()
	key, err := newTLSKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		URIs:        Peer{Fleet: "acme", Kind: KindControl, Name: "control-1"}.uris(),
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := c.CA.IssueNode(csr, Peer{Fleet: "acme", Kind: KindNode, Name: "edge-9", PoP: "fra"}, start)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil || len(leaf.IPAddresses) > 0 || len(leaf.URIs) != 2 {
		t.Errorf("the CA took names from the request: %v, %v", leaf.IPAddresses, leaf.URIs)
	}
	return fixed(chain, key)
}

func TestJoinTellsWhatTheServerSays(t *testing.T) {
	c, _ := newFleet(t, InitOptions{})
	first, second := serveAPI(t, c, nil), serveAPI(t, c, nil)
	first.answer = func(JoinRequest) (int, any) {
		return http.StatusForbidden, Refused{Detail: "the token was used", Hint: "make a new one"}
	}
	_, err := Join(context.Background(), filepath.Join(t.TempDir(), "node"), joinToken(t, c, first.addr, second.addr), edge1)
	var refused *Refused
	if !errors.As(err, &refused) || refused.Status != http.StatusForbidden || !strings.Contains(err.Error(), "make a new one") {
		t.Errorf("got %v", err)
	}
	if len(second.mu.paths) != 0 {
		t.Error("asked elsewhere after a refusal")
	}
}

// TestJoinChecksTheAnswer has a control node (or who holds its API's key) answer falsely.
func TestJoinChecksTheAnswer(t *testing.T) {
	c, _ := newFleet(t, InitOptions{Fleet: "acme"})
	other, _ := newFleet(t, InitOptions{Fleet: "acme"})
	for name, answer := range map[string]func(*Control, JoinRequest, *JoinResponse){
		"another name":        func(c *Control, r JoinRequest, a *JoinResponse) { r.Name = "edge-2"; *a, _ = c.Join(r, nil, nil, nil) },
		"another PoP":         func(c *Control, r JoinRequest, a *JoinResponse) { r.PoP = "ams"; *a, _ = c.Join(r, nil, nil, nil) },
		"another fleet":       func(_ *Control, r JoinRequest, a *JoinResponse) { *a, _ = other.Join(r, nil, nil, nil) },
		"another trust":       func(_ *Control, _ JoinRequest, a *JoinResponse) { a.Trust = other.Anchor.Trust().Bundle() },
		"no chain":            func(_ *Control, _ JoinRequest, a *JoinResponse) { a.Chain = nil },
		"a short gossip key":  func(_ *Control, _ JoinRequest, a *JoinResponse) { a.GossipKey = a.GossipKey[:5] },
		"someone else's leaf": func(c *Control, _ JoinRequest, a *JoinResponse) { a.Chain = nodeOf(t, c).chain() },
	} {
		t.Run(name, func(t *testing.T) {
			s := serveAPI(t, c, nil)
			s.answer = func(r JoinRequest) (int, any) {
				a, err := c.Join(r, nil, nil, nil)
				if err != nil {
					t.Error(err)
				}
				answer(c, r, &a)
				return http.StatusOK, a
			}
			dir := filepath.Join(t.TempDir(), "node")
			if _, err := Join(context.Background(), dir, joinToken(t, c, s.addr), edge1); err == nil {
				t.Error("joined")
			}
			if hasNode(dir) {
				t.Error("an identity was saved")
			}
		})
	}
}

func (n *Node) chain() [][]byte { return n.Member.leaf.cur.Load().Certificate }

func TestJoinRefusesBeforeItAsks(t *testing.T) {
	c, _ := newFleet(t, InitOptions{})
	a := serveAPI(t, c, nil)
	expired := edge1
	expired.Now = at(start.Add(2 * time.Hour))
	badName := edge1
	badName.Name = "Edge 1"
	for name, o := range map[string]JoinOptions{"an expired token": expired, "a bad name": badName, "no PoP": {Name: "edge-1", Now: at(start)}} {
		if _, err := Join(context.Background(), filepath.Join(t.TempDir(), "n"), joinToken(t, c, a.addr), o); err == nil {
			t.Errorf("%s: joined", name)
		}
	}
	if len(a.mu.paths) > 0 {
		t.Errorf("asked: %v", a.mu.paths)
	}
}

func TestIssueRefuses(t *testing.T) {
	c, _ := newFleet(t, InitOptions{Fleet: "acme"})
	key, err := newTLSKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := newCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(csr)
	broken[len(broken)-1] ^= 1
	good := Peer{Fleet: "acme", Kind: KindNode, Name: "edge-1", PoP: "fra"}
	if _, err := c.CA.IssueNode(csr, good, start); err != nil {
		t.Fatal(err)
	}
	change := func(f func(*Peer)) Peer { p := good; f(&p); return p }
	for name, try := range map[string]struct {
		csr []byte
		p   Peer
	}{
		"a control node":    {csr, change(func(p *Peer) { p.Kind, p.PoP = KindControl, "" })},
		"another fleet":     {csr, change(func(p *Peer) { p.Fleet = "other" })},
		"a name with slash": {csr, change(func(p *Peer) { p.Name = "a/b" })},
		"no PoP":            {csr, change(func(p *Peer) { p.PoP = "" })},
		"no proof of key":   {broken, good},
		"no request":        {nil, good},
	} {
		if _, err := c.CA.IssueNode(try.csr, try.p, start); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
}

func TestLeafRenewsItself(t *testing.T) {
	now := start
	_, created := newFleet(t, InitOptions{})
	c, err := OpenControl(filepath.Dir(created.RootKeyFile), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Member()
	if err != nil {
		t.Fatal(err)
	}
	first := m.Expiry()
	for _, step := range []struct {
		after time.Duration
		renew bool
	}{{19 * 24 * time.Hour, false}, {21 * 24 * time.Hour, true}} {
		now = start.Add(step.after)
		if _, err := m.ServerTLS().GetCertificate(nil); err != nil {
			t.Fatal(err)
		}
		if got := m.Expiry().After(first); got != step.renew {
			t.Errorf("after %s: renewed is %v", step.after, got)
		}
	}
}

func TestNodeRenews(t *testing.T) {
	c, _ := newFleet(t, InitOptions{})
	node := nodeOf(t, c)
	before := node.Serial()
	renew := func(p Peer) doerFunc {
		return func(r *http.Request) (*http.Response, error) {
			var req RenewRequest
			if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
				t.Error(err)
			}
			a, err := c.Renew(p, req)
			if err != nil {
				t.Error(err)
			}
			b, _ := json.Marshal(a)
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(b))}, nil
		}
	}
	stranger := node.Member.Peer()
	stranger.Name = "edge-7"
	if err := node.Renew(context.Background(), renew(stranger)); err == nil || node.Serial() != before {
		t.Errorf("took another node's certificate: %v", err)
	}
	if err := node.Renew(context.Background(), renew(node.Member.Peer())); err != nil {
		t.Fatal(err)
	}
	again, err := OpenNode(node.dir, at(start))
	if err != nil || again.Serial() != node.Serial() || node.Serial() == before {
		t.Errorf("saved: %v", err)
	}
}

func TestPeerNames(t *testing.T) {
	c, _ := newFleet(t, InitOptions{Fleet: "acme"})
	key, err := newTLSKey()
	if err != nil {
		t.Fatal(err)
	}
	for uris, ok := range map[string]bool{
		"selvage://acme/node/a selvage://acme/pop/fra": true,
		"selvage://acme/control/a":                     true,
		"selvage://acme/node/a":                        false,
		"selvage://acme/pop/fra":                       false,
		"":                                             false,
		"selvage://acme/node/a selvage://acme/node/b selvage://acme/pop/fra":    false,
		"selvage://acme/node/a selvage://acme/control/b selvage://acme/pop/fra": false,
		"selvage://acme/node/a selvage://acme/pop/fra selvage://acme/pop/ams":   false,
		"selvage://acme/node/a selvage://other/pop/fra":                         false,
		"selvage://acme/chief/a":                          false,
		"selvage://acme/control/a selvage://acme/pop/fra": false,
		"selvage://acme/node/a/b selvage://acme/pop/fra":  false,
		"selvage://acme/node/a?x selvage://acme/pop/fra":  false,
		"selvage://u@acme/node/a selvage://acme/pop/fra":  false,
		"https://acme/node/a selvage://acme/pop/fra":      false,
		"selvage://acme/node/%61 selvage://acme/pop/fra":  false,
		"selvage://ACME/node/a selvage://ACME/pop/fra":    false,
	} {
		tmpl := leafTemplate(Peer{}, time.Hour, start)
		tmpl.URIs = nil
		for _, s := range strings.Fields(uris) {
			tmpl.URIs = append(tmpl.URIs, parseURI(t, s))
		}
		parent, err := c.CA.certificate()
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), c.CA.key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			continue // the library refuses it first
		}
		if _, err := c.Anchor.Trust().CheckPeer(leaf, Expect{}, true); (err == nil) != ok {
			t.Errorf("%q: %v", uris, err)
		}
	}
}

func parseURI(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
