package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

// issuer publishes keys on a real server, and signs.
type issuer struct {
	*httptest.Server
	keys  map[string]crypto.Signer // by kid
	asked int
	down  bool
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{keys: map[string]crypto.Signer{}}
	rk, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i.keys["rsa"] = rk
	i.add(t, "ec")
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.keys["ed"] = ed
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i.asked++
		if i.down {
			http.Error(w, "down", http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, i.set())
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) add(t *testing.T, kid string) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.keys[kid] = k
}

func (i *issuer) set() string {
	all := []map[string]string{{"kty": "oct", "kid": "not-ours", "k": "AAAA"}, {"kty": "RSA", "use": "enc", "kid": "not-for-signing"}}
	for kid, k := range i.keys {
		m := map[string]string{"kid": kid}
		switch p := k.Public().(type) {
		case *rsa.PublicKey:
			m["kty"], m["n"], m["e"] = "RSA", encoding.EncodeToString(p.N.Bytes()), encoding.EncodeToString(big.NewInt(int64(p.E)).Bytes())
		case *ecdsa.PublicKey:
			b, _ := p.Bytes()
			m["kty"], m["crv"], m["x"], m["y"] = "EC", "P-256", encoding.EncodeToString(b[1:33]), encoding.EncodeToString(b[33:])
		case ed25519.PublicKey:
			m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", encoding.EncodeToString(p)
		}
		all = append(all, m)
	}
	b, _ := json.Marshal(map[string]any{"keys": all})
	return string(b)
}

func part(v any) string {
	b, _ := json.Marshal(v)
	return encoding.EncodeToString(b)
}

// sign makes a token with the key of that name.
func (i *issuer) sign(t *testing.T, kid string, c map[string]any) string {
	t.Helper()
	alg := map[string]string{"rsa": "RS256", "ed": "EdDSA"}[kid]
	if alg == "" {
		alg = "ES256"
	}
	signed := part(map[string]string{"alg": alg, "kid": kid, "typ": "JWT"}) + "." + part(c)
	sum := sha256.Sum256([]byte(signed))
	var sig []byte
	var err error
	switch k := i.keys[kid].(type) {
	case *rsa.PrivateKey:
		sig, err = rsa.SignPKCS1v15(nil, k, crypto.SHA256, sum[:])
	case *ecdsa.PrivateKey:
		var r, s *big.Int
		r, s, err = ecdsa.Sign(rand.Reader, k, sum[:])
		sig = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	case ed25519.PrivateKey:
		sig = ed25519.Sign(k, []byte(signed))
	}
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + encoding.EncodeToString(sig)
}

const now = 1_800_000_000

