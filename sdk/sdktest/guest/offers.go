package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

// store is a package variable on purpose: its handle must not outlive a request.
var store = edge.KV("store")

// offers use what the edge has beyond HTTP.
var offers = map[string]http.HandlerFunc{
	"/info": func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"info": edge.Info(r.Context()), "remote": r.RemoteAddr, "tls": r.TLS, "warmed": warmed})
	},
	"/variable": func(w http.ResponseWriter, r *http.Request) {
		_, ok := edge.LookupVar("MISSING")
		fmt.Fprint(w, edge.Var("GREETING"), " ", ok)
	},
	"/log": func(w http.ResponseWriter, r *http.Request) {
		edge.LogLevel.Set(slog.LevelDebug)
		slog.Debug("a detail")
		slog.Info("an event", "user", 7, "level", "gold")
		slog.With("a", 1).WithGroup("g").Warn("a warning", "b", "two words")
		slog.Error("a failure", "error", io.ErrUnexpectedEOF)
		log.Printf("from package %s", "log")
		fmt.Println("on stdout")
		fmt.Fprintln(os.Stderr, "on stderr")
	},
	"/hijack": func(w http.ResponseWriter, r *http.Request) {
		_, _, err := http.NewResponseController(w).Hijack()
		fmt.Fprint(w, errors.Is(err, http.ErrNotSupported))
	},
	"/random": draws,

	"GET /kv/{key}":    kvGet,
	"PUT /kv/{key}":    kvPut,
	"DELETE /kv/{key}": kvDelete,
	"GET /kv":          kvList,
	"GET /kv-many":     kvMany,
	"GET /kv-more":     kvMore,
	"/unbound": func(w http.ResponseWriter, r *http.Request) {
		_, err := edge.KV("other").Get(r.Context(), "k")
		kvFail(w, err)
	},

	"/fetch/beside":   fetchBeside,
	"/fetch/deadline": fetchDeadline,
	"/fetch/trailer":  fetchTrailer,
	"/fetch/trickle":  fetchTrickle,
	"/fetch/aside":    fetchAside,

	"/fetch":       fetch,
	"/fetch/many":  fetchMany,
	"/fetch/proxy": fetchProxy,
}

func kvGet(w http.ResponseWriter, r *http.Request) {
	e, err := store.GetEntry(r.Context(), r.PathValue("key"))
	if err != nil {
		kvFail(w, err)
		return
	}
	w.Header().Set("X-Revision", fmt.Sprint(e.Revision))
	w.Header().Set("X-Expires", fmt.Sprint(!e.Expires.IsZero() && time.Until(e.Expires) < time.Hour))
	w.Write(e.Value)
}

func kvPut(w http.ResponseWriter, r *http.Request) {
	var opts []edge.WriteOption
	if d, err := time.ParseDuration(r.URL.Query().Get("ttl")); err == nil {
		opts = append(opts, edge.TTL(d))
	}
	opts = append(opts, condition(r)...)
	value, _ := io.ReadAll(r.Body)
	revision, err := store.Put(r.Context(), r.PathValue("key"), value, opts...)
	if err != nil {
		kvFail(w, err)
		return
	}
	fmt.Fprint(w, revision)
}

func kvDelete(w http.ResponseWriter, r *http.Request) {
	revision, err := store.Delete(r.Context(), r.PathValue("key"), condition(r)...)
	if err != nil {
		kvFail(w, err)
		return
	}
	fmt.Fprint(w, revision > 0)
}

func condition(r *http.Request) []edge.WriteOption {
	switch s := r.URL.Query().Get("if"); s {
	case "":
		return nil
	case "absent":
		return []edge.WriteOption{edge.IfAbsent()}
	default:
		var n uint64
		fmt.Sscan(s, &n)
		return []edge.WriteOption{edge.IfRevision(n)}
	}
}

func kvList(w http.ResponseWriter, r *http.Request) {
	var size int
	if _, err := fmt.Sscan(r.URL.Query().Get("page"), &size); err == nil {
		kvPages(w, r, size)
		return
	}
	for k, err := range store.List(r.Context(), r.URL.Query().Get("prefix")) {
		if err != nil {
			kvFail(w, err)
			return
		}
		fmt.Fprintln(w, k.Key)
	}
}

