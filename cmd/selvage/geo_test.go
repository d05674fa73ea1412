package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/selvage-edge/selvage/cmd/selvage/up"
	"github.com/selvage-edge/selvage/control/geodns"
)

// dnsConfig has a name server on an address, which takes all clients to be in London.
const dnsConfig = `
[geo]
default_position = "51.5, -0.1"
default_country = "GB"
[dns]
listen = "%s:5353"
answers = 1
zones = [{ name = "edge.test", servers = ["ns1.edge.test 192.0.2.53"], hosts = ["www"] },
         { name = "edge.localhost", servers = ["ns1.edge.localhost 192.0.2.53"], hosts = ["*"] }]
`

// A name server follows real PoPs: the nearest is given, a drained or killed one
// is not. Nodes answer as 'selvage dns' alone does.
func TestGeoDNS(t *testing.T) {
	const alone = "127.0.9.90"
	w := openWorldOf(t, "127.0.9.50", 2, func(l *up.Layout) { l.Edges[1].More = fmt.Sprintf(dnsConfig, l.Edges[1].Addr) })
	lon, nyc := w.Layout.Edges[0], w.Layout.Edges[1]
	w.nameServer(t, alone)
	for _, admin := range []string{nyc.Admin, alone + ":9090"} {
		w.sentTo(t, admin, lon)
	}
	w.selvage(t, "deploy", "--wait", w.function(t, "pinned", says(t, "from us"), "[placement]", `include = ["region = us"]`, "residency = true")).expect(t, exitOK)
	for _, admin := range []string{nyc.Admin, alone + ":9090"} {
		eventually(t, admin+" sends clients of what is pinned to us there", func() bool {
			r := w.selvage(t, "geo", "explain", "--client", "81.2.69.142", "--host", "pinned.edge.localhost", "--admin", admin)
			return strings.Contains(r.out, "20 IN A "+nyc.Addr.String()) && strings.Contains(r.out, "placed  region=us; residency") && strings.Contains(r.out, "lon") &&
				strings.Contains(r.out, "nearer, but its functions may not run there")
		})
		w.sentTo(t, admin, lon)
	}
	w.selvage(t, "drain", lon.Name, "--timeout", "1m").expect(t, exitOK, "draining")
	w.sentTo(t, alone+":9090", nyc)
	w.selvage(t, "undrain", lon.Name, "--timeout", "1m").expect(t, exitOK)
	w.sentTo(t, alone+":9090", lon)
	if err := syscall.Kill(w.Edges[lon.Name].PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, admin := range []string{nyc.Admin, alone + ":9090"} {
		w.sentTo(t, admin, nyc)
	}
	if dig, err := exec.LookPath("dig"); err != nil && os.Getenv("CI") == "true" {
		t.Errorf("%v: apt-get install bind9-dnsutils", err)
	} else if err == nil {
		for _, server := range []string{nyc.Addr.String(), alone} {
			eventually(t, "dig @"+server+" answers with nyc alone", func() bool { // it takes up what the fleet knows within a second
				out, err := exec.Command(dig, "@"+server, "-p", "5353", "+short", "+time=10", "www.edge.test", "A").CombinedOutput()
				return err == nil && strings.TrimSpace(string(out)) == nyc.Addr.String()
			})
		}
	}
	ask := func(host, admin string) result {
		return w.selvage(t, "geo", "explain", "--client", "81.2.69.142", "--host", host, "--admin", admin)
	}
	ask("www.edge.test", alone+":9090").expect(t, exitOK, "GB 51.50, -0.10 (assumed)", "1. nyc", "serving", "chosen", "www.edge.test. 20 IN A "+nyc.Addr.String())
	ask("www.google.com", alone+":9090").expect(t, exitFailed, "none of the zones", "edge.test.")
	w.selvage(t, "geo", "explain", "--client", "81.2.69", "--host", "www.edge.test").expect(t, exitUsage, "--client")
	w.selvage(t, "geo", "explain", "--client", "81.2.69.142").expect(t, exitUsage, "--host")
}

// sentTo waits until a name server sends its clients to the node.
func (w *world) sentTo(t *testing.T, admin string, n up.Node) {
	t.Helper()
	want := fmt.Sprintf("www.edge.test. 20 IN A %s", n.Addr)
	eventually(t, fmt.Sprintf("%s answers with %s", admin, n.Name), func() bool {
		r := w.selvage(t, "geo", "explain", "--client", "81.2.69.142", "--host", "www.edge.test", "--admin", admin, "--json")
		var e geodns.Explanation
		return r.code == 0 && json.Unmarshal([]byte(r.out), &e) == nil && len(e.Answers) > 0 && e.Answers[0] == want
	})
}

// nameServer runs 'selvage dns' on an address until the test ends.
func (w *world) nameServer(t *testing.T, addr string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "dns.toml")
	text := fmt.Sprintf("[node]\nname = \"ns-1\"\nstate = \"state\"\n[listen]\nadmin = \"%[1]s:9090\"\ngossip = \"%[1]s:7946\"\n", addr) + fmt.Sprintf(dnsConfig, addr)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	token, err := w.JoinToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(w.Selvage, "dns", "--config", file)
	cmd.Env = append(os.Environ(), "SELVAGE_JOIN_TOKEN="+token)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("selvage dns: %v\n%s", err, said.String())
		}
	})
}
