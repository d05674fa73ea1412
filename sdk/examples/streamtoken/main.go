// Command streamtoken lets through to a media origin whoever has a token for it.
//
//	GET /{stream}/{token}/{file...}   the origin's /{stream}/{file...}
//
// The token stands in the path, so that a player finds it again in what a playlist
// names relative to itself, and one token is good for all of a stream.
package main

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path"
	"time"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

// secrets are the keys of tokens, under "key:NAME": two of them while one replaces the other.
var secrets = edge.KV("secrets")

func main() {
	edge.Serve(routes(func() string { return edge.Var("ORIGIN") }, edge.Fetch)) // variables are read while a request is handled
}

func routes(origin func() string, fetch func(*http.Request) (*http.Response, error)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{stream}/{token}/{file...}", func(w http.ResponseWriter, r *http.Request) {
		if err := allowed(r); err != nil {
			refuse(w, r, err)
			return
		}
		out, err := http.NewRequestWithContext(r.Context(), r.Method, origin(), nil)
		if err != nil {
			refuse(w, r, err)
			return
		}
		// Path, not a string: what was decoded is encoded again.
		out.URL.Path = "/" + r.PathValue("stream") + "/" + r.PathValue("file")
		if out.URL.Path != path.Clean(out.URL.Path) { // "..", however it is written, would leave what the token is for
			http.NotFound(w, r)
			return
		}
		for _, name := range []string{"Accept", "Range", "If-Range", "If-None-Match", "If-Modified-Since"} {
			if v := r.Header.Get(name); v != "" {
				out.Header.Set(name, v)
			}
		}
		pass(w, out, fetch)
	})
	return mux
}

// allowed checks the token of the request's path.
func allowed(r *http.Request) error {
	token := r.PathValue("token")
	g, _, _, err := parse(token)
	if err != nil {
		return err
	}
	secret, err := secrets.Get(r.Context(), "key:"+g.key)
	if errors.Is(err, edge.ErrNotFound) || errors.Is(err, edge.ErrTooLarge) {
		return errToken // a key that is not there, or not any more
	}
	if err != nil {
		return err
	}
	return check(token, secret, "/"+r.PathValue("stream")+"/", edge.Info(r.Context()).Client.Addr(), time.Now())
}

func refuse(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case errors.Is(err, errToken), errors.Is(err, errExpired), errors.Is(err, errClient):
		slog.Info("refused", "why", err, "client", edge.Info(r.Context()).Client.Addr())
		http.Error(w, err.Error(), http.StatusForbidden)
	case errors.Is(err, edge.ErrUnavailable):
		w.Header().Set("Retry-After", "1")
		http.Error(w, "try again", http.StatusServiceUnavailable)
	default:
		slog.Error("stream", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
	}
}

// pass answers with what the origin does.
func pass(w http.ResponseWriter, out *http.Request, fetch func(*http.Request) (*http.Response, error)) {
	resp, err := fetch(out)
	if err != nil {
		slog.Error("origin", "error", err)
		http.Error(w, "the origin does not answer", http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for _, name := range []string{"Content-Type", "Content-Length", "Content-Range", "Accept-Ranges", "Etag", "Last-Modified"} {
		if v := resp.Header.Get(name); v != "" {
			w.Header().Set(name, v)
		}
	}
	w.Header().Set("Cache-Control", "private") // its URL is one reader's
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(w, resp.Body); err != nil {
		slog.Warn("the answer broke off", "path", out.URL.Path, "error", err)
		panic(http.ErrAbortHandler) // or half of it would look like all of it
	}
}
