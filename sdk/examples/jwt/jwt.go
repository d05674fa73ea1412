package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// Bounds of what is read, in bytes.
const (
	maxToken = 8 << 10
	maxJWKS  = 64 << 10
)

// errToken is wrapped by every reason why a token is not taken.
var errToken = errors.New("invalid token")

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errToken, fmt.Sprintf(format, args...))
}

var encoding = base64.RawURLEncoding.Strict()

// claims are those that are looked at, and passed on (RFC 7519, section 4.1).
type claims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  audience `json:"aud"`
	Expires   *float64 `json:"exp"` // Unix seconds
	NotBefore *float64 `json:"nbf"`
	Scope     string   `json:"scope"`
}

// audience is one string or several.
type audience []string

func (a *audience) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*a = make(audience, 1)
		return json.Unmarshal(b, &(*a)[0])
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// token is one taken apart, of which nothing is to be believed yet.
type token struct {
	alg, kid string
	payload  []byte
	signed   string
	sum      []byte
}

// parse takes a compact JWS apart (RFC 7515, section 7.1).
func parse(text string) (t token, err error) {
	f := strings.Split(text, ".")
	if len(text) > maxToken || len(f) != 3 {
		return t, refused("want three parts, of %d bytes at most", maxToken)
	}
	head, err := encoding.DecodeString(f[0])
	if err != nil {
		return t, refused("its head: %v", err)
	}
	var h struct {
		Alg  string   `json:"alg"`
		Kid  string   `json:"kid"`
		Crit []string `json:"crit"`
	}
	if err := json.Unmarshal(head, &h); err != nil {
		return t, refused("its head: %v", err)
	}
	if h.Crit != nil {
		return t, refused("it has extensions that must be understood, and are not") // section 4.1.11
	}
	if t.payload, err = encoding.DecodeString(f[1]); err != nil {
		return t, refused("its payload: %v", err)
	}
	if t.sum, err = encoding.DecodeString(f[2]); err != nil {
		return t, refused("its signature: %v", err)
	}
	t.alg, t.kid, t.signed = h.Alg, h.Kid, f[0]+"."+f[1]
	return t, nil
}

// key is one that an issuer publishes. Its own kind says which algorithm is good
// with it; what a token says must agree, and never chooses (RFC 8725, section 3.1).
type key struct {
	kid, alg string
	public   crypto.PublicKey
}

// parseKeys reads a JWK set (RFC 7517). Keys of kinds that are not known here, or
// for encryption, are left out.
func parseKeys(b []byte) (all []key, err error) {
	var set struct {
		Keys []struct {
			Kty, Use, Kid, Alg, Crv, N, E, X, Y string
		}
	}
	if len(b) > maxJWKS {
		return nil, fmt.Errorf("the key set is over %d bytes", maxJWKS)
	}
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, fmt.Errorf("the key set: %w", err)
	}
	for _, k := range set.Keys {
		one := key{kid: k.Kid}
		var err error
		switch {
		case k.Use != "" && k.Use != "sig":
			continue
		case k.Kty == "RSA":
			one.alg = "RS256"
			one.public, err = rsaKey(k.N, k.E)
		case k.Kty == "EC" && k.Crv == "P-256":
			one.alg = "ES256"
			one.public, err = ecKey(k.X, k.Y)
		case k.Kty == "OKP" && k.Crv == "Ed25519":
			one.alg = "EdDSA"
			one.public, err = edKey(k.X)
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the key set: key %q: %w", k.Kid, err)
		}
		if k.Alg == "" || k.Alg == one.alg {
			all = append(all, one)
		}
	}
	return all, nil
}

func rsaKey(n, e string) (crypto.PublicKey, error) {
	nb, err := encoding.DecodeString(n)
	eb, eerr := encoding.DecodeString(e)
	if err != nil || eerr != nil || len(nb) < 256 || len(nb) > 1024 || len(eb) == 0 || len(eb) > 4 {
		return nil, errors.New("want an RSA key of 2048 to 8192 bits")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(nb), E: int(new(big.Int).SetBytes(eb).Int64())}, nil
}

func ecKey(x, y string) (crypto.PublicKey, error) {
	xb, err := encoding.DecodeString(x)
	yb, yerr := encoding.DecodeString(y)
	if err != nil || yerr != nil || len(xb) != 32 || len(yb) != 32 {
		return nil, errors.New("want two coordinates of 32 bytes")
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, xb, yb)) // it must be on the curve
}

func edKey(x string) (crypto.PublicKey, error) {
	b, err := encoding.DecodeString(x)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil, errors.New("want 32 bytes")
	}
	return ed25519.PublicKey(b), nil
}

// signs reports whether the key made the token's signature.
func (k key) signs(t token) bool {
	if t.alg != k.alg {
		return false
	}
	sum := sha256.Sum256([]byte(t.signed))
	switch p := k.public.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(p, crypto.SHA256, sum[:], t.sum) == nil
	case *ecdsa.PublicKey:
		if len(t.sum) != 64 { // R and S, side by side: RFC 7518, section 3.4
			return false
		}
		return ecdsa.Verify(p, sum[:], new(big.Int).SetBytes(t.sum[:32]), new(big.Int).SetBytes(t.sum[32:]))
	case ed25519.PublicKey:
		return ed25519.Verify(p, []byte(t.signed), t.sum)
	}
	return false
}

// policy is what tokens must say.
type policy struct {
	issuer, audience string
	leeway           time.Duration // by which clocks may be apart
}

// check reads the claims of a token whose signature is good.
func (p policy) check(t token, now time.Time) (c claims, err error) {
	dec := json.NewDecoder(bytes.NewReader(t.payload))
	if err := dec.Decode(&c); err != nil || dec.More() {
		return c, refused("its claims are not JSON of the right kind")
	}
	at := float64(now.Unix())
	switch {
	case c.Issuer != p.issuer:
		return c, refused("it is from %q", c.Issuer)
	case !slices.Contains(c.Audience, p.audience):
		return c, refused("it is for %q", []string(c.Audience))
	case c.Expires == nil:
		return c, refused("it never expires")
	case at >= *c.Expires+p.leeway.Seconds():
		return c, refused("it has expired")
	case c.NotBefore != nil && at < *c.NotBefore-p.leeway.Seconds():
		return c, refused("it is not valid yet")
	}
	return c, nil
}
