package identity

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestTokenScopes(t *testing.T) {
	type ask struct {
		scope   Scope
		project string
	}
	asks := []ask{{ScopeRead, "a"}, {ScopeDeploy, "a"}, {ScopeAdmin, "a"}, {ScopeRead, "b"}, {ScopeRead, ""}, {ScopeAdmin, ""}, {"", "a"}, {"root", "a"}}
	for _, c := range []struct {
		token Token
		want  string // y or n for each ask
	}{
		{Token{Scopes: []Scope{ScopeRead}}, "ynnyynnn"},
		{Token{Scopes: []Scope{ScopeDeploy}}, "yynyynnn"},
		{Token{Scopes: []Scope{ScopeAdmin}}, "yyyyyynn"},
		{Token{Scopes: []Scope{ScopeRead}, Project: "a"}, "ynnnnnnn"},
		{Token{Scopes: []Scope{ScopeAdmin}, Project: "a"}, "yyynnnnn"},
		{Token{Scopes: []Scope{"root"}}, "nnnnnnnn"},
		{Token{}, "nnnnnnnn"},
	} {
		got := ""
		for _, a := range asks {
			got += map[bool]string{true: "y", false: "n"}[c.token.Allows(a.scope, a.project)]
		}
		if got != c.want {
			t.Errorf("%v in %q: got %s, want %s", c.token.Scopes, c.token.Project, got, c.want)
		}
	}
}

func TestTokenCheck(t *testing.T) {
	secret, token, err := NewToken(Token{Scopes: []Scope{ScopeRead}}, start)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := TokenID(secret); err != nil || id != token.ID {
		t.Errorf("ID: %q, %v", id, err)
	}
	other, _, err := NewToken(Token{Scopes: []Scope{ScopeRead}}, start)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Check(secret, start.Add(MaxTokenLife)); err != nil {
		t.Error(err)
	}
	parts := strings.Split(secret, "_")
	for name, bad := range map[string]string{
		"nothing": "", "another": other, "cut": secret[:len(secret)-1], "longer": secret + "a", "upper case": strings.ToUpper(secret),
		"another ID": "slv_" + strings.Split(other, "_")[1] + "_" + parts[2], "no prefix": parts[1] + "_" + parts[2], "other last bits": secret[:len(secret)-1] + "7",
	} {
		if err := token.Check(bad, start); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%s: the error repeats the secret", name)
		}
	}
	if err := token.Check(secret, start.Add(MaxTokenLife+time.Second)); !errors.Is(err, ErrToken) {
		t.Errorf("expired: %v", err)
	}
	if strings.Contains(fmt.Sprintf("%+v", token), parts[2]) {
		t.Error("the record holds the secret")
	}
}

func TestNewTokenRefuses(t *testing.T) {
	for name, token := range map[string]Token{
		"no scope":      {},
		"unknown scope": {Scopes: []Scope{"root"}},
		"too long":      {Scopes: []Scope{ScopeRead}, Expires: start.Add(MaxTokenLife + time.Hour)},
		"over already":  {Scopes: []Scope{ScopeRead}, Expires: start.Add(-time.Hour)},
		"bad project":   {Scopes: []Scope{ScopeRead}, Project: "../x"},
	} {
		if _, _, err := NewToken(token, start); err == nil {
			t.Errorf("%s: made", name)
		}
	}
}

func TestJoinTokenText(t *testing.T) {
	key, _ := signed(t)
	token, record, err := NewJoinToken("acme", key.ID(), []string{"10.0.0.1:8443", "[::1]:8443", "control.example.com:443"}, "fra", 0, start)
	if err != nil {
		t.Fatal(err)
	}
	text := token.Encode()
	got, err := ParseJoinToken("  " + text + "\n")
	if err != nil || !reflect.DeepEqual(got, token) {
		t.Errorf("got %#v, %v", got, err)
	}
	for n := range len(text) {
		if _, err := ParseJoinToken(text[:n]); err == nil {
			t.Errorf("cut to %d letters and taken", n)
		}
	}
	for i := range len(text) {
		bad := []byte(text)
		bad[i] ^= 1
		if _, err := ParseJoinToken(string(bad)); err == nil {
			t.Errorf("letter %d was changed and nobody noticed", i)
		}
	}
	for _, shown := range []string{fmt.Sprint(token), fmt.Sprintf("%v %+v %#v", token, token, token)} {
		if strings.Contains(shown, fmt.Sprint(token.Secret)) || strings.Contains(shown, text) {
			t.Errorf("the secret is shown: %s", shown)
		}
	}
	if record.Expires != start.Add(time.Hour) {
		t.Errorf("record: %+v", record)
	}
}

func TestNewJoinTokenRefuses(t *testing.T) {
	key, _ := signed(t)
	for name, make := range map[string]func() (JoinToken, JoinRecord, error){
		"no address": func() (JoinToken, JoinRecord, error) { return NewJoinToken("a", key.ID(), nil, "", 0, start) },
		"no port":    func() (JoinToken, JoinRecord, error) { return NewJoinToken("a", key.ID(), []string{"h"}, "", 0, start) },
		"no root":    func() (JoinToken, JoinRecord, error) { return NewJoinToken("a", "", []string{"h:1"}, "", 0, start) },
		"a month": func() (JoinToken, JoinRecord, error) {
			return NewJoinToken("a", key.ID(), []string{"h:1"}, "", 30*24*time.Hour, start)
		},
		"a bad PoP": func() (JoinToken, JoinRecord, error) {
			return NewJoinToken("a", key.ID(), []string{"h:1"}, "A B", 0, start)
		},
		"a bad fleet": func() (JoinToken, JoinRecord, error) {
			return NewJoinToken("", key.ID(), []string{"h:1"}, "", 0, start)
		},
	} {
		if _, _, err := make(); err == nil {
			t.Errorf("%s: made", name)
		}
	}
}

func TestJoinRecordCheck(t *testing.T) {
	key, _ := signed(t)
	token, record, err := NewJoinToken("acme", key.ID(), []string{"h:1"}, "fra", 0, start)
	if err != nil {
		t.Fatal(err)
	}
	good := JoinRequest{ID: token.ID, Secret: token.Secret, PoP: "fra"}
	if err := record.Check(good, start.Add(time.Hour)); err != nil {
		t.Error(err)
	}
	wrong := append([]byte(nil), token.Secret...)
	wrong[31] ^= 1
	for name, r := range map[string]JoinRequest{
		"another secret": {ID: token.ID, Secret: wrong, PoP: "fra"},
		"no secret":      {ID: token.ID, PoP: "fra"},
		"another ID":     {ID: strings.Repeat("a", 16), Secret: token.Secret, PoP: "fra"},
		"another PoP":    {ID: token.ID, Secret: token.Secret, PoP: "ams"},
	} {
		if err := record.Check(r, start); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := record.Check(good, start.Add(time.Hour+time.Second)); !errors.Is(err, ErrToken) {
		t.Errorf("expired: %v", err)
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"a", "0", "a-b", "edge-1", strings.Repeat("x", 63)} {
		if err := CheckName("n", good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "-", "-a", "a-", "A", "a.b", "a/b", "a b", "a\x00", "ä", "*", ">", strings.Repeat("x", 64)} {
		if err := CheckName("n", bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
