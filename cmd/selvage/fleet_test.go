package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/target"
	"github.com/selvage-edge/selvage/cmd/selvage/up"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

// world is a fleet of one PoP, as processes, and a folder to make functions in.
type world struct {
	*up.Fleet
	dir string
	env []string
}

// openWorld boots the fleet on addresses of the test's own.
func openWorld(t *testing.T, base string) *world {
	t.Helper()
	return openWorldOf(t, base, 1)
}

// openWorldOf boots a fleet of some nodes; change may alter its plan before.
func openWorldOf(t *testing.T, base string, nodes int, change ...func(*up.Layout)) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a fleet of processes")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	layout, err := up.Plan(up.Options{Dir: t.TempDir(), PoPs: nodes, Base: netip.MustParseAddr(base), Port: 8443})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(&layout)
	}
	w := &world{Fleet: &up.Fleet{Layout: layout, Selvage: exe}, dir: t.TempDir(), env: []string{"SELVAGE_TARGET=" + layout.Target}}
	t.Cleanup(w.Stop)
	t.Cleanup(func() { w.showLogs(t) })
	if err := w.Boot(t.Context(), func(string, ...any) {}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) showLogs(t *testing.T) {
	if !t.Failed() {
		return
	}
	for _, n := range append([]up.Node{w.Layout.Control}, w.Layout.Edges...) {
		if text, err := os.ReadFile(n.Log); err == nil {
			t.Logf("%s:\n%s", n.Name, text[max(0, len(text)-4000):])
		}
	}
}

