package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

const (
	joinPrefix    = "slvjoin_"
	joinSumBytes  = 4
	maxJoinTokens = 8 << 10 // bytes of a join token's text
	maxJoinLife   = 7 * 24 * time.Hour
)

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

// NewJoinToken makes a join token and its record. life is at most a week; zero
// is an hour.
func NewJoinToken(fleet string, root KeyID, addresses []string, pop string, life time.Duration, now time.Time) (JoinToken, JoinRecord, error) {
	if life == 0 {
		life = time.Hour
	}
	if life < 0 || life > maxJoinLife {
		return JoinToken{}, JoinRecord{}, fmt.Errorf("make a join token: valid for %s: want at most %s", life, maxJoinLife)
	}
	now = now.UTC().Truncate(time.Second)
	t := JoinToken{
		Fleet: fleet, Addresses: slices.Clone(addresses), Root: root,
		ID:      base32Lower.EncodeToString(randomBytes(tokenIDLen * 5 / 8)),
		Secret:  randomBytes(secretBytes),
		Expires: now.Add(life),
	}
	err := t.validate()
	if pop != "" {
		err = errors.Join(err, CheckName("pop", pop))
	}
	if err != nil {
		return JoinToken{}, JoinRecord{}, fmt.Errorf("make a join token: %w", err)
	}
	return t, JoinRecord{ID: t.ID, Hash: hashHex(t.Secret), Created: now, Expires: t.Expires, PoP: pop}, nil
}

func (t *JoinToken) validate() error {
	_, err := ParseKeyID(string(t.Root))
	errs := []error{CheckName("fleet", t.Fleet), err, checkJoinID(t.ID, t.Secret)}
	if len(t.Addresses) == 0 || len(t.Addresses) > 16 {
		errs = append(errs, fmt.Errorf("%d addresses of the control API: want 1 to 16", len(t.Addresses)))
	}
	for _, a := range t.Addresses {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" || len(a) > 300 {
			errs = append(errs, fmt.Errorf("address %.300q: want host:port", a))
		}
	}
	return errors.Join(errs...)
}

func checkJoinID(id string, secret []byte) error {
	if len(id) != tokenIDLen || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") != "" || len(secret) != secretBytes {
		return errors.New("join token: its ID or secret is not of its form")
	}
	return nil
}

// joinText is a join token's content as its text carries it.
type joinText struct {
	Fleet     string   `json:"f"`
	Addresses []string `json:"a"`
	Root      KeyID    `json:"r"`
	ID        string   `json:"i"`
	Secret    []byte   `json:"s"`
	Expires   int64    `json:"e"`
}

// Encode returns the token's text, "slvjoin_...". It is a secret.
func (t JoinToken) Encode() string {
	b, err := json.Marshal(joinText{t.Fleet, t.Addresses, t.Root, t.ID, t.Secret, t.Expires.Unix()})
	if err != nil {
		panic(err) // strings, bytes and a number always marshal
	}
	return joinPrefix + text.EncodeToString(append(joinSum(b), b...))
}

// joinSum notices a text cut short or mistyped; it protects nothing.
func joinSum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:joinSumBytes:joinSumBytes]
}

// ParseJoinToken reads what Encode wrote; white space around it does not matter.
func ParseJoinToken(s string) (JoinToken, error) {
	t, err := parseJoinToken(strings.TrimSpace(s))
	if err != nil {
		return JoinToken{}, fmt.Errorf("join token: %w", err)
	}
	return t, nil
}

var errJoinText = errors.New("it was cut short or changed; copy all of it, from slvjoin_ on")

func parseJoinToken(s string) (JoinToken, error) {
	body, ok := strings.CutPrefix(s, joinPrefix)
	if !ok || len(s) > maxJoinTokens || strings.ContainsAny(s, "\r\n") {
		return JoinToken{}, errJoinText
	}
	b, err := text.DecodeString(body)
	if err != nil || len(b) < joinSumBytes || !bytes.Equal(b[:joinSumBytes], joinSum(b[joinSumBytes:])) {
		return JoinToken{}, errJoinText
	}
	var j joinText
	if err := DecodePayload(b[joinSumBytes:], &j); err != nil {
		return JoinToken{}, err
	}
	t := JoinToken{j.Fleet, j.Addresses, j.Root, j.ID, j.Secret, time.Unix(j.Expires, 0).UTC()}
	return t, t.validate()
}

// String names the token without its secret.
func (t JoinToken) String() string { return "join token " + t.ID + " of fleet " + t.Fleet }

// GoString is String, so that %#v does not tell the secret either.
func (t JoinToken) GoString() string { return t.String() }

// Check reports, in constant time, whether r carries this record's secret for an
// allowed PoP before its end. Errors wrap ErrToken.
func (j JoinRecord) Check(r JoinRequest, now time.Time) error {
	switch {
	case !equalHash(j.Hash, r.Secret) || r.ID != j.ID:
		return fmt.Errorf("%w: unknown join token", ErrToken)
	case now.After(j.Expires):
		return fmt.Errorf("%w: the join token expired at %s; make a new one", ErrToken, j.Expires.Format(time.RFC3339))
	case j.PoP != "" && j.PoP != r.PoP:
		return fmt.Errorf("%w: the join token is for PoP %s, not %q", ErrToken, j.PoP, r.PoP)
	}
	return nil
}
