package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/target"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/edge/keeper"
)

// nowhere is an environment in which no fleet is found.
func nowhere(t *testing.T) []string {
	return []string{"SELVAGE_TARGET=", "XDG_CONFIG_HOME=" + t.TempDir(), "HOME=" + t.TempDir()}
}

func TestUsage(t *testing.T) {
	t.Chdir(t.TempDir())
	env := nowhere(t)
	selvage(t, env, "--help").expect(t, exitOK, "selvage up", "Exit codes")
	selvage(t, env, "deploy", "--help").expect(t, exitOK, "--wait", "--json")
	selvage(t, env, "deply").expect(t, exitUsage, "deply")
	selvage(t, env, "deploy", "--wiat").expect(t, exitUsage, "wiat")
	selvage(t, env, "request").expect(t, exitUsage, "--help")
	selvage(t, env, "kv", "put", "links").expect(t, exitUsage, "KEY and VALUE are missing", "usage: selvage kv put NAMESPACE KEY VALUE")
	selvage(t, env, "rollback").expect(t, exitUsage, "FUNCTION is missing", "usage: selvage rollback FUNCTION")
	selvage(t, env, "status", "a", "b").expect(t, exitUsage, `"b" is one argument too many`, "usage: selvage status [FUNCTION]")
	selvage(t, env, "up", "now").expect(t, exitUsage, `"now" is one argument too many`)
	selvage(t, env, "request", "ftp://x/").expect(t, exitUsage, "https://")
	selvage(t, env, "request", "--http1", "--http3", "https://x/").expect(t, exitUsage, "http1")
	selvage(t, env, "up", "--pops", "0").expect(t, exitUsage, "--pops 0")
	selvage(t, env, "up", "--base", "10.0.0.1").expect(t, exitUsage, "127.0.0.0/8")
	selvage(t, env, "deploy").expect(t, exitReach, "selvage up", "--target")
	selvage(t, env, "status").expect(t, exitReach, "selvage up")
	for code, args := range map[int][]string{exitUsage: {"deploy", "--wiat", "--json"}, exitReach: {"--json", "status"}, exitFailed: {"status", "--json", "--target", "none.toml"}} {
		r := selvage(t, env, args...)
		r.expect(t, code)
		var f struct {
			Error string
			Code  int
		}
		if err := json.Unmarshal([]byte(r.errout), &f); err != nil || f.Error == "" || f.Code != code || r.out != "" {
			t.Errorf("%v: %q, %q: %v", args, r.out, r.errout, err)
		}
	}
	selvage(t, env, "build", ".").expect(t, exitUsage, "selvage init")
	selvage(t, env, "server").expect(t, keeper.ExitConfig, "edge.toml")
	selvage(t, env, "edge", "--config", "none.toml").expect(t, exitUsage, "none.toml")
	selvage(t, env, "control", "--config", "none.toml").expect(t, exitUsage, "none.toml")
}

