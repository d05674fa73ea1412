package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

const greetAgain = `(data (i32.const 64) "again\n")
(func (export "handle") (drop (call $response_write (i32.const 64) (i32.const 6))))`

// What those who run a fleet do with it, on one that runs.
func TestOperations(t *testing.T) {
	w := openWorld(t, "127.0.0.130")
	dir := w.function(t, "good", guesttest.Guest(t, greet))
	w.selvage(t, "deploy", "--wait", dir).expect(t, exitOK, "live")
	t.Run("rollback", func(t *testing.T) { w.rollBack(t) })
	t.Run("logs", func(t *testing.T) { w.logs(t) })
	t.Run("announce", func(t *testing.T) { w.announces(t) })
	t.Run("drain", func(t *testing.T) { w.drain(t) })
	t.Run("doctor", func(t *testing.T) { w.doctor(t) })
	t.Run("support", func(t *testing.T) { w.support(t) })
	t.Run("traces", func(t *testing.T) { w.traces(t) })
	t.Run("metrics", func(t *testing.T) { w.metricTables(t) })
	t.Run("token", func(t *testing.T) { w.tokens(t) })
}

func (w *world) rollBack(t *testing.T) {
	w.selvage(t, "rollback", "none").expect(t, exitRefused, "never was")
	w.nothingThere(t)
	w.selvage(t, "rollback", "good").expect(t, exitRefused, "no release before", "selvage versions good")
	w.selvage(t, "deploy", "--wait", w.function(t, "good", guesttest.Guest(t, greetAgain))).expect(t, exitOK, "live")
	if status, body := w.get(t, request.HTTP2, "good", "/"); status != 200 || body != "again\n" {
		t.Fatalf("deployed: %d %q", status, body)
	}
	w.selvage(t, "rollback", "--wait", "good").expect(t, exitOK, "back from release 2 to release 1, which is live again as release 3", "live", "cached")
	if status, body := w.get(t, request.HTTP2, "good", "/"); status != 200 || body != "woven\n" {
		t.Errorf("rolled back: %d %q", status, body)
	}
	w.selvage(t, "rollback", "good").expect(t, exitRefused, "no release before", "3, which is release 1 again")
	w.selvage(t, "rollback", "good", "--to", "1").expect(t, exitOK, "release 1 is live already, as release 3")
	w.selvage(t, "rollback", "good", "--to", "1", "--json").expect(t, exitOK, `"unchanged": true`)
	w.selvage(t, "rollback", "good", "--to", "7").expect(t, exitRefused, "selvage versions good")
	w.selvage(t, "versions", "good").expect(t, exitOK, "current, as release 1")
	var all []api.Release
	if err := json.Unmarshal([]byte(w.selvage(t, "versions", "good", "--json").out), &all); err != nil || len(all) != 3 || all[0].Bundle != all[2].Bundle || all[0].Limits.Concurrency == 0 {
		t.Errorf("versions: %+v, %v", all, err)
	}
}

// nothingThere names what does not exist: it is one exit code everywhere, and JSON if that was asked for.
func (w *world) nothingThere(t *testing.T) {
	for _, args := range [][]string{
		{"status", "none"}, {"versions", "none"}, {"logs", "none"}, {"remove", "none"}, {"rollback", "good", "--to", "9"},
		{"drain", "none"}, {"kv", "get", "none", "k"}, {"request", "--pop", "none", "https://good.edge.localhost:8443/"},
	} {
		r := w.selvage(t, append(args, "--json")...)
		var f failure
		if err := json.Unmarshal([]byte(r.errout), &f); err != nil || r.code != exitRefused || f.Code != exitRefused || r.out != "" {
			t.Errorf("%v: exit code %d, %q, %q: %v", args, r.code, r.out, r.errout, err)
		}
	}
}

