package main

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

// A variant is the value of variant:<name>: its targets and how often each is chosen.
//
//	{"targets": [{"name": "a", "url": "https://example.org/old", "weight": 9},
//	             {"name": "b", "url": "https://example.org/new", "weight": 1}]}
type variant struct {
	Targets []target `json:"targets"`
}

type target struct {
	Name   string `json:"name"`
	URL    string `json:"url"`
	Weight uint32 `json:"weight"`
}

// sticky is how long a browser keeps its target, in seconds.
const sticky = 30 * 24 * 3600

func choose(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	entry, err := links.GetEntry(r.Context(), "variant:"+name)
	if err != nil {
		fail(w, err)
		return
	}
	var v variant
	if err := json.Unmarshal(entry.Value, &v); err != nil {
		fail(w, fmt.Errorf("variant:%s: %w", name, err))
		return
	}
	t, ok := v.of(r, name)
	if !ok {
		t, ok = v.draw()
	}
	if !ok {
		fail(w, fmt.Errorf("variant:%s: no target has a weight: %w", name, edge.ErrNotFound))
		return
	}
	slog.Info("variant", "name", name, "target", t.Name, "revision", entry.Revision)
	http.SetCookie(w, &http.Cookie{Name: cookieName(name), Value: t.Name, Path: r.URL.Path, MaxAge: sticky, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	w.Header().Set("Cache-Control", "private, no-store")
	http.Redirect(w, r, t.URL, http.StatusFound)
}

// cookieName is a cookie's legal name, whatever the variant's is.
func cookieName(variant string) string { return "ab_" + url.QueryEscape(variant) }

// of returns the target this browser had before, while it is still offered.
func (v variant) of(r *http.Request, name string) (target, bool) {
	c, err := r.Cookie(cookieName(name))
	if err != nil {
		return target{}, false
	}
	for _, t := range v.Targets {
		if t.Name == c.Value && t.Weight > 0 {
			return t, true
		}
	}
	return target{}, false
}

// draw picks a target by weight. It asks crypto/rand: a generator made before edge.Serve would give
// every request the same number, because each starts from the same snapshot.
func (v variant) draw() (target, bool) {
	var total uint64
	for _, t := range v.Targets {
		total += uint64(t.Weight)
	}
	if total == 0 {
		return target{}, false
	}
	var b [8]byte
	_, _ = rand.Read(b[:])
	at := binary.LittleEndian.Uint64(b[:]) % total
	for _, t := range v.Targets {
		if at < uint64(t.Weight) {
			return t, true
		}
		at -= uint64(t.Weight)
	}
	return target{}, false
}
