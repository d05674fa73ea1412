package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
)

// fleet is a control node and its API's two public calls.
type fleet struct {
	t       *testing.T
	control *identity.Control
	created identity.Created
	member  *identity.Member
	api     string
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	c, created, err := identity.Init(filepath.Join(t.TempDir(), "control"), identity.InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Member()
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, control: c, created: created, member: m}
	f.serveAPI()
	return f
}

func (f *fleet) serveAPI() {
	conf, err := f.control.APITLS([]string{"127.0.0.1"})
	if err != nil {
		f.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+identity.TrustPath, func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(f.control.Anchor.Trust().Bundle())
	})
	mux.HandleFunc("POST "+identity.JoinPath, func(w http.ResponseWriter, r *http.Request) {
		var req identity.JoinRequest
		json.NewDecoder(r.Body).Decode(&req)
		a, err := f.control.Join(req, []string{"seed:1"}, []string{"control:1"}, []string{"api:1"})
		if err != nil {
			f.t.Error(err)
		}
		json.NewEncoder(w).Encode(a)
	})
	l := listen(f.t)
	s := &http.Server{Handler: mux, TLSConfig: conf}
	go s.ServeTLS(l, "", "")
	f.t.Cleanup(func() { s.Close() })
	f.api = l.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// join makes a node of the fleet.
func (f *fleet) join(name string) *identity.Node {
	f.t.Helper()
	token, _, err := identity.NewJoinToken(f.control.Fleet, f.control.Root, []string{f.api}, "", 0, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	n, err := identity.Join(context.Background(), filepath.Join(f.t.TempDir(), name), token, identity.JoinOptions{Name: name, PoP: "pop-1"})
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

// serve starts a peer server of m and returns its address.
func serve(t *testing.T, m *identity.Member, h http.Handler) (string, *Server) {
	t.Helper()
	s, err := NewServer(ServerConfig{Member: m, Handler: h})
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String(), s
}

func client(t *testing.T, m *identity.Member, want identity.Expect, addresses ...string) *Client {
	t.Helper()
	c, err := NewClient(ClientConfig{Member: m, Expect: want, Addresses: addresses})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func get(c *Client, path string) (string, error) {
	r, err := http.NewRequest(http.MethodGet, path, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, b), err
}

// whoami answers with the sender's name and the protocol.
var whoami = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	p, ok := From(r.Context())
	fmt.Fprint(w, ok, " ", p, " ", p.PoP, " ", r.Proto)
})

var toControl = identity.Expect{Kind: identity.KindControl}

func TestPeersKnowEachOther(t *testing.T) {
	f := newFleet(t)
	node := f.join("edge-1")
	addr, _ := serve(t, f.member, whoami)
	got, err := get(client(t, node.Member, toControl, addr), "/x")
	if want := "200 true selvage://selvage/node/edge-1 pop-1 HTTP/2.0"; err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	addr, _ = serve(t, node.Member, whoami)
	got, err = get(client(t, f.member, identity.Expect{Kind: identity.KindNode, Name: "edge-1"}, addr), "/x")
	if want := "200 true selvage://selvage/control/control-1  HTTP/2.0"; err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestClientRefusesWhomItDoesNotExpect(t *testing.T) {
	f, other := newFleet(t), newFleet(t)
	node := f.join("edge-1")
	nodeAddr, _ := serve(t, node.Member, whoami)
	strangerAddr, _ := serve(t, other.member, whoami)
	for name, c := range map[string]*Client{
		"a node where control is expected":      client(t, f.join("edge-2").Member, toControl, nodeAddr),
		"a node where another node is expected": client(t, f.member, identity.Expect{Kind: identity.KindNode, Name: "edge-3"}, nodeAddr),
		"another fleet's control":               client(t, node.Member, toControl, strangerAddr),
	} {
		if got, err := get(c, "/"); !errors.Is(err, identity.ErrUntrusted) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestServerRefusesStrangers(t *testing.T) {
	f, other := newFleet(t), newFleet(t)
	var served atomic.Int32
	addr, _ := serve(t, f.member, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }))
	// A stranger who does not care whom it talks to.
	conf := other.join("edge-1").Member.ClientTLS(identity.Expect{})
	conf.VerifyConnection = nil
	tr := &http.Transport{TLSClientConfig: conf, Protocols: onlyHTTP2()}
	defer tr.CloseIdleConnections()
	if resp, err := (&http.Client{Transport: tr}).Get("https://" + addr); err == nil {
		t.Errorf("another fleet's node: %v", resp.Status)
	}
	conf = conf.Clone()
	conf.GetClientCertificate = nil
	tr2 := &http.Transport{TLSClientConfig: conf, Protocols: onlyHTTP2()}
	defer tr2.CloseIdleConnections()
	if resp, err := (&http.Client{Transport: tr2}).Get("https://" + addr); err == nil {
		t.Errorf("no certificate: %v", resp.Status)
	}
	if n := served.Load(); n != 0 {
		t.Errorf("%d requests of strangers were served", n)
	}
}

func TestOnly(t *testing.T) {
	f := newFleet(t)
	addr, _ := serve(t, f.member, Only(identity.KindControl, whoami))
	got, err := get(client(t, f.join("edge-1").Member, toControl, addr), "/")
	if err != nil || !strings.HasPrefix(got, "403 ") || !strings.Contains(got, "for a control") {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestFailover(t *testing.T) {
	f := newFleet(t)
	node := f.join("edge-1")
	dead := listen(t)
	dead.Close()
	impostor, _ := serve(t, f.join("edge-2").Member, whoami)
	good, _ := serve(t, f.member, whoami)
	c := client(t, node.Member, toControl, dead.Addr().String(), impostor, good)
	if got, err := get(c, "/"); err != nil || !strings.HasPrefix(got, "200") {
		t.Fatalf("got %q, %v", got, err)
	}
	if c.Addresses()[0] != good {
		t.Errorf("the address that worked is not preferred: %v", c.Addresses())
	}
	c.SetAddresses([]string{impostor, good})
	if c.Addresses()[0] != good || len(c.Addresses()) != 2 {
		t.Errorf("after SetAddresses: %v", c.Addresses())
	}
	c.SetAddresses(nil)
	if _, err := get(c, "/"); err == nil || !strings.Contains(err.Error(), "no peer address") {
		t.Errorf("no address: %v", err)
	}
}

func TestPostIsSentOnceAndFailsOverBeforeThat(t *testing.T) {
	f := newFleet(t)
	node := f.join("edge-1")
	var breaks, works atomic.Int32
	bad, _ := serve(t, f.member, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		breaks.Add(1)
		panic(http.ErrAbortHandler)
	}))
	good, _ := serve(t, f.member, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		works.Add(1)
		io.Copy(w, r.Body)
	}))
	post := func(c *Client) error {
		r, _ := http.NewRequest(http.MethodPost, "/", strings.NewReader("hello"))
		resp, err := c.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if b, _ := io.ReadAll(resp.Body); string(b) != "hello" {
			return fmt.Errorf("echo: %q", b)
		}
		return nil
	}
	if err := post(client(t, node.Member, toControl, bad, good)); err == nil || breaks.Load() != 1 || works.Load() != 0 {
		t.Errorf("a POST that broke: %v; sent %d and %d times", err, breaks.Load(), works.Load())
	}
	dead := listen(t)
	dead.Close()
	if err := post(client(t, node.Member, toControl, dead.Addr().String(), good)); err != nil {
		t.Errorf("a POST to a dead address first: %v", err)
	}
}

