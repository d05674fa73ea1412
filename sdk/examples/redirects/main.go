// Command redirects answers short links and A/B tests from KV.
//
//	GET  /s/{code}    302 to the value of link:{code}; 404 if there is none
//	POST /s/{code}    makes the link to the URL in the body; 409 if it exists
//	GET  /ab/{name}   302 to one of the targets in variant:{name}, always the same one for a browser
package main

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

var links = edge.KV("links")

const maxTarget = 2 << 10 // bytes of a link's URL

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /s/{code}", follow)
	mux.HandleFunc("POST /s/{code}", create)
	mux.HandleFunc("GET /ab/{name}", choose)
	edge.Serve(mux)
}

func follow(w http.ResponseWriter, r *http.Request) {
	target, err := links.Get(r.Context(), "link:"+r.PathValue("code"))
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, string(target), http.StatusFound)
}

func create(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxTarget))
	if err != nil {
		http.Error(w, "the URL is too long", http.StatusRequestEntityTooLarge)
		return
	}
	target := strings.TrimSpace(string(body))
	if !isWebURL(target) {
		http.Error(w, "the body must be one http or https URL", http.StatusBadRequest)
		return
	}
	_, err = links.Put(r.Context(), "link:"+r.PathValue("code"), []byte(target), edge.IfAbsent())
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Location", r.URL.Path)
	w.WriteHeader(http.StatusCreated)
}

func isWebURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// fail answers what KV refused.
func fail(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, edge.ErrNotFound):
		http.Error(w, "no such link", http.StatusNotFound)
	case errors.Is(err, edge.ErrConflict):
		http.Error(w, "the link exists", http.StatusConflict)
	case errors.Is(err, edge.ErrTooLarge):
		http.Error(w, "the name is too long", http.StatusBadRequest)
	case errors.Is(err, edge.ErrUnavailable):
		w.Header().Set("Retry-After", "1")
		http.Error(w, "try again", http.StatusServiceUnavailable)
	default:
		slog.Error("kv", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
	}
}
