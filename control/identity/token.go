package identity

import "time"

// Scope is what an API token allows.
type Scope string

// The scopes. Admin allows everything, in every project if Project is empty.
const (
	ScopeAdmin  Scope = "admin"
	ScopeDeploy Scope = "deploy" // bundles, releases, namespaces and keys of KV
	ScopeRead   Scope = "read"
)

// Token is what the store keeps of an API token: never the secret.
type Token struct {
	ID      string    `json:"id"`
	Hash    string    `json:"hash"` // SHA-256 of the secret, hex
	Scopes  []Scope   `json:"scopes"`
	Project string    `json:"project,omitempty"` // empty: all projects
	Note    string    `json:"note,omitempty"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// MaxTokenLife bounds a token's life.
const MaxTokenLife = 90 * 24 * time.Hour

// NewToken makes a token; secret is the text to show once (t gets ID, Hash, Created; a zero Expires is MaxTokenLife from now).
func NewToken(t Token, now time.Time) (secret string, _ Token, err error) { panic("not yet") }

// TokenID returns the ID inside a token's text, to look its record up by.
func TokenID(secret string) (string, error) { panic("not yet") }

// Check reports, in constant time, whether secret is this token's and it has not expired.
func (t Token) Check(secret string, now time.Time) error { panic("not yet") }

// Allows reports whether the token has scope in project ("" asks for the fleet itself).
// Admin includes deploy and read; deploy includes read.
func (t Token) Allows(scope Scope, project string) bool { panic("not yet") }

// JoinToken lets one node join once.
type JoinToken struct {
	Fleet     string
	Addresses []string // host:port of the control API, tried in order
	Root      KeyID
	ID        string
	Secret    []byte // 32 bytes
	Expires   time.Time
}

// JoinRecord is what the store keeps of a join token. The store spends it once.
type JoinRecord struct {
	ID      string    `json:"id"`
	Hash    string    `json:"hash"` // SHA-256 of the secret, hex
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	PoP     string    `json:"pop,omitempty"` // if not empty, the node must say this PoP
}

// NewJoinToken makes a join token and its record.
func NewJoinToken(fleet string, root KeyID, addresses []string, pop string, life time.Duration, now time.Time) (JoinToken, JoinRecord, error) {
	panic("not yet")
}

// String returns the token's text. It is a secret.
func (t JoinToken) Encode() string { panic("not yet") }

// ParseJoinToken reads what Encode wrote; it notices a text cut short.
func ParseJoinToken(s string) (JoinToken, error) { panic("not yet") }

// Check reports, in constant time, whether r carries this record's secret for an allowed PoP before its end.
func (j JoinRecord) Check(r JoinRequest, now time.Time) error { panic("not yet") }