func TestConnectionIsReused(t *testing.T) {
	f := newFleet(t)
	addr, s := serve(t, f.member, whoami)
	var dials atomic.Int32
	c, err := NewClient(ClientConfig{Member: f.join("edge-1").Member, Expect: toControl, Addresses: []string{addr},
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 20 {
		if _, err := get(c, "/"); err != nil {
			t.Fatal(err)
		}
	}
	if n := dials.Load(); n != 1 || len(s.open()) != 1 {
		t.Errorf("%d connections for 20 requests", n)
	}
}

// ticking answers with a line, then lives until its context ends, whose cause it tells.
func ticking(ended chan<- error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "first")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		ended <- context.Cause(r.Context())
	})
}

// open starts a stream and reads its first line.
func open(t *testing.T, ctx context.Context, c *Client) *http.Response {
	t.Helper()
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 6)
	if _, err := io.ReadFull(resp.Body, line); err != nil || string(line) != "first\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return resp
}

func TestStreamEndsWithTheServersClose(t *testing.T) {
	f := newFleet(t)
	ended := make(chan error, 1)
	s, err := NewServer(ServerConfig{Member: f.member, Handler: Stream(ticking(ended))})
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	go s.Serve(l)
	resp := open(t, context.Background(), client(t, f.join("edge-1").Member, toControl, l.Addr().String()))
	defer resp.Body.Close()
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if cause := <-ended; !errors.Is(cause, ErrClosing) {
		t.Errorf("the stream ended by %v", cause)
	}
	if err := s.Serve(listen(t)); err != nil {
		t.Errorf("Serve after Close: %v", err)
	}
}

