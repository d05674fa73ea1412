package sdktest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/tooltest"
)

// TestSnapshotChangesNoAnswer asks each guest the same with start-up run ahead
// and with start-up in each request, twice over.
func TestSnapshotChangesNoAnswer(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, `<a href="http://%s/next">%s %s %d</a>`, r.Host, r.Method, r.URL, n)
	}))
	defer origin.Close()
	b := bindings
	b.Backends = []function.Backend{{Name: "origin", URL: origin.URL, Private: true}}
	b.Variables = map[string]string{"ORIGIN": origin.URL, "GREETING": "hello"}
	plain := []exchange{{target: "/"}, {target: "/a/b?c=d"}, {target: "/", method: "POST", body: "some"}}
	wat := func(body string) func(testing.TB) string {
		return func(t testing.TB) string { return written(t, guesttest.Guest(t, body)) }
	}
	for _, g := range []struct {
		name      string
		wasm      func(testing.TB) string
		exchanges []exchange
	}{
		{"hello", buildExample("hello"), []exchange{{target: "/"}, {target: "/json"}, {target: "/missing"}, {target: "/json", method: "HEAD"}}},
		{"redirects", buildExample("redirects"), []exchange{
			{target: "/s/docs"}, {target: "/s/docs", method: "POST", body: "https://example.org/docs\n"},
			{target: "/s/docs", method: "POST", body: "https://example.org/docs\n"}, {target: "/s/docs"},
			{target: "/s/other", method: "POST", body: "no url"}, {target: "/ab/none"},
		}},
		{"proxy", buildExample("proxy"), []exchange{
			{target: "/"}, {target: "/a?b=c", method: "POST", body: strings.Repeat("body ", 10000)}, {target: "/", method: "HEAD"},
		}},
		{"httpbin", buildExample("httpbin"), binExchanges},
		{"net/http", func(t testing.TB) string { return build(t, "guest") }, exchanges},
		{"net/http without the SDK", func(t testing.TB) string { return written(t, guesttest.GoGuest(t, guesttest.Source(t, "raw"))) }, []exchange{
			{target: "/hello?name=you"}, {target: "/echo", method: "POST", body: strings.Repeat("echo ", 20000)}, {target: "/sleep"}, {target: "/files"},
			{target: "/log"}, {target: "/panic"}, {target: "/exit"}, {target: "/recurse"}, {target: "/nothing"}, {target: "/missing"},
		}},
		{"C", func(t testing.TB) string { return buildC(t, "../../bench/peers/testdata/c/hello.c") }, plain},
		{"C with a constructor", func(t testing.TB) string { return buildC(t, "testdata/constructor.c") }, plain},
		{"by hand, without start-up", wat(`(data (i32.const 16) "hello") (func (export "handle") (drop (call $response_write (i32.const 16) (i32.const 5))))`), plain},
		{"by hand, all kinds of start-up", wat(`(data (i32.const 16) "hello") (global $a (mut i32) (i32.const 3)) (global $b (mut f64) (f64.const 0.5))
			(table 2 funcref) (elem (i32.const 0) $one $two) (type $t (func (result i32)))
			(func $one (type $t) (i32.const 1)) (func $two (type $t) (i32.const 2))
			(start $s) (func $s (global.set $a (i32.add (global.get $a) (call_indirect (type $t) (i32.const 1)))))
			(func (export "_initialize") (i32.store8 (i32.const 16) (i32.add (i32.const 64) (global.get $a))) (drop (memory.grow (i32.const 2))))
			(func (export "selvage_start") (global.set $b (f64.mul (global.get $b) (f64.const 3))) (f64.store (i32.const 200000) (global.get $b)))
			(func (export "handle") (global.set $a (i32.add (global.get $a) (i32.const 1)))
				(i32.store (i32.const 21) (i32.add (global.get $a) (i32.const 48))) (i32.store (i32.const 22) (memory.size))
				(drop (call $response_write (i32.const 16) (i32.const 16))) (drop (call $response_write (i32.const 200000) (i32.const 8))))`), plain},
		{"by hand, failing", wat(`(global $n (mut i32) (i32.const 0)) (func (export "_initialize") (global.set $n (i32.const 1)))
			(func (export "handle") (if (global.get $n) (then unreachable)))`), plain},
	} {
		t.Run(g.name, func(t *testing.T) {
			wasm := g.wasm(t)
			var urls [2]string
			for i, snapshot := range []bool{false, true} {
				s := httptest.NewServer(newHostOf(t, wasm, snapshot, b))
				t.Cleanup(s.Close)
				urls[i] = s.URL
			}
			for range 2 {
				for _, x := range g.exchanges {
					without, with := ask(t, urls[0], x), ask(t, urls[1], x)
					if masked(without.rest) != masked(with.rest) || masked(without.body) != masked(with.body) || len(without.rest) == 0 {
						t.Errorf("%s %s: without a snapshot\n%s%.2000s\nwith one\n%s%.2000s", x.method, x.target, without.rest, without.body, with.rest, with.body)
					}
				}
			}
		})
	}
}

func buildExample(name string) func(testing.TB) string {
	return func(t testing.TB) string { return exampleModule(t, name) }
}

// written puts a module into a file.
func written(t testing.TB, module []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "guest.wasm")
	if err := os.WriteFile(file, module, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// buildC compiles a guest with Debian's clang for WebAssembly, if it is there.
func buildC(t testing.TB, source string) string {
	t.Helper()
	clang := tooltest.Path(t, "clang-19", "clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32")
	file := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.Command(clang, "--target=wasm32-wasi", "--sysroot=/usr", "-O2", "-mexec-model=reactor", "-Wl,--strip-all", source, "-o", file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}
