package edge

import (
	"io"
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
func (rehearsal) abort()                      {}

// echo is the rehearsal's handler: what most handlers do, once.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Request-Id", Info(r.Context()).RequestID)
	w.Header().Set("Cache-Control", r.URL.Query().Get("cache"))
	_, _ = w.Write(body)
	_, _ = io.WriteString(w, r.Header.Get("Accept"))
}

// rehearsalHead is a request head as a browser's request makes one.
func rehearsalHead() string {
	var metadata, headers pairList
	for _, name := range []string{metaRequestID, metaPoP, metaNode, metaRegion, metaProject, metaFunction, metaVersion} {
		metadata.add(name, "rehearsal")
	}
	metadata.add(metaClient, "192.0.2.1:443")
	for _, name := range []string{"Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "Cookie", "User-Agent", "X-Forwarded-For"} {
		headers.add(name, "rehearsal")
	}
	head := appendU32(nil, flagBody)
	head = append(appendU32(head, 11), 0, 0, 0, 0)
	for _, s := range []string{"POST", "https", "rehearsal.invalid", "/rehearsal?cache=no-store", "HTTP/2.0"} {
		head = appendString(head, s)
	}
	return string(append(append(head, metadata.bytes()...), headers.bytes()...))
}
