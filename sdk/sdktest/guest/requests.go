package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// requests show what a handler sees of its request.
var requests = map[string]http.HandlerFunc{
	"/request/": describe,
	"GET /items/{id}/{rest...}": func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.PathValue("id"), "|", r.PathValue("rest"), "|", r.Pattern)
	},
	"/form": func(w http.ResponseWriter, r *http.Request) {
		err := r.ParseMultipartForm(1 << 20)
		fmt.Fprintln(w, r.Form.Encode(), r.PostForm.Encode(), err)
		if r.MultipartForm != nil {
			for name, files := range r.MultipartForm.File {
				fmt.Fprintln(w, name, files[0].Filename, files[0].Size)
			}
		}
	},
	"/limited": func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 10))
		fmt.Fprintln(w, len(b), err)
	},
	"/digest": func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		again, errAgain := r.Body.Read(make([]byte, 1))
		r.Body.Close()
		_, errClosed := r.Body.Read(make([]byte, 1))
		fmt.Fprintf(w, "%d %x %v %d %v %v\n", n, sum.Sum(nil), err, again, errAgain, errClosed)
	},
	"/echo": func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		io.Copy(w, r.Body)
	},
	// Answers each piece as it comes: both directions stream.
	"/chat": func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		_ = c.EnableFullDuplex()
		c.Flush()
		buf := make([]byte, 256)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				fmt.Fprintf(w, "<%s>", buf[:n])
				c.Flush()
			}
			if err != nil {
				return
			}
		}
	},
}

func describe(w http.ResponseWriter, r *http.Request) {
	cookies := map[string]string{}
	for _, c := range r.Cookies() {
		cookies[c.Name] = c.Value
	}
	user, _, _ := r.BasicAuth()
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(map[string]any{
		"method": r.Method, "uri": r.RequestURI, "path": r.URL.Path, "raw": r.URL.RawPath, "url": r.URL.String(), "query": r.URL.Query(),
		"proto": r.Proto, "major": r.ProtoMajor, "minor": r.ProtoMinor, "host": r.Host, "header": r.Header, "length": r.ContentLength,
		"encoding": r.TransferEncoding, "close": r.Close, "tls": r.TLS != nil, "cookies": cookies, "user": user, "agent": r.UserAgent(),
		"nobody": r.Body == http.NoBody, "remote": r.RemoteAddr != "", "done": r.Context().Err() != nil,
	})
}
