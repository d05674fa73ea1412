package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

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
	selvage(t, env, "request", "ftp://x/").expect(t, exitUsage, "https://")
	selvage(t, env, "request", "--http1", "--http3", "https://x/").expect(t, exitUsage, "http1")
	selvage(t, env, "up", "--pops", "0").expect(t, exitUsage, "--pops 0")
	selvage(t, env, "up", "--base", "10.0.0.1").expect(t, exitUsage, "127.0.0.0/8")
	selvage(t, env, "deploy").expect(t, exitReach, "selvage up", "--target")
	selvage(t, env, "status").expect(t, exitReach, "selvage up")
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
}

func TestInit(t *testing.T) {
	t.Chdir(t.TempDir())
	env := nowhere(t)
	selvage(t, env, "init", "hello").expect(t, exitOK, "main.go", "selvage deploy --wait hello")
	selvage(t, env, "init", "hello").expect(t, exitUsage, "not empty")
	selvage(t, env, "init", "Bad_Name").expect(t, exitFailed, "Bad_Name")
	text, err := os.ReadFile("hello/selvage.toml")
	if err != nil || !bytes.Contains(text, []byte(`name = "hello"`)) {
		t.Errorf("%s, %v", text, err)
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
