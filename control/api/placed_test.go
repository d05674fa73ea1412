package api

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/control/report"
)

// A node that says that it has, or answered, what is pinned elsewhere is a violation;
// one that does not answer is told of.
func TestPlacementViolations(t *testing.T) {
	var members []Member
	f := start(t, func(c *Config) { c.Members = func() []Member { return members } })
	nyc := f.join("nyc-1", "nyc")
	list := []report.Placed{{Project: "default", Function: "pinned", OnDisk: true, Pinned: 2}, {Project: "default", Function: "free", Live: true, Answered: 5}}
	srv, err := peer.NewServer(peer.ServerConfig{Member: nyc.Member, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != report.PlacedPath {
			t.Errorf("asked for %s", r.URL)
		}
		_ = json.NewEncoder(w).Encode(list)
	})})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		srv.Close(ctx)
		<-done
	})
	members = []Member{{Name: "lon-1", PoP: "lon"}, {Name: "nyc-1", PoP: "lon", Peer: l.Addr().String(), Alive: true}} // gossip lies of nyc-1's PoP
	f.deploy("pinned", "[placement]\ninclude = [\"pop=lon\"]\nresidency = true", module)
	f.deploy("free", "", module+"free")
	var a PlacementAudit
	f.want(200, f.admin("GET", "/v1/placement", nil), &a)
	if len(a.Unreached) != 1 || !strings.Contains(a.Unreached[0], "lon-1") || len(a.Functions) != 2 || a.Functions[0].Nodes[0].Answered != 5 {
		t.Errorf("%+v", a)
	}
	said := strings.Join(a.Violations, "\n")
	if len(a.Violations) != 2 || !strings.Contains(said, "held at nyc-1 (PoP nyc") || !strings.Contains(said, "answered 2 times at nyc-1") {
		t.Errorf("violations: %s", said)
	}
	list = nil
	f.want(200, f.admin("GET", "/v1/placement", nil), &a)
	if len(a.Violations) != 0 {
		t.Errorf("violations of a node that has nothing: %q", a.Violations)
	}
}