func (w *world) tokens(t *testing.T) {
	w.selvage(t, "token", "create", "--life", "9000h").expect(t, exitUsage, "2160h")
	w.selvage(t, "token", "create", "--scope", "all").expect(t, exitRefused, "admin, deploy or read")
	secret := strings.TrimSpace(w.selvage(t, "token", "create", "--project", "default", "--note", "for the test").out)
	as := append(w.env, "SELVAGE_TOKEN="+secret)
	selvage(t, as, "versions", "good").expect(t, exitOK, "current")
	selvage(t, as, "rollback", "good").expect(t, exitRefused, "scope deploy")
	w.selvage(t, "token", "ls").expect(t, exitOK, "for the test", "read")
	id := strings.Split(secret, "_")[1]
	w.selvage(t, "token", "revoke", id).expect(t, exitOK, "revoked")
	selvage(t, as, "versions", "good").expect(t, exitRefused, "token")
	w.selvage(t, "token", "revoke", id).expect(t, exitRefused, "token")
}

const talks = `(data (i32.const 64) "I was asked\n")
(func (export "handle")
	(drop (call $log (i32.const 4) (i32.const 64) (i32.const 11)))
	(drop (call $response_write (i32.const 64) (i32.const 12))))`

func (w *world) logs(t *testing.T) {
	w.selvage(t, "deploy", "--wait", w.function(t, "talks", guesttest.Guest(t, talks))).expect(t, exitOK, "live")
	if status, _ := w.get(t, request.HTTP3, "talks", "/path"); status != 200 {
		t.Fatalf("it answers %d", status)
	}
	w.get(t, request.HTTP2, "good", "/")
	w.selvage(t, "logs", "--level", "loud").expect(t, exitUsage, "debug, info, warn or error")
	got := w.selvage(t, "logs", "talks")
	got.expect(t, exitOK, "WARN I was asked", "GET talks.edge.localhost/path 200", "lon-1", "cpu", "mem")
	if strings.Contains(got.out, "good") {
		t.Errorf("another function's lines:\n%s", got.out)
	}
	if got := w.selvage(t, "logs", "--kind", "access", "--level", "warn"); strings.Contains(got.out, "talks") {
		t.Errorf("what was not asked for:\n%s", got.out)
	}
	var line struct {
		Kind, Function, PoP string
		RequestID           string `json:"request_id"`
	}
	first, _, _ := strings.Cut(w.selvage(t, "logs", "talks", "--json", "--tail", "1").out, "\n")
	if err := json.Unmarshal([]byte(first), &line); err != nil || line.Function != "talks" || line.PoP != "lon" {
		t.Errorf("%s: %+v, %v", first, line, err)
	}
	w.selvage(t, "logs", "--request", line.RequestID).expect(t, exitOK, "I was asked", "GET talks.edge.localhost/path 200")
	w.logsLive(t)
	w.logsLines(t)
}

