package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

func from(country string, assumed bool) context.Context {
	return edge.WithInfo(context.Background(), edge.Metadata{Place: edge.Place{Country: country, Assumed: assumed}})
}

// Who is sent where, and who is greeted how.
func TestVisitors(t *testing.T) {
	countries := parseCountries("DE=/de/ at=/de/ FR=/fr/ XX=//evil.example/ nonsense")
	s := site{countries: func() map[string]string { return countries }}
	for _, c := range []struct {
		name     string
		ctx      context.Context
		path     string
		language string
		cookie   bool
		status   int
		location string
		body     string
	}{
		{"sent home", from("DE", false), "/", "", false, 302, "/de/", ""},
		{"any case", from("AT", false), "/", "", false, 302, "/de/", ""},
		{"no site of theirs", from("GB", false), "/", "fr", false, 200, "", "Bienvenue\n"},
		{"only assumed", from("DE", true), "/", "de", false, 200, "", "Willkommen\n"},
		{"place not known", context.Background(), "/", "de-CH", false, 200, "", "Willkommen\n"},
		{"stays", from("DE", false), "/?stay=1", "", false, 200, "", "Welcome\n"},
		{"stayed", from("DE", false), "/", "pt-BR", true, 200, "", "Boas-vindas\n"},
		{"country and language apart", from("CH", false), "/de/", "fr, de;q=0.5", false, 200, "", "Bienvenue (DE)\n"},
		{"nothing they speak", from("GB", false), "/", "ja", false, 200, "", "Welcome\n"},
		{"not another's host", from("XX", false), "/", "", false, 200, "", "Welcome\n"},
	} {
		r := httptest.NewRequestWithContext(c.ctx, http.MethodGet, c.path, nil)
		if c.language != "" {
			r.Header.Set("Accept-Language", c.language)
		}
		if c.cookie {
			r.AddCookie(&http.Cookie{Name: stay, Value: "1"})
		}
		w := httptest.NewRecorder()
		s.routes().ServeHTTP(w, r)
		if w.Code != c.status || w.Header().Get("Location") != c.location || c.body != "" && w.Body.String() != c.body {
			t.Errorf("%s: %d to %q, %q", c.name, w.Code, w.Header().Get("Location"), w.Body)
		}
		if c.path == "/?stay=1" && w.Header().Get("Set-Cookie") == "" {
			t.Errorf("%s: no cookie", c.name)
		}
		if c.status == 200 && w.Header().Get("Vary") != "Accept-Language" {
			t.Errorf("%s: caches are not told what it depends on", c.name)
		}
	}
}
