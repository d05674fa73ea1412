package api

import (
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/control/report"
)

// What was ordered is shown, kept, and told to the node with each report.
func TestDrain(t *testing.T) {
	f := start(t)
	f.refused(404, "not-found", f.admin("PUT", "/v1/nodes/lon-1/drain", nil))
	c := f.node("lon-1", "lon")
	said := func(draining bool) report.Orders {
		t.Helper()
		var o report.Orders
		f.want(200, f.send(c, "POST", report.Path, report.Report{Node: "lon-1", PoP: "lon", Draining: draining}), &o)
		return o
	}
	first := said(false)
	if first.Drain || first.Revision != 0 || first.Epoch != f.store.Epoch() {
		t.Errorf("nothing was ordered: %+v", first)
	}
	var n Node
	f.want(200, f.admin("PUT", "/v1/nodes/lon-1/drain", DrainRequest{Reason: "new disks"}), &n)
	if !n.Drain || n.Draining || n.Reason != "new disks" {
		t.Errorf("ordered: %+v", n)
	}
	second := said(true)
	if !second.Drain || !second.Newer(first) {
		t.Errorf("told %+v after %+v", second, first)
	}
	f.listen() // the order outlives the process, and so does what the node said
	var fleet Fleet
	f.want(200, f.admin("GET", "/v1/fleet", nil), &fleet)
	if one := fleet.Nodes[0]; !one.Drain || !one.Draining || one.Reason != "new disks" {
		t.Errorf("shown: %+v", one)
	}
	f.want(200, f.admin("DELETE", "/v1/nodes/lon-1/drain", nil), &n)
	if third := said(true); third.Drain || !third.Newer(second) {
		t.Errorf("told %+v after %+v", third, second)
	}
	f.refused(400, "invalid-request", f.admin("PUT", "/v1/nodes/lon-1/drain", DrainRequest{Reason: strings.Repeat("x", 201)}))
	var trail AuditList
	f.want(200, f.admin("GET", "/v1/audit?limit=500", nil), &trail)
	seen := ""
	for _, e := range trail.Entries {
		if e.Action == "drainNode" && e.Status == 200 {
			seen = e.Detail["reason"]
		}
	}
	if seen != "new disks" {
		t.Errorf("the audit trail does not say it: %+v", trail)
	}
}

// Who names a PoP where a node is wanted is told which nodes it has.
func TestDrainOfAPoP(t *testing.T) {
	f := start(t)
	for _, n := range []string{"lon-1", "lon-2"} {
		f.want(200, f.send(f.node(n, "lon"), "POST", report.Path, report.Report{Node: n, PoP: "lon"}), nil)
	}
	p := f.refused(404, "not-found", f.admin("PUT", "/v1/nodes/lon/drain", nil))
	if p.Detail != "lon is a PoP, not a node" || !strings.Contains(p.Hint, "lon-1, lon-2") || !strings.Contains(p.Hint, "--pop lon") {
		t.Errorf("%+v", p)
	}
	if p := f.refused(404, "not-found", f.admin("DELETE", "/v1/nodes/nyc/drain", nil)); p.Detail != "there is no node nyc" {
		t.Errorf("%+v", p)
	}
}