func good(more map[string]any) map[string]any {
	c := map[string]any{"iss": "https://id.example", "aud": "shop", "sub": "ann", "exp": now + 600, "scope": "read"}
	for k, v := range more {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	return c
}

// open is a guard with KV of its own, and a clock that can be set.
func open(t *testing.T, i *issuer, clock *time.Time) *guard {
	return &guard{
		keys:   &keys{kv: edge.KV(rand.Text()), url: func() string { return i.URL }, fetch: edge.Fetch, now: func() time.Time { return *clock }},
		policy: func() policy { return policy{"https://id.example", "shop", 30 * time.Second} }, next: http.HandlerFunc(tell),
	}
}

func ask(g *guard, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w
}

func TestTokens(t *testing.T) {
	i, clock := newIssuer(t), time.Unix(now, 0)
	g := open(t, i, &clock)
	for _, kid := range []string{"rsa", "ec", "ed"} {
		if w := ask(g, i.sign(t, kid, good(nil))); w.Code != 200 || !strings.Contains(w.Body.String(), `"subject":"ann"`) {
			t.Errorf("%s: %d %s", kid, w.Code, w.Body)
		}
	}
	if w := ask(g, i.sign(t, "ec", good(map[string]any{"aud": []string{"blog", "shop"}, "nbf": now + 20, "exp": now - 20}))); w.Code != 200 {
		t.Errorf("within the leeway, for several: %d", w.Code)
	}
	if i.asked != 1 {
		t.Errorf("the issuer was asked %d times", i.asked)
	}
	ok := i.sign(t, "ec", good(nil))
	f := strings.Split(ok, ".")
	// A token that says HS256, signed with the public key as if it were a secret.
	forged := part(map[string]string{"alg": "HS256", "kid": "rsa"}) + "." + f[1]
	h := hmac.New(sha256.New, i.keys["rsa"].Public().(*rsa.PublicKey).N.Bytes())
	h.Write([]byte(forged))
	for why, token := range map[string]string{
		"none":              "",
		"unsigned":          part(map[string]string{"alg": "none"}) + "." + f[1] + ".",
		"another algorithm": forged + "." + encoding.EncodeToString(h.Sum(nil)),
		"another's claims":  f[0] + "." + part(good(map[string]any{"sub": "bob"})) + "." + f[2],
		"another's key":     strings.Replace(ok, f[0], part(map[string]string{"alg": "ES256", "kid": "ed"}), 1),
		"expired":           i.sign(t, "ec", good(map[string]any{"exp": now - 31})),
		"not yet valid":     i.sign(t, "ec", good(map[string]any{"nbf": now + 31})),
		"never expires":     i.sign(t, "ec", good(map[string]any{"exp": nil})),
		"another audience":  i.sign(t, "ec", good(map[string]any{"aud": "blog"})),
		"no audience":       i.sign(t, "ec", good(map[string]any{"aud": nil})),
		"another issuer":    i.sign(t, "ec", good(map[string]any{"iss": "https://evil.example"})),
		"odd claims":        i.sign(t, "ec", good(map[string]any{"exp": "soon"})),
		"two parts":         f[0] + "." + f[1],
		"too long":          ok + strings.Repeat("A", maxToken),
		"must understand":   part(map[string]any{"alg": "ES256", "kid": "ec", "crit": []string{"b64"}}) + "." + f[1] + "." + f[2],
	} {
		if w := ask(g, token); w.Code != 401 || w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d %s", why, w.Code, w.Body)
		}
	}
}

// The issuer is asked seldom, for a new key at once, and not needed while it is away.
func TestKeysAreKept(t *testing.T) {
	i, clock := newIssuer(t), time.Unix(now, 0)
	g := open(t, i, &clock)
	for range 5 {
		ask(g, i.sign(t, "ec", good(nil)))
	}
	i.add(t, "new")
	fresher := i.sign(t, "new", good(nil))
	if w := ask(g, fresher); w.Code != 401 || i.asked != 1 {
		t.Errorf("within the pause a name that is not known asks nobody: %d, asked %d times", w.Code, i.asked)
	}
	again := func() { // the pause is over
		if _, err := g.keys.kv.Delete(t.Context(), pauseKey); err != nil {
			t.Fatal(err)
		}
	}
	again()
	if w := ask(g, fresher); w.Code != 200 || i.asked != 2 {
		t.Errorf("a new key: %d, asked %d times", w.Code, i.asked)
	}
	again()
	i.down = true
	if clock = clock.Add(fresh); ask(g, i.sign(t, "new", good(map[string]any{"exp": now + 3600}))).Code != 200 || i.asked != 3 {
		t.Errorf("the issuer is away: asked %d times", i.asked)
	}
	empty := open(t, i, &clock)
	empty.keys.kv = edge.KV(rand.Text())
	for range 2 { // the second within the pause
		if w := ask(empty, fresher); w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("away, and never heard: %d", w.Code)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add("eyJhbGciOiJub25lIn0.e30.", `{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`)
	f.Add("a.b.c", `{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"OKP","crv":"Ed25519","x":""}]}`)
	f.Fuzz(func(t *testing.T, text, set string) {
		all, _ := parseKeys([]byte(set))
		if tok, err := parse(text); err == nil {
			for _, k := range all {
				k.signs(tok)
			}
			_, _ = policy{}.check(tok, time.Unix(now, 0))
		}
	})
}
