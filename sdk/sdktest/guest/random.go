package main

import (
	"encoding/json"
	"hash/maphash"
	oldrand "math/rand"
	"math/rand/v2"
	"net/http"
	"strings"
)

// What start-up makes of a seed: the snapshot holds it.
var (
	ownGenerator = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	ownSeed      = maphash.MakeSeed()
)

var letters = func() map[string]bool {
	m := map[string]bool{}
	for _, s := range strings.Split("abcdefghijklmnopqrstuvwxyz", "") {
		m[s] = true
	}
	return m
}()

// draws answers what a request gets from each source of randomness in Go.
func draws(w http.ResponseWriter, _ *http.Request) {
	order := ""
	for s := range letters {
		order += s
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"math/rand":       oldrand.Int63(),
		"math/rand/v2":    rand.Uint64(),
		"maphash":         maphash.String(maphash.MakeSeed(), "x"),
		"order":           order,
		"start generator": ownGenerator.Uint64(),
		"start seed":      maphash.String(ownSeed, "x"),
	})
}