func TestTargets(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	env := nowhere(t)
	write := func(text string) string {
		path := filepath.Join(dir, "target.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	selvage(t, env, "status", "--target", "none.toml").expect(t, exitFailed, "none.toml")
	selvage(t, env, "status", "--target", write("control = []\n")).expect(t, exitFailed, "control", "root", "token")
	selvage(t, env, "status", "--target", write("controll = []\n")).expect(t, exitFailed, "unknown key controll")
	good := "control = [\"https://127.0.0.9:1\"]\nroot = \"sha256:" + string(bytes.Repeat([]byte("ab"), 32)) + "\"\ntoken = \"x\"\n"
	selvage(t, env, "status", "--target", write(good)).expect(t, exitReach, "cannot be reached", "127.0.0.9:1")
	selvage(t, env, "request", "--pop", "lon", "https://x/", "--target", write(good)).expect(t, exitReach, "cannot be reached", "--connect IP:PORT")
}

// An error for programs says what happened, what to do, and where the fault stands.
func TestErrorsForPrograms(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	env := nowhere(t)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("selvage.toml", "name = \"hello\"\nroute = [\"a.example/*\"]\n")
	edge := write("edge.toml", "[node]\nname = \"a\"\n[lisen]\npublic = \"127.0.0.1:1\"\n")
	target := write("target.toml", "control = [\"https://127.0.0.9:1\"]\nroot = \"sha256:"+strings.Repeat("ab", 32)+"\"\ntoken = \"x\"\n")
	for _, c := range []struct {
		args []string
		code int
		path string // its last part
		line int
		hint string
		said []string
	}{
		{[]string{"build", "."}, exitFailed, "selvage.toml", 2, "", []string{"route: unknown key; did you mean `routes`?"}},
		{[]string{"edge", "--config", edge}, exitUsage, "edge.toml", 3, "", []string{"lisen (did you mean `listen`?)"}},
		{[]string{"status", "--target", target}, exitReach, "", 0, "listen.api", []string{"cannot be reached", "127.0.0.9:1"}},
	} {
		r := selvage(t, env, append(c.args, "--json")...)
		var f failure
		if err := json.Unmarshal([]byte(r.errout), &f); err != nil || r.code != c.code || f.Code != c.code {
			t.Errorf("%v: %d, %q: %v", c.args, r.code, r.errout, err)
			continue
		}
		if f.Line != c.line || filepath.Base("/"+f.Path) != filepath.Base("/"+c.path) || !strings.Contains(f.Hint, c.hint) || (f.Hint == "") != (c.hint == "") || f.Hint != "" && strings.Contains(f.Message, f.Hint) {
			t.Errorf("%v: %+v", c.args, f)
		}
		for _, want := range c.said {
			if !strings.Contains(f.Message, want) || !strings.Contains(f.Error, want) {
				t.Errorf("%v: %+v, want %q", c.args, f, want)
			}
		}
	}
	problem := failureOf(exitRefused, &client.Refusal{Problem: api.Problem{Type: "urn:selvage:problem:bad-manifest", Title: "bad manifest", Detail: "two faults", Hint: "correct it",
		Faults: []bundle.Fault{{Line: 3, Column: 1, Key: "name", Message: "not set"}}}})
	if problem.Problem != "bad-manifest" || problem.Message != "bad manifest: two faults" || problem.Hint != "correct it" || len(problem.Faults) != 1 || problem.Faults[0].Line != 3 {
		t.Errorf("a refusal: %+v", problem)
	}
}

// Where something else than the control API answers, or nothing does, the command says what to check.
func TestWrongAddress(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	env := nowhere(t)
	answers := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	public, admin, gone := httptest.NewTLSServer(answers), httptest.NewServer(answers), httptest.NewServer(answers)
	gone.Close()
	defer public.Close()
	defer admin.Close()
	path := filepath.Join(dir, "target.toml")
	for addr, want := range map[net.Addr]string{
		public.Listener.Addr(): "something else than this fleet's control API answers there",
		admin.Listener.Addr():  "what answers there does not speak TLS",
		gone.Listener.Addr():   "check that the control node runs and listens there",
	} {
		text := fmt.Sprintf("control = [\"https://%s\"]\nroot = \"sha256:%s\"\ntoken = \"x\"\n", addr, strings.Repeat("ab", 32))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		selvage(t, env, "status", "--target", path).expect(t, exitReach, "cannot be reached", addr.String(), want, "listen.api", "`control` in "+path, "--target or $SELVAGE_TARGET")
	}
}

// Who waits for another upgrade begins once it is over; who does not is told of it at once.
func TestUpgradeAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := time.Now().Add(25 * time.Second)
		said := 0
		ask := func() (string, error) {
			if time.Now().Before(over) {
				return "", fmt.Errorf("%w: to next", keeper.ErrBusy)
			}
			return "mine", nil
		}
		say := func(any) { said++ }
		if _, err := untilBegun(t.Context(), false, say, ask); !errors.Is(err, keeper.ErrBusy) || said != 0 {
			t.Errorf("without waiting: %v, %d remarks", err, said)
		}
		if name, err := untilBegun(t.Context(), true, say, ask); name != "mine" || err != nil || said != 3 {
			t.Errorf("waiting: %q, %v, %d remarks in 25 s", name, err, said)
		}
	})
}

func TestInit(t *testing.T) {
	sdk, err := filepath.Abs("../../sdk/go")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	env := nowhere(t)
	selvage(t, append(env, "SELVAGE_SDK="), "init", "hello").expect(t, exitUsage, "--sdk")
	env = append(env, "SELVAGE_SDK="+sdk)
	selvage(t, env, "init", "hello").expect(t, exitOK, "main.go", "selvage deploy --wait hello")
	selvage(t, env, "init", "hello").expect(t, exitUsage, "not empty")
	selvage(t, env, "init", "Bad_Name").expect(t, exitUsage, "Bad_Name")
	text, err := os.ReadFile("hello/selvage.toml")
	if err != nil || !bytes.Contains(text, []byte(`name = "hello"`)) {
		t.Errorf("%s, %v", text, err)
	}
}

// A restored store gets another epoch each time it is asked to.
func TestNewEpoch(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	env := nowhere(t)
	conf := "[control]\nname = \"c1\"\nstate = \"" + dir + "/state\"\n[listen]\napi = \"127.0.0.9:8400\"\npeer = \"127.0.0.9:8401\"\ngossip = \"127.0.0.9:8402\"\nadmin = \"127.0.0.9:8403\"\n" +
		"[store]\nmax_bytes = 1073741824\nreserve_bytes = 1048576\n"
	if err := os.WriteFile("control.toml", []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	var last uint64
	for range 2 {
		r := selvage(t, env, "control", "new-epoch", "--json")
		r.expect(t, exitOK)
		var v struct{ Epoch uint64 }
		if err := json.Unmarshal([]byte(r.out), &v); err != nil || v.Epoch <= last {
			t.Errorf("epoch %d after %d: %v", v.Epoch, last, err)
		}
		last = v.Epoch
	}
	held, err := os.Open("state/store/lock")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	selvage(t, env, "control", "new-epoch").expect(t, exitFailed, "in use by another process")
}

// A target file holds a token: whatever stood there before, only its owner reads it.
func TestTargetIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "target.toml")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := (target.Target{Token: "x"}).Save(path); err != nil {
		t.Fatal(err)
	}
	if i, err := os.Stat(path); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", i.Mode(), err)
	}
}

// REFERENCE.md is what the program says of itself.
func TestReferenceIsCurrent(t *testing.T) {
	var now bytes.Buffer
	if err := writeReference(&now, newRoot(&options{})); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile("../../REFERENCE.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(now.Bytes(), kept) {
		t.Error("REFERENCE.md is not what the program says; run: make reference")
	}
}
