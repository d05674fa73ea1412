package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/runtime/plain"
)

// Paths of the two calls of a join, on the control API.
const (
	TrustPath = "/v1/trust" // GET, no token: a Bundle
	JoinPath  = "/v1/join"  // POST, no token: JoinRequest, JoinResponse
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

// JoinRequest is the body of POST /v1/join.
type JoinRequest struct {
	ID     string `json:"id"`
	Secret []byte `json:"secret"`
	Name   string `json:"name"`
	PoP    string `json:"pop"`
	Region string `json:"region,omitempty"`
	CSR    []byte `json:"csr"` // DER, PKCS #10
}

// Validate reports every fault of the request's form.
func (r JoinRequest) Validate() error {
	_, err := keyOfCSR(r.CSR)
	p := Peer{Fleet: "any", Kind: KindNode, Name: r.Name, PoP: r.PoP, Region: r.Region}
	return errors.Join(checkJoinID(r.ID, r.Secret), p.Validate(), err)
}

// JoinResponse is its answer.
type JoinResponse struct {
	Chain     [][]byte `json:"chain"` // leaf, CA; DER
	Trust     Bundle   `json:"trust"`
	GossipKey []byte   `json:"gossip_key"`
	Seeds     []string `json:"seeds"`   // gossip addresses
	Control   []string `json:"control"` // peer addresses of control nodes
	API       []string `json:"api"`     // addresses of the control API
}

// JoinOptions say who joins.
type JoinOptions struct {
	Name, PoP, Region string
	Now               func() time.Time // nil: time.Now
}

// Join makes a key, spends the token and saves the node's identity in dir, which
// is made if need be (0700) and must not hold one yet (fs.ErrExist). The key never
// leaves dir. The secret is sent only to a server that proved itself down from the token's root fingerprint.
func Join(ctx context.Context, dir string, token JoinToken, o JoinOptions) (*Node, error) {
	j := joiner{token: token, o: o, now: clock(o.Now)}
	node, err := j.join(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("join fleet %s as %s: %w", token.Fleet, o.Name, err)
	}
	return node, nil
}

type joiner struct {
	token JoinToken
	o     JoinOptions
	now   func() time.Time
	trust atomic.Pointer[Trust] // once known, connections are checked against it too
}

func (j *joiner) join(ctx context.Context, dir string) (*Node, error) {
	if err := j.check(dir); err != nil {
		return nil, err
	}
	key, err := newTLSKey()
	if err != nil {
		return nil, err
	}
	r := JoinRequest{ID: j.token.ID, Secret: j.token.Secret, Name: j.o.Name, PoP: j.o.PoP, Region: j.o.Region}
	if r.CSR, err = newCSR(key); err != nil {
		return nil, err
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	answer, err := j.ask(ctx, r)
	if err != nil {
		return nil, err
	}
	return j.take(dir, key, answer)
}

func (j *joiner) check(dir string) error {
	if err := j.token.validate(); err != nil {
		return err
	}
	if now := j.now(); now.After(j.token.Expires.Add(Skew)) {
		return fmt.Errorf("%w: it expired at %s; make a new one", ErrToken, j.token.Expires.Format(time.RFC3339))
	}
	if hasNode(dir) {
		return fmt.Errorf("%s: %w: this node has joined; remove the directory to join anew", dir, fs.ErrExist)
	}
	return nil
}

// ask tries the addresses in order until one answers, well or badly.
func (j *joiner) ask(ctx context.Context, r JoinRequest) (*JoinResponse, error) {
	var errs []error
	for _, addr := range j.token.Addresses {
		answer, err := j.askOne(ctx, addr, r)
		var refused *Refused
		if err == nil || errors.As(err, &refused) {
			return answer, err
		}
		errs = append(errs, fmt.Errorf("%s: %w", addr, err))
	}
	return nil, errors.Join(errs...)
}

// askOne learns the fleet's trust from addr, and only then sends the secret: over
// another connection, whose handshake checks for revocation too.
func (j *joiner) askOne(ctx context.Context, addr string, r JoinRequest) (*JoinResponse, error) {
	if err := j.learnTrust(ctx, addr); err != nil {
		return nil, err
	}
	var answer JoinResponse
	if err := j.call(ctx, http.MethodPost, "https://"+addr+JoinPath, r, &answer); err != nil {
		return nil, err
	}
	return &answer, nil
}

// call makes one call over a connection of its own, and follows no redirect.
func (j *joiner) call(ctx context.Context, method, url string, in, out any) error {
	tr := pinnedTransport(j.token.Root, j.now, j.checkRevoked)
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return call(ctx, doerFunc(tr.RoundTrip), method, url, in, out)
}

type doerFunc func(*http.Request) (*http.Response, error)

func (d doerFunc) Do(r *http.Request) (*http.Response, error) { return d(r) }

// learnTrust fetches the trust bundle over a pinned connection.
func (j *joiner) learnTrust(ctx context.Context, addr string) error {
	var b Bundle
	if err := j.call(ctx, http.MethodGet, "https://"+addr+TrustPath, nil, &b); err != nil {
		return err
	}
	t, err := NewTrust(j.token.Root, b, j.now)
	if err != nil {
		return err
	}
	if t.Fleet() != j.token.Fleet {
		return fmt.Errorf("%w: fleet %s answered, the token is of fleet %s", ErrUntrusted, t.Fleet(), j.token.Fleet)
	}
	j.trust.Store(t)
	return nil
}

func (j *joiner) checkRevoked(leaf *x509.Certificate) error {
	t := j.trust.Load()
	if t == nil {
		return nil
	}
	_, err := t.CheckPeer(leaf, Expect{Kind: KindControl}, false)
	return err
}

// take checks the answer as it would a stranger's, and saves it.
func (j *joiner) take(dir string, key *ecdsa.PrivateKey, a *JoinResponse) (*Node, error) {
	cert, err := pair(a.Chain, key)
	if err != nil {
		return nil, err
	}
	t, err := NewTrust(j.token.Root, a.Trust, j.now)
	if err != nil {
		return nil, err
	}
	p, err := t.CheckPeer(cert.Leaf, Expect{Kind: KindNode, Name: j.o.Name}, true)
	if err != nil {
		return nil, err
	}
	if p.PoP != j.o.PoP || p.Region != j.o.Region {
		return nil, fmt.Errorf("the certificate says PoP %q, region %q; asked for were %q, %q", p.PoP, p.Region, j.o.PoP, j.o.Region)
	}
	if err := saveNode(dir, j.token.Root, cert, a); err != nil {
		return nil, err
	}
	return OpenNode(dir, j.now)
}

// Doer sends one HTTP request; *http.Client and peer.Client are ones.
type Doer interface {
	Do(*http.Request) (*http.Response, error)
}

// Refused is a server's orderly no.
type Refused struct {
	Status int
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Hint   string `json:"hint"`
}

func (r *Refused) Error() string {
	s := fmt.Sprintf("the server answered %d %s", r.Status, http.StatusText(r.Status))
	for _, part := range []string{r.Detail, r.Hint} {
		if part != "" {
			s += ": " + plain.Line(part, 1<<10)
		}
	}
	return s
}

// call makes one JSON call.
func call(ctx context.Context, d Doer, method, url string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return readAnswer(resp, out)
}

func readAnswer(resp *http.Response, out any) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		r := &Refused{}
		_ = json.Unmarshal(b, r) // a body that is not a problem document leaves the status alone to speak
		r.Status = resp.StatusCode
		return r
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}