// function writes a function's folder: its module as it is, and a manifest with more lines.
func (w *world) function(t *testing.T, name string, module []byte, more ...string) string {
	t.Helper()
	dir := filepath.Join(w.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	manifest := fmt.Sprintf("name = %q\nroutes = [\"%s.edge.localhost/*\"]\n%s\n", name, name, strings.Join(more, "\n"))
	for file, text := range map[string][]byte{"selvage.toml": []byte(manifest), name + ".wasm": module} {
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (w *world) selvage(t *testing.T, args ...string) result {
	t.Helper()
	return selvage(t, w.env, args...)
}

// get asks the first PoP and returns status and body; 0 when the answer broke off or none came.
func (w *world) get(t *testing.T, v request.Version, name, path string) (status int, body string) {
	t.Helper()
	return w.getFrom(t, w.Layout.Edges[0], v, name, path)
}

func (w *world) getFrom(t *testing.T, n up.Node, v request.Version, name, path string) (status int, body string) {
	t.Helper()
	c, err := request.New(request.Config{Version: v, Connect: n.Public, CAFile: w.EdgeCA})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://%s.edge.localhost:8443%s", name, path), nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return 0, err.Error()
	}
	return a.Status, string(text)
}

const greet = `(data (i32.const 64) "woven\n")
(func (export "handle") (drop (call $response_write (i32.const 64) (i32.const 6))))`

// What a developer may get wrong on the way to a PoP: each a clear error and
// its exit code, and what was live before stays live.
func TestBadDeploys(t *testing.T) {
	w := openWorld(t, "127.0.0.50")
	good := w.function(t, "good", guesttest.Guest(t, greet))
	w.selvage(t, "deploy", "--wait", good).expect(t, exitOK, "live", "preparing good on the control node", "live on 1 of 1 nodes",
		"  https://good.edge.localhost:8443/\n", "selvage request --pop lon https://good.edge.localhost:8443/\n")
	if r := w.selvage(t, "deploy", "--wait", "--json", good); r.code != exitOK || r.errout != "" || !strings.Contains(r.out, `"https://good.edge.localhost:8443/"`) {
		t.Errorf("with --json: %+v", r)
	}

	component := append([]byte("\x00asm\x0d\x00\x01\x00"), make([]byte, 16)...)
	for _, c := range []struct {
		name string
		make func(dir string)
		said []string
	}{
		{"not-wasm", put("good.wasm", []byte("#!/bin/sh\necho hello\n")), []string{"not", "WebAssembly"}},
		{"component", put("good.wasm", component), []string{"component"}},
		{"unknown-import", put("good.wasm", guesttest.Module(t, `(module (import "env" "gettimeofday" (func)) (memory (export "memory") 1) (func (export "handle")))`)), []string{"env", "gettimeofday"}},
		{"no-handle", put("good.wasm", guesttest.Module(t, `(module (memory (export "memory") 1))`)), []string{"handle"}},
		{"no-memory", put("good.wasm", guesttest.Module(t, `(module (func (export "handle")))`)), []string{"memory"}},
		{"start-up traps", put("good.wasm", guesttest.Guest(t, `(func (export "selvage_start") unreachable) (func (export "handle"))`)), []string{"start-up failed", "unreachable"}},
		{"threads", put("good.wasm", guesttest.Module(t, `(module (memory (export "memory") 1 1 shared) (func (export "handle")))`)), []string{"shared"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := w.function(t, "good", guesttest.Guest(t, greet))
			c.make(dir)
			w.selvage(t, "deploy", "--wait", dir).expect(t, exitRefused, c.said...)
		})
	}
	t.Run("manifest", func(t *testing.T) {
		dir := w.function(t, "good", guesttest.Guest(t, greet), "color = 3", "[limits]", `cpu = "1h"`)
		w.selvage(t, "deploy", dir).expect(t, exitFailed, "selvage.toml:3:", "color", "selvage.toml:5:", "limits.cpu", "ceiling")
	})
	t.Run("route with a scheme", func(t *testing.T) {
		dir := w.function(t, "good", guesttest.Guest(t, greet))
		put("selvage.toml", []byte("name = \"good\"\nroutes = [\"https://good.edge.localhost/*\"]\n"))(dir)
		w.selvage(t, "deploy", dir).expect(t, exitFailed, "selvage.toml:2:", "scheme")
	})
	t.Run("kv", func(t *testing.T) {
		w.selvage(t, "kv", "put", "none", "k", "v").expect(t, exitRefused, "selvage kv create none")
		w.selvage(t, "kv", "create", "some").expect(t, exitOK)
		w.selvage(t, "kv", "put", "some", "k", "v", "--ttl=-3s").expect(t, exitUsage, "--ttl")
		w.selvage(t, "kv", "put", "some", "k", "v", "--if-absent").expect(t, exitOK)
		w.selvage(t, "kv", "put", "some", "k", "w", "--if-absent").expect(t, exitRefused, "revision")
		w.selvage(t, "kv", "rm", "some", "none").expect(t, exitRefused, `no key "none"`, "--if-exists")
		w.selvage(t, "kv", "rm", "some", "none", "--if-exists").expect(t, exitOK, "no such key")
		w.selvage(t, "kv", "frob").expect(t, exitUsage, "frob")
		if got := w.selvage(t, "kv", "get", "some", "k"); got.out != "v" {
			t.Errorf("got %q", got.out)
		}
	})
	t.Run("up again", func(t *testing.T) {
		second := &up.Fleet{Layout: w.Layout, Selvage: w.Selvage}
		if err := second.Boot(t.Context(), func(string, ...any) {}); err == nil || !strings.Contains(err.Error(), "another 'selvage up'") {
			t.Errorf("in the same folder: %v", err)
		}
		layout, err := up.Plan(up.Options{Dir: t.TempDir(), PoPs: 1, Base: w.Base, Port: 8443})
		if err != nil {
			t.Fatal(err)
		}
		elsewhere := &up.Fleet{Layout: layout, Selvage: w.Selvage}
		if err := elsewhere.Boot(t.Context(), func(string, ...any) {}); err == nil || !strings.Contains(err.Error(), "--base") {
			t.Errorf("on the same addresses: %v", err)
		}
	})
	t.Run("route of another", func(t *testing.T) {
		dir := w.function(t, "thief", guesttest.Guest(t, greet))
		put("selvage.toml", []byte("name = \"thief\"\nroutes = [\"good.edge.localhost/*\"]\n"))(dir)
		w.selvage(t, "deploy", dir).expect(t, exitRefused, "good.edge.localhost/*", "default/good")
	})
	t.Run("bad token", func(t *testing.T) {
		selvage(t, append(w.env, "SELVAGE_TOKEN=slv_no"), "status").expect(t, exitRefused, "token")
	})
	t.Run("wrong publisher", func(t *testing.T) { w.wrongPublisher(t, w.function(t, "good", guesttest.Guest(t, greet))) })
	t.Run("wrong root", func(t *testing.T) {
		tg := w.target(t)
		tg.Root = "sha256:" + strings.Repeat("ab", 32)
		selvage(t, w.saved(t, tg), "status").expect(t, exitReach, "root")
	})
	if status, body := w.get(t, request.HTTP2, "good", "/"); status != 200 || body != "woven\n" {
		t.Errorf("what was live answers %d %q", status, body)
	}
	var s struct {
		Functions []struct {
			Release struct {
				Function string
				Number   int
			}
		}
	}
	if err := json.Unmarshal([]byte(w.selvage(t, "status", "--json").out), &s); err != nil || len(s.Functions) != 1 || s.Functions[0].Release.Number != 1 {
		t.Errorf("after all of it: %+v, %v", s, err)
	}
}

func put(name string, text []byte) func(dir string) {
	return func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			panic(err)
		}
	}
}