// kvMore says what each of the calls beyond get, put, delete and list answers.
func kvMore(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	say := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	rev, err := store.Put(ctx, "m", []byte("v"), edge.WithMetadata([]byte("about")), edge.IfAbsent())
	say("put %v", err)
	e, err := store.GetEntry(ctx, "m")
	say("entry %s %s %v %v %v", e.Value, e.Metadata, e.Revision == rev, e.Staleness, err)
	e, err = store.GetEntry(ctx, "m", edge.Strong(), edge.AtLeast(rev))
	say("strong %s %v %v", e.Value, e.Staleness, err)
	value, err := store.Get(ctx, "m", edge.AtLeast(rev))
	say("at least %s %v", value, err)
	_, err = store.Get(ctx, "m", edge.AtLeast(rev+1000))
	say("a future %v", errors.Is(err, edge.ErrInvalid))
	_, err = store.Put(ctx, "m", nil, edge.WithMetadata(make([]byte, 1025)))
	say("long metadata %v", errors.Is(err, edge.ErrTooLarge))
	for range 2 {
		n, err := store.Increment(ctx, "n", -21)
		say("sum %d %v", n, err)
	}
	_, err = store.Increment(ctx, "m", 1)
	say("no number %v", errors.Is(err, edge.ErrInvalid))
	store.Put(ctx, "large", bytes.Repeat([]byte("x"), 300_000))
	many, err := store.GetMany(ctx, []string{"n", "none", "m", "large"})
	say("many %d %s %s %d %v", len(many), many["n"].Value, many["m"].Metadata, len(many["large"].Value), err)
	_, err = store.GetMany(ctx, make([]string, 101))
	say("too many %v", errors.Is(err, edge.ErrInvalid))
	for k, err := range store.List(ctx, "m") {
		say("key %s %s %v", k.Key, k.Metadata, err)
	}
}

func kvFail(w http.ResponseWriter, err error) {
	var status edge.Status
	errors.As(err, &status)
	w.Header().Set("X-Status", fmt.Sprint(int32(status)))
	http.Error(w, fmt.Sprint(err), http.StatusConflict)
}

func fetch(w http.ResponseWriter, r *http.Request) {
	resp, err := http.Get(r.URL.Query().Get("url"))
	if err != nil {
		kvFail(w, err)
		return
	}
	defer resp.Body.Close()
	w.Header().Set("X-Origin", resp.Header.Get("X-Origin"))
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}

// fetchMany makes several requests at once.
func fetchMany(w http.ResponseWriter, r *http.Request) {
	var group sync.WaitGroup
	var mu sync.Mutex
	begin := time.Now()
	for _, u := range r.URL.Query()["url"] {
		group.Go(func() {
			resp, err := http.Get(u)
			if err == nil {
				resp.Body.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintln(w, err)
		})
	}
	group.Wait()
	fmt.Fprintln(w, time.Since(begin).Milliseconds())
}

// fetchProxy passes the request on and the answer back, both streaming.
func fetchProxy(w http.ResponseWriter, r *http.Request) {
	out, err := http.NewRequestWithContext(r.Context(), r.Method, r.URL.Query().Get("url"), r.Body)
	if err != nil {
		kvFail(w, err)
		return
	}
	out.ContentLength = r.ContentLength
	for name, values := range r.Header {
		if strings.HasPrefix(name, "X-") {
			out.Header[name] = values
		}
	}
	resp, err := edge.Fetch(out)
	if err != nil {
		kvFail(w, err)
		return
	}
	defer resp.Body.Close()
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}

// kvPages lists page by page, with cursors.
func kvPages(w http.ResponseWriter, r *http.Request, size int) {
	for cursor := ""; ; {
		page, err := store.ListPage(r.Context(), r.URL.Query().Get("prefix"), cursor, size)
		if err != nil || len(page.Keys) > size {
			kvFail(w, err)
			return
		}
		for _, k := range page.Keys {
			fmt.Fprintln(w, k.Key)
		}
		if cursor = page.Cursor; cursor == "" {
			return
		}
	}
}
