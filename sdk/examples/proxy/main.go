// Command proxy passes requests on to one origin and rewrites on the fly: links
// to the origin in what is text, the origin's name in headers. Bodies stream
// both ways at once; nothing is held but the few bytes in which a link might begin.
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

func main() { edge.Serve(http.HandlerFunc(proxy)) }

func proxy(w http.ResponseWriter, r *http.Request) {
	origin := edge.Var("ORIGIN") // scheme and host, as it is bound in selvage.toml
	out, err := request(r, origin)
	if err != nil {
		http.Error(w, "the request cannot be passed on", http.StatusBadRequest)
		return
	}
	// On the edge it is always so; net/http's own server has to be told.
	_ = http.NewResponseController(w).EnableFullDuplex()
	resp, err := edge.Fetch(out)
	if err != nil {
		fail(w, err)
		return
	}
	defer resp.Body.Close()
	self := selfOf(r)
	passHeaders(w.Header(), resp.Header, origin, self)
	var body io.Reader = resp.Body
	if isText(resp.Header) {
		body = replace(body, origin, self)
		w.Header().Del("Content-Length") // it changes
		w.Header().Del("Etag")           // it names other bytes
	}
	w.WriteHeader(resp.StatusCode)
	if resp.ContentLength < 0 { // its body may be long in coming: the client may wait for the head to say more
		_ = http.NewResponseController(w).Flush()
	}
	if err := stream(w, body); err != nil {
		slog.Warn("the answer broke off", "url", out.URL.Path, "err", err)
		panic(http.ErrAbortHandler) // or half of it would look like all of it
	}
}

// request is r to the origin. What names the client or its connection stays behind.
func request(r *http.Request, origin string) (*http.Request, error) {
	u, err := url.Parse(origin)
	if err != nil {
		return nil, err
	}
	u.Path, u.RawPath, u.RawQuery = r.URL.Path, r.URL.RawPath, r.URL.RawQuery
	out, err := http.NewRequestWithContext(r.Context(), r.Method, u.String(), r.Body)
	if err != nil {
		return nil, err
	}
	out.ContentLength = r.ContentLength
	out.Header = r.Header.Clone()
	out.Header.Del("Cookie")                      // this host's, not the origin's
	out.Header.Set("Accept-Encoding", "identity") // or there would be no text to rewrite
	out.Header.Set("X-Edge-Pop", edge.Info(r.Context()).PoP)
	return out, nil
}

// passHeaders copies the origin's headers; where they name the origin, they name this host.
func passHeaders(to, from http.Header, origin, self string) {
	for name, values := range from {
		switch name {
		case "Server", "X-Powered-By", "Set-Cookie":
			continue
		}
		for _, v := range values {
			to.Add(name, strings.ReplaceAll(v, origin, self))
		}
	}
	to.Set("X-Proxied-By", "selvage")
}

func selfOf(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// isText reports whether there is text to rewrite.
func isText(h http.Header) bool {
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	text := strings.HasPrefix(kind, "text/") || kind == "application/json" || kind == "application/javascript"
	return text && h.Get("Content-Encoding") == ""
}

// stream copies and sends on each piece as it comes.
func stream(w http.ResponseWriter, body io.Reader) error {
	out := http.NewResponseController(w)
	buf := make([]byte, 16<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
			if ferr := out.Flush(); ferr != nil {
				return ferr
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fail says which side it was.
func fail(w http.ResponseWriter, err error) {
	slog.Error("the origin", "err", err)
	switch {
	case errors.Is(err, edge.ErrDenied):
		http.Error(w, "the origin is not bound, or its address may not be reached", http.StatusInternalServerError)
	case errors.Is(err, edge.ErrUnavailable):
		http.Error(w, "the origin does not answer", http.StatusBadGateway)
	default:
		http.Error(w, "the origin's answer could not be had", http.StatusBadGateway)
	}
}
