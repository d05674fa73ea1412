package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Scope is what an API token allows.
type Scope string

// The scopes. Admin includes deploy, deploy includes read.
const (
	ScopeAdmin  Scope = "admin"
	ScopeDeploy Scope = "deploy" // bundles, releases, namespaces and keys of KV
	ScopeRead   Scope = "read"
)

var scopeRank = map[Scope]int{ScopeRead: 1, ScopeDeploy: 2, ScopeAdmin: 3}

// Token is what the store keeps of an API token: never the secret.
type Token struct {
	ID      string    `json:"id"`
	Hash    string    `json:"hash"` // SHA-256 of the secret, hex
	Scopes  []Scope   `json:"scopes"`
	Project string    `json:"project,omitempty"` // empty: all projects, and the fleet
	Note    string    `json:"note,omitempty"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// MaxTokenLife bounds a token's life, and is its default.
const MaxTokenLife = 90 * 24 * time.Hour

// ErrToken is wrapped by every refusal of an API or join token.
var ErrToken = errors.New("token refused")

const (
	tokenPrefix = "slv"
	secretBytes = 32
	tokenIDLen  = 16
)

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewToken makes a token of t's scopes, project, note and end (zero:
// MaxTokenLife from now); secret is the text to show once.
func NewToken(t Token, now time.Time) (secret string, _ Token, err error) {
	t.Created = now.UTC().Truncate(time.Second)
	if t.Expires.IsZero() {
		t.Expires = t.Created.Add(MaxTokenLife)
	}
	if err := t.validate(); err != nil {
		return "", Token{}, fmt.Errorf("make a token: %w", err)
	}
	raw, id := randomBytes(secretBytes), randomBytes(tokenIDLen*5/8)
	t.ID, t.Hash = base32Lower.EncodeToString(id), hashHex(raw)
	return tokenPrefix + "_" + t.ID + "_" + base32Lower.EncodeToString(raw), t, nil
}

func (t *Token) validate() error {
	var errs []error
	if len(t.Scopes) == 0 {
		errs = append(errs, errors.New("no scope; give admin, deploy or read"))
	}
	for _, s := range t.Scopes {
		if scopeRank[s] == 0 {
			errs = append(errs, fmt.Errorf("scope %.40q: want admin, deploy or read", s))
		}
	}
	if t.Project != "" {
		errs = append(errs, CheckName("project", t.Project))
	}
	if life := t.Expires.Sub(t.Created); life <= 0 || life > MaxTokenLife {
		errs = append(errs, fmt.Errorf("valid for %s: want more than nothing and at most %s", life, MaxTokenLife))
	}
	return errors.Join(errs...)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand ends the process instead
	return b
}

func hashHex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// TokenID returns the ID inside a token's text, to look its record up by.
func TokenID(secret string) (string, error) {
	id, _, err := splitToken(secret)
	return id, err
}

func splitToken(secret string) (id string, raw []byte, err error) {
	parts := strings.Split(secret, "_")
	if len(parts) != 3 || parts[0] != tokenPrefix || len(parts[1]) != tokenIDLen {
		return "", nil, fmt.Errorf("%w: not of the form slv_ID_SECRET", ErrToken)
	}
	raw, err = base32Lower.DecodeString(parts[2])
	if err != nil || len(raw) != secretBytes || base32Lower.EncodeToString(raw) != parts[2] {
		return "", nil, fmt.Errorf("%w: it was cut short or changed", ErrToken)
	}
	if strings.Trim(parts[1], "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return "", nil, fmt.Errorf("%w: not of the form slv_ID_SECRET", ErrToken)
	}
	return parts[1], raw, nil
}

// Check reports, in constant time, whether secret is this token's and the token
// has not expired. Errors wrap ErrToken.
func (t Token) Check(secret string, now time.Time) error {
	id, raw, err := splitToken(secret)
	if err != nil {
		return err
	}
	if !equalHash(t.Hash, raw) || id != t.ID {
		return fmt.Errorf("%w: unknown", ErrToken)
	}
	if now.After(t.Expires) {
		return fmt.Errorf("%w: it expired at %s; make a new one", ErrToken, t.Expires.Format(time.RFC3339))
	}
	return nil
}

func equalHash(stored string, secret []byte) bool {
	return subtle.ConstantTimeCompare([]byte(stored), []byte(hashHex(secret))) == 1
}

// Allows reports whether the token has scope in project; "" asks for the fleet
// itself, which only a token of no project has.
func (t Token) Allows(scope Scope, project string) bool {
	if t.Project != "" && t.Project != project {
		return false
	}
	want, known := scopeRank[scope]
	return known && slices.ContainsFunc(t.Scopes, func(s Scope) bool { return scopeRank[s] >= want })
}
