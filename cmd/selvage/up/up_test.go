package up

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
)

func layout(t *testing.T, pops int) Layout {
	t.Helper()
	l, err := Plan(Options{Dir: t.TempDir(), PoPs: pops, Base: netip.MustParseAddr("127.0.0.10"), Port: 8443})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Write(); err != nil {
		t.Fatal(err)
	}
	return l
}

// What is written down is what the nodes' own loader accepts.
func TestWrittenConfigsLoad(t *testing.T) {
	l := layout(t, MaxPoPs)
	if _, err := config.LoadControl(l.Control.Config); err != nil {
		t.Error(err)
	}
	for _, n := range l.Edges {
		c, err := config.LoadEdge(n.Config)
		if err != nil {
			t.Error(err)
		}
		if c.Node.PoP != n.PoP || c.Listen.Public != n.Public {
			t.Errorf("%s: read back %+v", n.Name, c)
		}
	}
	if got := l.Edges[2].Public; got != "127.0.0.13:8443" {
		t.Errorf("third PoP at %s", got)
	}
}

func TestCertificateIsKeptAndRenewed(t *testing.T) {
	l := layout(t, 1)
	first := read(t, l.certFile())
	if err := l.Write(); err != nil {
		t.Fatal(err)
	}
	if read(t, l.certFile()) != first {
		t.Error("a certificate that holds was replaced")
	}
	more, err := Plan(Options{Dir: l.Dir, PoPs: 2, Base: l.Base, Port: 8443})
	if err != nil {
		t.Fatal(err)
	}
	if err := more.Write(); err != nil {
		t.Fatal(err)
	}
	if read(t, l.certFile()) == first {
		t.Error("a certificate without the new PoP's address was kept")
	}
	if i, err := os.Stat(l.keyFile()); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v", i.Mode(), err)
	}
}

// What somebody wrote into a configuration file is not written over; the other files follow the flags.
func TestChangedConfigurationIsKept(t *testing.T) {
	l := layout(t, 2)
	mine := read(t, l.Edges[0].Config) + "\n[dns]\nlisten = \"127.0.0.11:5353\"\n"
	if err := os.WriteFile(l.Edges[0].Config, []byte(mine), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Plan(Options{Dir: l.Dir, PoPs: 2, Base: l.Base, Port: 9443})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := again.Write(); err != nil {
			t.Fatal(err)
		}
		if got := read(t, l.Edges[0].Config); got != mine {
			t.Errorf("a changed file became:\n%s", got)
		}
		if len(again.Kept) != 1 || again.Kept[0] != l.Edges[0].Config {
			t.Errorf("kept: %q", again.Kept)
		}
		if got := read(t, l.Edges[1].Config); !strings.Contains(got, ":9443") {
			t.Errorf("one that was not changed stayed:\n%s", got)
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	for want, o := range map[string]Options{
		"--pops 0":  {Dir: "d", PoPs: 0, Base: netip.MustParseAddr("127.0.0.10")},
		"--pops 11": {Dir: "d", PoPs: 11, Base: netip.MustParseAddr("127.0.0.10")},
		"--port 0":  {Dir: "d", PoPs: 1, Base: netip.MustParseAddr("127.0.0.10")},
		".254":      {Dir: "d", PoPs: 10, Base: netip.MustParseAddr("127.0.0.250"), Port: 1},
		"--base":    {Dir: "d", PoPs: 1, Base: netip.MustParseAddr("10.0.0.1")},
	} {
		if _, err := Plan(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
