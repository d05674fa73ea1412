package api

import (
	"testing"

	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/edge/kv"
)

// What nodes report is added up per PoP and in all; what the namespace holds is the store's word.
func TestNamespaceStats(t *testing.T) {
	f := withNamespace(t)
	f.put("a", "12345", metadataHeader([]byte("m")))
	f.put("b", "1")
	f.put("b", "123")
	f.put("gone", "1")
	f.want(200, f.admin("DELETE", keysOf+"/gone", nil), nil)
	f.elsewhere("k")
	for _, n := range []struct {
		name, pop string
		hits      uint64
	}{{"lon-1", "lon", 3}, {"lon-2", "lon", 4}, {"nyc-1", "nyc", 5}} {
		u := kv.Usage{Hits: n.hits, Misses: 1, Origin: 1, BytesRead: 10, Replica: 2, Copies: 1, CopyBytes: 20}
		u.Stale[0] = n.hits
		r := report.Report{Node: n.name, PoP: n.pop, KV: []report.Space{
			{Project: "default", Namespace: "links", Usage: u}, {Project: "default", Namespace: "other", Usage: kv.Usage{Hits: 100}}, {Project: "shop", Namespace: "links", Usage: kv.Usage{Hits: 1000}}}}
		f.want(200, f.send(f.node(n.name, n.pop), "POST", report.Path, r), nil)
	}
	var s NamespaceStats
	// A listing waits until the index has every write that was acknowledged.
	f.want(200, f.admin("GET", keysOf, nil), nil)
	f.want(200, f.admin("GET", "/v1/projects/default/kv/links/stats", nil), &s)
	if s.Keys != 2 || s.Bytes != 1+5+1+1+3 || s.Total.Hits != 12 || s.Total.Misses != 3 || s.Total.Stale[0] != 12 || s.Total.Replica != 6 || s.Total.Copies != 3 || s.Total.CopyBytes != 60 || len(s.StaleBoundsMS)+1 != len(s.Total.Stale) {
		t.Errorf("%+v", s)
	}
	if len(s.PoPs) != 2 || s.PoPs[0].PoP != "lon" || s.PoPs[0].Nodes != 2 || s.PoPs[0].Hits != 7 || s.PoPs[1].Hits != 5 || s.PoPs[1].BytesRead != 10 || s.PoPs[1].Reported.IsZero() {
		t.Errorf("%+v", s.PoPs)
	}
	f.refused(404, "no-namespace", f.admin("GET", "/v1/projects/default/kv/nowhere/stats", nil))
}
