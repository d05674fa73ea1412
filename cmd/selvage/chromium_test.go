package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/up"
)

// browser finds Chromium. Where CI runs it must be there (.ci/run installs it).
func browser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("no Chromium: 'apt-get install chromium'")
	}
	t.Skip("NOT TESTED: that a browser uses HTTP/3: no Chromium; 'apt-get install chromium'")
	return ""
}

// keyHash is what Chromium is told of a key whose certificate it need not check.
func keyHash(t *testing.T, n up.Node) string {
	t.Helper()
	c, err := tls.Dial("tcp", n.Public, &tls.Config{InsecureSkipVerify: true, ServerName: "page." + up.Domain})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sum := sha256.Sum256(c.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// A browser opens a site over HTTP/3. It is told to begin with it: what Alt-Svc says a browser
// that loads one page and ends does not keep.
func TestChromiumUsesHTTP3(t *testing.T) {
	chromium := browser(t)
	w := openWorldOf(t, "127.0.14.50", 1)
	n := w.Layout.Edges[0]
	w.selvage(t, "deploy", "--wait", w.function(t, "page", says(t, "woven for a browser"))).expect(t, exitOK)
	authority := fmt.Sprintf("page.%s:%d", up.Domain, w.Port)
	args := []string{"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
		"--user-data-dir=" + profile(t), "--ignore-certificate-errors-spki-list=" + keyHash(t, n), "--origin-to-force-quic-on=" + authority,
		fmt.Sprintf("--host-resolver-rules=MAP *.%s %s", up.Domain, n.Addr), "--dump-dom", "https://" + authority + "/browsed"}
	eventually(t, "Chromium uses HTTP/3", func() bool {
		if page, said := openPage(t, chromium, args); !strings.Contains(page, "woven for a browser") {
			t.Logf("page %q\n%.2000s", page, said)
			return false
		}
		return overHTTP3(logOf(t, n), "/browsed")
	})
}

// profile is a folder for a browser's own files.
func profile(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "selvage-chromium-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a part of it that ends late may still write there
	return dir
}

// openPage loads a page once, in a browser of its own.
func openPage(t *testing.T, chromium string, args []string) (page, said string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, 5*time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(&errs, err)
	}
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left running
	}
	return out.String(), errs.String()
}

// overHTTP3 reports whether a request for path is in the access records as HTTP/3.
func overHTTP3(log, path string) bool {
	for line := range strings.Lines(log) {
		var record struct{ Path, Protocol string }
		if json.Unmarshal([]byte(line), &record) == nil && record.Path == path && record.Protocol == "HTTP/3.0" {
			return true
		}
	}
	return false
}