// logsLines names the lines of a deployed function: its code was taken apart, and its start-up kept.
func (w *world) logsLines(t *testing.T) {
	source := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module fails\n\ngo 1.26\n", "main.go": fails} {
		if err := os.WriteFile(filepath.Join(source, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dir := w.function(t, "fails", guesttest.GoGuest(t, source))
	w.selvage(t, "deploy", "--wait", dir).expect(t, exitOK, "live")
	if status, _ := w.get(t, request.HTTP2, "fails", "/"); status != 500 {
		t.Fatalf("it answers %d", status)
	}
	w.selvage(t, "build", dir).expect(t, exitOK)
	bundle := filepath.Join(dir, "fails.bundle")
	w.selvage(t, "logs", "fails", "--symbols", bundle).expect(t, exitOK, "main.handle (function ", "main.go:9\n")
	w.selvage(t, "logs", "fails", "--symbols", bundle, "--json").expect(t, exitUsage, "--json")
	w.selvage(t, "logs", "fails", "--symbols", filepath.Join(dir, "selvage.toml")).expect(t, exitUsage, "neither a module nor a bundle")
	plain := filepath.Join(dir, "plain.wasm")
	if err := os.WriteFile(plain, guesttest.Guest(t, talks), 0o644); err != nil {
		t.Fatal(err)
	}
	w.selvage(t, "logs", "fails", "--symbols", plain).expect(t, exitUsage, "says nothing of its source")
}

// logsLive follows while a request is made.
func (w *world) logsLive(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "logs", "-f", "talks")
	cmd.Env = append(os.Environ(), w.env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	heard := make(chan string, 1)
	go func() {
		in := bufio.NewScanner(out)
		for in.Scan() {
			if strings.Contains(in.Text(), "GET talks.edge.localhost/live") {
				heard <- in.Text()
				return
			}
		}
	}()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		w.get(t, request.HTTP2, "talks", "/live")
		select {
		case <-heard:
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
	t.Error("nothing was heard of a request while its log was followed")
}

// ready is what the node's /readyz says.
func (w *world) ready(t *testing.T) string {
	t.Helper()
	resp, err := http.Get("http://" + w.Layout.Edges[0].Admin + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// announces watches a node that is drained, put back, and left alone.
func (w *world) announces(t *testing.T) {
	w.selvage(t, "edge", "announce").expect(t, exitUsage, "--exabgp", "--exec")
	w.selvage(t, "edge", "announce", "--exabgp", "192.0.2.53/24").expect(t, exitUsage, "192.0.2.53/32")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "edge", "announce", "--admin", w.Layout.Edges[0].Admin, "--exabgp", "192.0.2.53/32", "--fall", "100000") // a slow machine is not a failing node
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, unless the test failed
	said := bufio.NewReader(out)
	next := func(want string) {
		t.Helper()
		if line, err := said.ReadString('\n'); err != nil || line != want+" route 192.0.2.53/32 next-hop self\n" {
			t.Fatalf("%q, %v; want it to %s", line, err, want)
		}
	}
	next("withdraw") // what one before may have left
	next("announce")
	w.selvage(t, "drain", "lon-1", "--timeout", "1m").expect(t, exitOK)
	next("withdraw")
	w.selvage(t, "undrain", "lon-1", "--timeout", "1m").expect(t, exitOK)
	next("announce")
	_ = cmd.Process.Signal(syscall.SIGTERM)
	next("withdraw")
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func (w *world) drain(t *testing.T) {
	w.selvage(t, "drain", "nobody").expect(t, exitRefused, "no node nobody", "selvage status")
	w.selvage(t, "drain", "lon").expect(t, exitRefused, "lon is a PoP, not a node", "lon-1", "--pop lon")
	w.selvage(t, "drain").expect(t, exitUsage, "--pop")
	w.selvage(t, "drain", "lon-1", "--pop", "lon").expect(t, exitUsage, "--pop")
	w.selvage(t, "drain", "--pop", "nowhere").expect(t, exitRefused, `no PoP "nowhere"`)
	w.selvage(t, "drain", "--pop", "lon", "--timeout", "1m").expect(t, exitOK, "lon-1 is draining")
	w.selvage(t, "undrain", "--pop", "lon", "--timeout", "1m").expect(t, exitOK, "lon-1 is in service")
	w.selvage(t, "drain", "lon-1", "--reason", "new disks", "--timeout", "1m").expect(t, exitOK, "lon-1 is draining")
	if got := w.ready(t); got != "draining" {
		t.Errorf("/readyz says %q", got)
	}
	if status, _ := w.get(t, request.HTTP2, "good", "/"); status != 200 {
		t.Errorf("it no longer serves: %d", status)
	}
	w.selvage(t, "status").expect(t, exitOK, "draining")
	w.selvage(t, "status", "--json").expect(t, exitOK, "new disks")

	// A restart does not bring it back, with nobody there to say it again.
	w.Control.Stop(30 * time.Second)
	node := w.Layout.Edges[0]
	w.Edges[node.Name].Stop(30 * time.Second)
	if err := w.StartEdge(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	if err := w.Edges[node.Name].Ready(t.Context(), "/readyz"); err != nil {
		t.Fatal(err)
	}
	if got := w.ready(t); got != "draining" {
		t.Errorf("after a restart /readyz says %q", got)
	}
	if err := w.StartControl(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.selvage(t, "undrain", "lon-1", "--timeout", "1m").expect(t, exitOK, "lon-1")
	for end := time.Now().Add(time.Minute); w.ready(t) != "ready" && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	if got := w.ready(t); got != "ready" {
		t.Errorf("undrained, /readyz says %q", got)
	}
}

func (w *world) doctor(t *testing.T) {
	w.selvage(t, "doctor", "--config", "none.toml").expect(t, exitUsage, "none.toml")
	got := w.selvage(t, "doctor", "--config", w.Layout.Edges[0].Config)
	got.expect(t, got.code, "clock against control", "is in use: the node runs", "node.state", "tls.certificates[0]", "warn")
	if strings.Contains(got.out, "if that is not this node") {
		t.Errorf("it warns of the node's own ports:\n%s", got.out)
	}
	if got.code != exitOK && got.code != exitFailed {
		t.Errorf("exit code %d", got.code)
	}
	var all []struct{ Level, Name, Found string }
	if err := json.Unmarshal([]byte(w.selvage(t, "doctor", "--json", "--config", w.Layout.Control.Config).out), &all); err != nil || len(all) < 12 {
		t.Errorf("%+v, %v", all, err)
	}
	for _, f := range all {
		if strings.HasPrefix(f.Name, "listen.") && (f.Level != "ok" || !strings.Contains(f.Found, "the node runs")) {
			t.Errorf("of the control node, which runs: %+v", f)
		}
	}
	put("bad.toml", []byte("[node]\n"))(w.dir)
	w.selvage(t, "doctor", "--config", filepath.Join(w.dir, "bad.toml")).expect(t, exitUsage, "node.state")
}

// support packs a bundle of a fleet in which secrets stand wherever they may.
func (w *world) support(t *testing.T) {
	secrets := []string{"planted-variable", "planted-token", "planted-password", "planted-in-log"}
	w.selvage(t, "deploy", "--wait", w.function(t, "talks", guesttest.Guest(t, talks), "[variables]", `DATABASE = "planted-variable"`)).expect(t, exitOK, "live")
	w.get(t, request.HTTP2, "talks", "/")
	log := filepath.Join(w.dir, "node.log")
	put("node.log", []byte("auth_token=planted-token\nnats://me:planted-password@host\nasked with Bearer\npassword: planted-in-log\nthe rest stays\n"))(w.dir)
	key, err := os.ReadFile(w.target(t).Publisher)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	put("node.log", append(text, key...))(w.dir)
	pem := strings.Split(strings.TrimSpace(string(key)), "\n")
	secrets = append(secrets, w.target(t).Token, pem[1])
	out := filepath.Join(w.dir, "out.tar.gz")
	got := w.selvage(t, "support", "bundle", "-o", out, "--config", w.Layout.Edges[0].Config, "--config", w.Layout.Control.Config, "--log", log, "--log", "none")
	got.expect(t, exitOK, "out.tar.gz", "lacking: log/1-none")
	files := untar(t, out)
	for _, want := range []string{"versions.json", "doctor/0.json", "node/0-metrics.txt", "node/1-metrics.txt", "fleet/nodes.json", "fleet/functions.json", "fleet/audit.json", "fleet/lines.json", "target.toml", "config/0-config.toml", "log/0-node.log", "lacking.txt"} {
		if files["selvage-support/"+want] == "" {
			t.Errorf("%s is not in it", want)
		}
	}
	for name, text := range files {
		for _, s := range append(secrets, "I was asked") { // what functions say stays at home
			if strings.Contains(text, s) {
				t.Errorf("%s holds %q", name, s)
			}
		}
	}
	for name, want := range map[string]string{"fleet/functions.json": "DATABASE", "log/0-node.log": "the rest stays", "fleet/lines.json": "talks.edge.localhost", "node/0-metrics.txt": "selvage_requests_total"} {
		if !strings.Contains(files["selvage-support/"+name], want) {
			t.Errorf("%s has no %s", name, want)
		}
	}
}

func untar(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(text)
	}
}
