package edge

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/http"
)

// rehearsal is an exchange with nobody: its request has a short body, what is
// answered goes nowhere.
type rehearsal struct{ body *string }

func newRehearsal() rehearsal {
	body := `{"ok":true}`
	return rehearsal{&body}
}

func (x rehearsal) readBody(p []byte) (int, error) {
	n := copy(p, *x.body)
	if *x.body = (*x.body)[n:]; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (rehearsal) writeHead(int, []byte) error { return nil }
func (rehearsal) writeBody([]byte) error      { return nil }
func (rehearsal) flush() error                { return nil }
func (rehearsal) writeTrailers([]byte) error  { return nil }
func (rehearsal) abort()                      {}

func (rehearsal) readTrailers() (string, error) { return "\x00\x00\x00\x00", nil }

// rehearsalHandler does what most handlers do, with a logger that nobody hears.
func rehearsalHandler() http.Handler {
	log := slog.New(newLogHandler(func(int32, string) {}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		log.Info("rehearsal", "path", r.URL.Path, "client", Info(r.Context()).Client, "status", http.StatusOK)
		fmt.Fprintf(w, "hello from %s: %d %v\n", r.Host, http.StatusOK, r.RemoteAddr)
	})
	mux.HandleFunc("POST /rehearsal/{name}", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Request-Id", Info(r.Context()).RequestID)
		w.Header().Set("Cache-Control", r.URL.Query().Get("cache"))
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(body)
		_, _ = io.WriteString(w, r.PathValue("name"))
	})
	return mux
}

// The rehearsals' requests: heads as a browser's make them.
func rehearsalHeads() []string {
	return []string{rehearsalHead("GET", "/", 0), rehearsalHead("POST", "/rehearsal/short?cache=no-store", 11)}
}

func rehearsalHead(method, target string, body uint64) string {
	var metadata, headers pairList
	for _, name := range []string{metaRequestID, metaPoP, metaNode, metaRegion, metaProject, metaFunction, metaVersion} {
		metadata.add(name, "rehearsal")
	}
	metadata.add(metaClient, "192.0.2.1:443")
	for _, name := range []string{"Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "Cookie", "User-Agent", "X-Forwarded-For"} {
		headers.add(name, "rehearsal")
	}
	var flags uint32
	if body > 0 {
		flags = flagBody
	}
	head := binary.LittleEndian.AppendUint64(appendU32(nil, flags), body)
	for _, s := range []string{method, "https", "rehearsal.invalid", target, "HTTP/2.0"} {
		head = appendString(head, s)
	}
	return string(append(append(head, metadata.bytes()...), headers.bytes()...))
}