func (w *world) target(t *testing.T) target.Target {
	t.Helper()
	tg, err := target.Load(w.Target)
	if err != nil {
		t.Fatal(err)
	}
	return tg
}

// saved returns the environment that finds tg.
func (w *world) saved(t *testing.T, tg target.Target) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "target.toml")
	if err := tg.Save(path); err != nil {
		t.Fatal(err)
	}
	return []string{"SELVAGE_TARGET=" + path}
}

// wrongPublisher deploys with a publisher key of another fleet.
func (w *world) wrongPublisher(t *testing.T, dir string) {
	other := filepath.Join(t.TempDir(), "other.toml")
	text := fmt.Sprintf("[control]\nstate = %q\n[listen]\napi = \"127.0.0.1:1\"\npeer = \"127.0.0.1:2\"\ngossip = \"127.0.0.1:3\"\n", t.TempDir())
	if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	made := selvage(t, nil, "control", "init", "--config", other, "--no-passphrase", "--json")
	made.expect(t, exitOK)
	var v struct {
		PublisherKey string `json:"publisher_key"`
	}
	if err := json.Unmarshal([]byte(made.out), &v); err != nil {
		t.Fatal(err)
	}
	tg := w.target(t)
	tg.Publisher = v.PublisherKey
	selvage(t, w.saved(t, tg), "deploy", dir).expect(t, exitRefused, "publisher key")
}

