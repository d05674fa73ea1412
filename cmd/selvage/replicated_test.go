package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/up"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// reader answers with what the namespace words has: of a key, of some, or the keys with a prefix.
const reader = `package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

var words = edge.KV("words")

func main() {
	edge.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		switch {
		case q.Has("list"):
			for k, err := range words.List(r.Context(), q.Get("list")) {
				if err != nil {
					fail(w, err)
					return
				}
				fmt.Fprintf(w, "%s ", k.Key)
			}
		case q.Has("many"):
			got, err := words.GetMany(r.Context(), q["many"])
			if err != nil {
				fail(w, err)
				return
			}
			fmt.Fprintf(w, "%d", len(got))
		case q.Has("put"):
			if _, err := words.Put(r.Context(), q.Get("put"), []byte("by the function")); err != nil {
				fail(w, err)
			}
		default:
			v, err := words.Get(r.Context(), q.Get("key"))
			if err != nil {
				fail(w, err)
				return
			}
			w.Write(v)
		}
	}))
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	if errors.Is(err, edge.ErrNotFound) {
		status = http.StatusNotFound
	}
	w.WriteHeader(status)
	io.WriteString(w, err.Error())
}
`

// sdkGuest builds a program that imports the Go SDK of this tree.
func sdkGuest(t *testing.T, program string) []byte {
	t.Helper()
	sdk, err := filepath.Abs("../../sdk/go")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	mod := fmt.Sprintf("module guest\n\ngo 1.26\n\nrequire github.com/selvage-edge/selvage/sdk/go v0.0.0\n\nreplace github.com/selvage-edge/selvage/sdk/go => %s\n", sdk)
	for name, text := range map[string]string{"go.mod": mod, "main.go": program} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return guesttest.GoGuest(t, dir)
}

// asked is what the function words answers with.
func (w *world) asked(t *testing.T, n up.Node, query string, status int, body string) {
	t.Helper()
	if s, got := w.getFrom(t, n, request.HTTP2, "reader", "/?"+query); s != status || status == 200 && got != body {
		t.Errorf("%s, asked for %s, answers %d %.200q; want %d %q", n.Name, query, s, got, status, body)
	}
}

// A namespace made replicated is on the node's disk: with control killed, its own server
// killed too, and then upgraded, the node answers gets, listings, and what is not there from
// its copy. What is written when control is back reaches it.
func TestReplicatedNamespaceOutlivesControl(t *testing.T) {
	w := openWorldOf(t, "127.0.14.70", 2)
	first, second := w.Layout.Edges[0], w.Layout.Edges[1]
	w.selvage(t, "kv", "create", "words", "--mode", "mirrored").expect(t, exitUsage, "--mode mirrored", "replicated")
	w.selvage(t, "kv", "create", "words", "--mode", "replicated").expect(t, exitOK, "mode replicated")
	w.selvage(t, "kv", "create", "words").expect(t, exitOK, "mode replicated")
	var lines strings.Builder
	for i := range 300 {
		fmt.Fprintf(&lines, "{\"key\":\"key-%03d\",\"value\":\"value %d\"}\n", i, i)
	}
	file := filepath.Join(t.TempDir(), "words.ndjson")
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	w.selvage(t, "kv", "import", "words", file).expect(t, exitOK)
	w.selvage(t, "deploy", "--wait", w.function(t, "reader", sdkGuest(t, reader), "[[kv]]", `name = "words"`, `access = "write"`)).expect(t, exitOK, "live")
	for _, n := range w.Layout.Edges {
		eventually(t, n.Name+" has the whole namespace", func() bool { return metric(n, "selvage_replica_copies") == 1 })
	}
	w.selvage(t, "kv", "ls").expect(t, exitOK, "words", "replicated")
	w.asked(t, first, "put=own", 200, "")
	w.asked(t, first, "key=own", 200, "by the function")
	eventually(t, "the other PoP sees it", func() bool {
		status, got := w.getFrom(t, second, request.HTTP2, "reader", "/?key=own")
		return status == 200 && got == "by the function"
	})
	w.asked(t, first, "key=key-007", 200, "value 7")
	misses := metric(first, "selvage_kv_misses_total")
	w.asked(t, first, "key=key-008", 200, "value 8")
	w.asked(t, first, "key=absent", 404, "")
	if now := metric(first, "selvage_kv_misses_total"); now != misses || metric(first, "selvage_kv_replica_hits_total") == 0 {
		t.Errorf("%v reads asked control or another node, %v were answered from the copy", now-misses, metric(first, "selvage_kv_replica_hits_total"))
	}

	kill9(t, w.Control.PID())
	<-w.Control.Done()
	was := w.newest(t)
	kill9(t, was)
	eventually(t, "another server serves", func() bool { return w.newest(t) != was && metric(first, "selvage_replica_copies") == 1 })
	w.asked(t, first, "key=key-123", 200, "value 123")
	w.asked(t, first, "key=own", 200, "by the function")
	w.asked(t, first, "key=never", 404, "")
	w.asked(t, first, "list=key-29", 200, "key-290 key-291 key-292 key-293 key-294 key-295 key-296 key-297 key-298 key-299 ")
	w.asked(t, first, "many=key-001&many=key-002&many=never", 200, "2")
	was = w.onlyServer(t, first)
	if err := syscall.Kill(w.Edges[first.Name].PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an upgraded server has the copy", func() bool { return w.onlyServer(t, first) != was && metric(first, "selvage_replica_copies") == 1 })
	w.asked(t, first, "key=key-124", 200, "value 124")
	w.asked(t, first, "put=key-123", 503, "")
	w.asked(t, first, "key=key-123", 200, "value 123") // whether the write has happened cannot be told; what was before is

	w.restartControl(t)
	kv := w.truth(t, "words")
	eventually(t, "a put is acknowledged", func() bool {
		a, err := kv.put(t.Context(), "key-000", []byte("after"), nil, hostcall.AnyRevision)
		return err == nil && a.came == done
	})
	for _, n := range w.Layout.Edges {
		eventually(t, n.Name+" sees what was written after", func() bool {
			_, got := w.getFrom(t, n, request.HTTP2, "reader", "/?key=key-000")
			return got == "after"
		})
	}
	w.selvage(t, "kv", "create", "words", "--mode", "cached").expect(t, exitOK, "mode cached")
	eventually(t, "the copies are dropped", func() bool { return metric(first, "selvage_replica_bytes") == 0 })
	w.asked(t, first, "key=key-200", 200, "value 200")
}
