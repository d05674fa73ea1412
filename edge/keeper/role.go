package keeper

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// roleVariable tells a server what it is among the servers of its node: words,
// of which it takes those it knows.
const roleVariable = "SELVAGE_SERVER"

// role is what a server is among the servers of its node.
type role struct {
	prefix [4]byte // its QUIC connection IDs begin so
	beside bool    // another one serves meanwhile
	held   bool    // it is to serve what last served well
}

func (r role) String() string {
	words := []string{"prefix=" + hex.EncodeToString(r.prefix[:])}
	if r.beside {
		words = append(words, "beside")
	}
	if r.held {
		words = append(words, "held")
	}
	return strings.Join(words, " ")
}

func parseRole(s string) (role, error) {
	var r role
	for _, word := range strings.Fields(s) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "prefix":
			b, err := hex.DecodeString(value)
			if err != nil || len(b) != len(r.prefix) {
				return role{}, fmt.Errorf("keeper: attach: %s=%q: prefix wants %d bytes in hex", roleVariable, s, len(r.prefix))
			}
			copy(r.prefix[:], b)
		case "beside":
			r.beside = true
		case "held":
			r.held = true
		}
	}
	return r, nil
}