// What a guest may do wrong while it runs: the client sees the right status,
// the log names the fault and the limit, the node serves on.
func TestHostileGuests(t *testing.T) {
	w := openWorld(t, "127.0.0.60")
	const stream = `(drop (call $response_write (i32.const 0) (i32.const 40000))) (drop (call $response_flush))`
	const answer = `(drop (call $response_write (i32.const 0) (i32.const 1)))`
	const fetch = `(data (i32.const 64) "\03\00\00\00GET\14\00\00\00http://nowhere.test/\00\00\00\00\00\00\00\00")
		(func $start (result i32) (call $fetch_start (i32.const 64) (i32.const 39)))`
	guests := []struct {
		name, body string
		limits     []string
		status     int // 0: the answer breaks off
		said       string
	}{
		{"loops", `(func (export "handle") (loop $l (br $l)))`, nil, 504, `"fault":"cpu"`},
		{"streams", `(func (export "handle") ` + stream + ` (loop $l (br $l)))`, nil, 0, `"fault":"cpu"`},
		{"sleeps", `(func (export "handle") (drop (call $sleep (i64.const 60000000000))))`, []string{"[limits]", `wall = "300ms"`}, 504, `"fault_knob":"limits.wall"`},
		{"floods", `(func (export "handle") (loop $l (drop (call $kv_open (i32.const 0) (i32.const 0))) (br $l)))`, []string{"[limits]", "host_calls = 1000", `cpu = "10s"`}, 500, `"fault_knob":"limits.host_calls"`},
		{"tables", `(table $t 1 funcref) (func $f) (elem (i32.const 0) $f) (func (export "handle")
			(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) (table.set $t (i32.const 200000) (ref.null func)))`, nil, 500, `"fault":"table"`},
		{"unbound", fetch + `(func (export "handle") (drop (call $fetch_head (call $start) (i32.const 0) (i32.const 0))) ` + answer + `)`, nil, 200, `"refused_calls":{"not-bound":1}`},
		{"asks-much", fetch + `(func (export "handle") (drop (call $fetch_close (call $start))) (drop (call $start)) ` + answer + `)`, []string{"[limits]", "subrequests = 1"}, 200, `"refused_calls":{"subrequests":1}`},
		{"talks-much", `(func (export "handle") (drop (call $log (i32.const 0) (i32.const 0) (i32.const 100000))) ` + answer + `)`, nil, 200, `"refused_calls":{"log":1}`},
		{"answers-twice", `(func (export "handle") (drop (call $response_head (i32.const 200) (i32.const 0) (i32.const 0))) (drop (call $response_head (i32.const 404) (i32.const 0) (i32.const 0))) ` + answer + `)`, nil, 200, `"refused_calls":{"second-head":1}`},
		{"grows", `(func (export "handle") (loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable)`, nil, 500, `"fault":"memory"`},
		{"recurses", `(func $f (export "handle") (call $f) (call $f))`, nil, 500, `"fault":"stack"`},
		{"traps", `(func (export "handle") unreachable)`, nil, 500, `"fault":"trap"`},
		{"exits", `(func (export "handle") (call $wasi_proc_exit (i32.const 3)))`, nil, 500, `"fault":"exit"`},
		{"lies", `(func (export "handle") (drop (call $response_write (i32.const -8) (i32.const 0x7fffffff))))`, nil, 500, `"fault":"pointer"`},
		{"silent", `(func (export "handle"))`, nil, 500, `"fault":"no-response"`},
		{"splits", `(data (i32.const 64) "\01\00\00\00\01\00\00\00a\04\00\00\00b\0d\0ac")
			(func (export "handle") (drop (call $response_head (i32.const 200) (i32.const 64) (i32.const 17))) (drop (call $response_write (i32.const 64) (i32.const 1))))`, nil, 500, `"fault":"bad-response"`},
	}
	good := w.function(t, "good", guesttest.Guest(t, greet))
	w.selvage(t, "deploy", "--wait", good).expect(t, exitOK, "live")
	for _, g := range guests {
		w.selvage(t, "deploy", "--wait", w.function(t, g.name, guesttest.Guest(t, g.body), g.limits...)).expect(t, exitOK, "live")
	}
	for _, g := range guests {
		for _, v := range []request.Version{request.HTTP1, request.HTTP2, request.HTTP3} {
			if status, body := w.get(t, v, g.name, "/"); status != g.status {
				t.Errorf("%s over h%s: status %d, want %d: %s", g.name, v, status, g.status, body)
			}
		}
	}
	if status, body := w.get(t, request.HTTP2, "good", "/"); status != 200 || body != "woven\n" {
		t.Errorf("the good function answers %d %q", status, body)
	}
	w.Edges[w.Layout.Edges[0].Name].Stop(30 * time.Second) // its log is complete then
	log, err := os.ReadFile(w.Layout.Edges[0].Log)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range guests {
		if !recorded(string(log), g.name, g.said) {
			t.Errorf("%s: %s is not in the log", g.name, g.said)
		}
	}
	if starts := strings.Count(string(log), `"msg":"server started"`); starts != 1 {
		t.Errorf("the server was started %d times: a guest killed it", starts)
	}
}

// recorded reports whether an access record of the function says it.
func recorded(log, function, said string) bool {
	for line := range strings.Lines(log) {
		if strings.Contains(line, `"function":"`+function+`"`) && strings.Contains(line, said) {
			return true
		}
	}
	return false
}
