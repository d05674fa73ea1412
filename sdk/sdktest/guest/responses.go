package main

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// responses answer in the ways a ResponseWriter allows.
var responses = map[string]http.HandlerFunc{
	"/plain":  func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello\n") },
	"/silent": func(w http.ResponseWriter, r *http.Request) {},
	"/status/{code}": func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.PathValue("code"))
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Content-Type", "text/x-test")
		w.WriteHeader(code)
		n, err := io.WriteString(w, "a body\n")
		_, _ = n, err
	},
	"/no-content-with-length": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
		w.WriteHeader(http.StatusNoContent)
	},
	"/body/{size}": func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.PathValue("size"))
		io.WriteString(w, strings.Repeat("0123456789", n/10+1)[:n])
	},
	"/pieces/{count}/{size}": func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.PathValue("count"))
		size, _ := strconv.Atoi(r.PathValue("size"))
		for i := range n {
			w.Write([]byte(strings.Repeat(string(rune('a'+i%26)), size)))
		}
	},
	"/sniff/html": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<!DOCTYPE html><p>x") },
	"/sniff/png":  func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "\x89PNG\r\n\x1a\n....") },
	"/sniff/pieces": func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "<!DOC")
		io.WriteString(w, "TYPE html><p>x")
	},
	"/sniff/off": func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = nil
		io.WriteString(w, "<!DOCTYPE html>")
	},
	"/sniff/encoded": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.WriteString(z, "<!DOCTYPE html>")
		z.Close()
	},
	"/length/declared": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10000")
		for range 10 {
			io.WriteString(w, strings.Repeat("x", 1000))
		}
	},
	"/length/invalid": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "ten")
		io.WriteString(w, "body")
	},
	"/length/exceeded": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
		io.WriteString(w, "12345")
		if _, err := io.WriteString(w, "67890"); !errors.Is(err, http.ErrContentLength) {
			panic(err)
		}
	},
	"/header/late": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Before", "1")
		io.WriteString(w, "x")
		w.Header().Set("X-After", "1")
		w.Header().Set("X-Before", "2")
	},
	"/header/odd": func(w http.ResponseWriter, r *http.Request) {
		w.Header()["X-Many"] = []string{"a", "b", " c "}
		w.Header().Set("X-Break", "one\r\nX-Injected: two")
		w.Header()["bad name"] = []string{"x"}
		w.Header()["x-lower"] = []string{"kept"}
		w.Header().Set("X-Empty", "")
		w.Header().Set("X-Utf8", "grün")
	},
	"/header/cookies": func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "1"})
		http.SetCookie(w, &http.Cookie{Name: "b", Value: "2", Path: "/", Secure: true})
	},
	"/superfluous": func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "x")
	},
	"/flush": func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "one,")
		w.(http.Flusher).Flush()
		io.WriteString(w, "two")
	},
	"/flush/first": func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).Flush(); err != nil {
			panic(err)
		}
		io.WriteString(w, "<!DOCTYPE html>")
	},
	"/controller": func(w http.ResponseWriter, r *http.Request) {
		_, isWriter := w.(io.StringWriter)
		fmt.Fprint(w, isWriter, http.NewResponseController(w).Flush())
	},
	"/early": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("X-Final", "1")
		io.WriteString(w, "done")
	},
	"/error":    func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusForbidden) },
	"/redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "../there?x=1", http.StatusFound) },
	"/content": func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "a.txt", time.Unix(1e9, 0), strings.NewReader(strings.Repeat("content ", 1000)))
	},
	"/timeout": http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}), 20*time.Millisecond, "too slow").ServeHTTP,
	"/goroutines": func(w http.ResponseWriter, r *http.Request) {
		before := make(chan string) // each passes on what came before it: the order is not the clock's
		first := before
		for i := range 5 {
			in, out := before, make(chan string)
			go func() {
				time.Sleep(time.Duration(5-i) * time.Millisecond)
				out <- <-in + strconv.Itoa(i)
			}()
			before = out
		}
		first <- ""
		io.WriteString(w, <-before)
	},
	"/panic":       func(w http.ResponseWriter, r *http.Request) { panic("a bug") },
	"/panic/late":  func(w http.ResponseWriter, r *http.Request) { flushed(w, "some"); panic("a late bug") },
	"/panic/abort": func(w http.ResponseWriter, r *http.Request) { flushed(w, "some"); panic(http.ErrAbortHandler) },
	"/short": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "9")
		flushed(w, "some")
	},
}

func flushed(w http.ResponseWriter, s string) {
	io.WriteString(w, s)
	w.(http.Flusher).Flush()
}
