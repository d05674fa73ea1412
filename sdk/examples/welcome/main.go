// Command welcome sends visitors to their country's site, and greets those who
// stay in their language.
//
//	GET  /             302 to the country's path if COUNTRIES names one, else the greeting
//	GET  /?stay=1      the greeting, and a cookie: no redirect any more in this browser
//	GET  /{country}/   that country's page, in the visitor's language
package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

// greetings are what the page says, by language. The first is for who speaks none of them.
var (
	languages = []string{"en", "de", "fr", "pt-BR"}
	greetings = map[string]string{"en": "Welcome", "de": "Willkommen", "fr": "Bienvenue", "pt-BR": "Boas-vindas"}
)

// stay is the cookie of those who do not want to be sent elsewhere.
const stay = "stay"

func main() {
	s := site{countries: func() map[string]string { return parseCountries(edge.Var("COUNTRIES")) }}
	edge.Serve(s.routes())
}

// site is what the variables say: they are read while a request is handled.
type site struct{ countries func() map[string]string } // path by country

// parseCountries reads "DE=/de/ AT=/de/ FR=/fr/".
func parseCountries(text string) map[string]string {
	all := map[string]string{}
	for _, pair := range strings.Fields(text) {
		country, path, ok := strings.Cut(pair, "=")
		// A path of this host: "//elsewhere" would be another one's.
		if !ok || len(country) != 2 || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
			slog.Error("COUNTRIES: want pairs such as DE=/de/", "pair", pair)
			continue
		}
		all[strings.ToUpper(country)] = path
	}
	return all
}

func (s site) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.front)
	mux.HandleFunc("GET /{country}/{$}", func(w http.ResponseWriter, r *http.Request) { greet(w, r, r.PathValue("country")) })
	return mux
}

func (s site) front(w http.ResponseWriter, r *http.Request) {
	place := edge.Info(r.Context()).Place
	// What stands here depends on who asks and from where: no shared cache may keep it.
	w.Header().Set("Cache-Control", "private, no-store")
	if r.URL.Query().Get("stay") != "" {
		http.SetCookie(w, &http.Cookie{Name: stay, Value: "1", Path: "/", MaxAge: 365 * 24 * 3600, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
		greet(w, r, "")
		return
	}
	_, err := r.Cookie(stay)
	if path, ok := s.countries()[place.Country]; ok && err != nil && !place.Assumed {
		http.Redirect(w, r, path, http.StatusFound)
		return
	}
	greet(w, r, "")
}

// greet answers in the language that suits the visitor best.
func greet(w http.ResponseWriter, r *http.Request, country string) {
	tag := edge.Language(r, languages...)
	if tag == "" {
		tag = languages[0]
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Language", tag)
	h.Add("Vary", "Accept-Language")
	fmt.Fprint(w, greetings[tag])
	if country != "" {
		fmt.Fprintf(w, " (%s)", strings.ToUpper(country))
	}
	fmt.Fprintln(w)
}