func TestCloseWaitsForRequestsAndCutsThemAtItsEnd(t *testing.T) {
	f := newFleet(t)
	ended := make(chan error, 1)
	s, err := NewServer(ServerConfig{Member: f.member, Handler: ticking(ended)})
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	go s.Serve(l)
	resp := open(t, context.Background(), client(t, f.join("edge-1").Member, toControl, l.Addr().String()))
	defer resp.Body.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if ctx.Err() == nil {
		t.Error("Close did not wait for a request under way")
	}
	<-ended
}

func TestClientCloseEndsStreams(t *testing.T) {
	f := newFleet(t)
	ended := make(chan error, 1)
	addr, s := serve(t, f.member, ticking(ended))
	c := client(t, f.join("edge-1").Member, toControl, addr)
	resp := open(t, context.Background(), c)
	defer resp.Body.Close()
	c.Close()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the stream ended as if it were complete")
	}
	<-ended
	if _, err := get(c, "/"); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	for len(s.open()) > 0 {
		time.Sleep(time.Millisecond) // the server notices the connection's end
	}
}

func TestRequestContextEndsABody(t *testing.T) {
	f := newFleet(t)
	ended := make(chan error, 1)
	addr, _ := serve(t, f.member, ticking(ended))
	ctx, cancel := context.WithCancel(context.Background())
	resp := open(t, ctx, client(t, f.join("edge-1").Member, toControl, addr))
	defer resp.Body.Close()
	cancel()
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("body: %v", err)
	}
	<-ended
}

func TestHeaderTimeout(t *testing.T) {
	f := newFleet(t)
	addr, _ := serve(t, f.member, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	c, err := NewClient(ClientConfig{Member: f.join("edge-1").Member, Addresses: []string{addr}, HeaderTimeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := get(c, "/"); err == nil {
		t.Error("a silent server was waited for")
	}
}

func TestRevocationCutsConnections(t *testing.T) {
	f := newFleet(t)
	node, witness := f.join("edge-1"), f.join("edge-2")
	ended := make(chan error, 2)
	addr, _ := serve(t, f.member, ticking(ended))
	captured := open(t, context.Background(), client(t, node.Member, toControl, addr))
	defer captured.Body.Close()
	other := open(t, context.Background(), client(t, witness.Member, toControl, addr))
	defer other.Body.Close()

	root, err := identity.LoadRootKey(f.created.RootKeyFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.control.Revoke(root, nil, []string{node.Serial()}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(captured.Body); err == nil {
		t.Error("the captured node's stream ended as if it were complete")
	}
	<-ended
	if _, err := get(client(t, node.Member, toControl, addr), "/"); err == nil {
		t.Error("a revoked node was served")
	}
	select {
	case err := <-ended:
		t.Errorf("the other node's stream ended: %v", err)
	default:
	}
}

func TestKeepFresh(t *testing.T) {
	f := newFleet(t)
	node := f.join("edge-1")
	mux := http.NewServeMux()
	mux.Handle("GET "+TrustPath, TrustHandler(f.control.Anchor))
	mux.Handle("POST "+identity.RenewPath, RenewHandler(f.control))
	addr, _ := serve(t, f.member, mux)
	c := client(t, node.Member, toControl, addr)

	root, err := identity.LoadRootKey(f.created.RootKeyFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := f.control.NewPublisher(root, "shop", "ci", 0)
	if err != nil {
		t.Fatal(err)
	}
	changed, serial := node.Member.Anchor().Changed(), node.Serial()
	var late atomic.Bool
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		KeepFresh(ctx, FreshConfig{Node: node, Control: c, Every: time.Millisecond, Failed: func(err error) { t.Error(err) },
			Now: func() time.Time {
				if late.Load() {
					return time.Now().Add(21 * 24 * time.Hour)
				}
				return time.Now()
			}})
	}()
	<-changed
	if _, _, err := node.Member.Anchor().Verify(identity.PurposePublisher, "shop", "x", key.Sign("x", nil)); err != nil {
		t.Errorf("the new publisher is not known: %v", err)
	}
	if node.Serial() != serial {
		t.Error("renewed before it was time")
	}
	late.Store(true)
	for node.Serial() == serial {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
}

func TestRenewalIsForNodes(t *testing.T) {
	f := newFleet(t)
	addr, _ := serve(t, f.member, RenewHandler(f.control))
	r, _ := http.NewRequest(http.MethodPost, identity.RenewPath, strings.NewReader("{}"))
	resp, err := client(t, f.member, toControl, addr).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("control asks for a node's certificate: %s", resp.Status)
	}
	r, _ = http.NewRequest(http.MethodPost, identity.RenewPath, strings.NewReader(`{"csr":"AAAA"}`))
	resp, err = client(t, f.join("edge-1").Member, toControl, addr).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("a bad request: %s", resp.Status)
	}
}
