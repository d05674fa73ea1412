package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A token lets whoever has it read what is below a path, until a time, and, if
// one is named, from one address. It is four parts with dots between them:
//
//	EXPIRES.KEY.ADDRESS.SIGNATURE
//
// EXPIRES is in Unix seconds, KEY names the secret, ADDRESS is "any" or the client's address
// in unpadded base64url, SIGNATURE is HMAC-SHA256 over the parts before it and the path.
type grant struct {
	expires time.Time
	key     string
	client  string // "any", or as in the token
}

// maxToken bounds a token, in bytes.
const maxToken = 256

var (
	errToken   = errors.New("the token is not one of ours")
	errExpired = errors.New("the token has expired")
	errClient  = errors.New("the token is for another address")
)

const anybody = "any"

var encoding = base64.RawURLEncoding.Strict() // one spelling for each token

// sign makes a token for what is below prefix, such as "/live/a/"; an invalid client is anybody.
func (g grant) sign(secret []byte, prefix string) string {
	head := strconv.FormatInt(g.expires.Unix(), 10) + "." + g.key + "." + g.client
	return head + "." + encoding.EncodeToString(mac(secret, head, prefix))
}

func mac(secret []byte, head, prefix string) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(head + "\n" + prefix))
	return h.Sum(nil)
}

// clientPart is how a token names an address.
func clientPart(ip netip.Addr) string {
	if !ip.IsValid() {
		return anybody
	}
	return encoding.EncodeToString(ip.Unmap().AsSlice())
}

// parse takes a token apart; nothing of it is to be believed before check.
func parse(token string) (g grant, head string, sum []byte, err error) {
	f := strings.Split(token, ".")
	if len(token) > maxToken || len(f) != 4 || f[1] == "" {
		return g, "", nil, errToken
	}
	at, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil || at < 0 {
		return g, "", nil, errToken
	}
	if sum, err = encoding.DecodeString(f[3]); err != nil || len(sum) != sha256.Size {
		return g, "", nil, errToken
	}
	return grant{expires: time.Unix(at, 0), key: f[1], client: f[2]}, strings.Join(f[:3], "."), sum, nil
}

// check reports whether the token, made with secret, lets client read what is below prefix now.
func check(token string, secret []byte, prefix string, client netip.Addr, now time.Time) error {
	g, head, sum, err := parse(token)
	switch {
	case err != nil:
		return err
	case !hmac.Equal(sum, mac(secret, head, prefix)): // first: what is not signed says nothing
		return errToken
	case !now.Before(g.expires):
		return errExpired
	case g.client != anybody && g.client != clientPart(client):
		return errClient
	}
	return nil
}
