package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/control/api"
)

// A function pinned to eu, asked at nyc, is answered from lon, over each protocol; once
// lon is dead it is answered nowhere, and what is only placed there by nyc itself.
func TestPinnedToEU(t *testing.T) {
	w := openWorldOf(t, "127.0.12.50", 2)
	lon, nyc := w.Layout.Edges[0], w.Layout.Edges[1]
	place := func(more string) []string { return []string{"[placement]", `include = ["region = eu"]`, more} }
	w.selvage(t, "deploy", w.function(t, "lost", says(t, "no"), "[placement]", `include = ["pop=par"]`, "residency = true")).expect(t, exitRefused, "pop=par", "pop=lon")
	w.selvage(t, "deploy", "--wait", w.function(t, "pinned", says(t, "from eu"), place("residency = true")...)).expect(t, exitOK, "live", "elsewhere")
	w.selvage(t, "deploy", "--wait", w.function(t, "placed", says(t, "anywhere"), place("")...)).expect(t, exitOK, "live")
	w.answers(t, nyc, "pinned", "from eu")
	before := metric(nyc, "selvage_forward_placed_total")
	for _, v := range []request.Version{request.HTTP1, request.HTTP2, request.HTTP3} {
		for _, name := range []string{"pinned", "placed"} {
			if status, body := w.getFrom(t, nyc, v, name, "/"); status != 200 {
				t.Errorf("%s over h%s: %d %s", name, v, status, body)
			}
		}
	}
	if n := metric(nyc, "selvage_forward_placed_total") - before; n != 6 {
		t.Errorf("nyc handed %v exchanges on, want 6", n)
	}
	eventually(t, "the access records say who answered", func() bool {
		return strings.Contains(logOf(t, nyc), `"passed_to":"lon-1"`) && strings.Contains(logOf(t, lon), `"passed_by":"nyc-1"`)
	})
	w.audit(t)

	w.end(lon)
	eventually(t, "pinned is answered nowhere", func() bool {
		status, body := w.getFrom(t, nyc, request.HTTP2, "pinned", "/")
		return status == 503 && strings.Contains(body, `"reason":"placement"`)
	})
	w.answers(t, nyc, "placed", "anywhere")
	w.selvage(t, "audit", "placement").expect(t, exitOK, "not reached: lon-1", "region=eu; residency", "may not hold it", "no violations")
	if err := w.StartEdge(t.Context(), lon); err != nil {
		t.Fatal(err)
	}
	w.answers(t, nyc, "pinned", "from eu")
}

// audit checks what 'selvage audit placement' says of the pinned function.
func (w *world) audit(t *testing.T) {
	t.Helper()
	r := w.selvage(t, "audit", "placement", "--json")
	r.expect(t, exitOK)
	var a api.PlacementAudit
	if err := json.Unmarshal([]byte(r.out), &a); err != nil || len(a.Functions) != 2 || len(a.Violations)+len(a.Unreached) != 0 {
		t.Fatalf("%v: %s", err, r.out)
	}
	pinned, placed := a.Functions[0], a.Functions[1]
	if l, n := pinned.Nodes[0], pinned.Nodes[1]; l.Node != "lon-1" || !l.Allowed || !l.Held || l.Answered < 4 || n.MayHold || n.Held || n.Answered != 0 || n.PassedOn < 4 {
		t.Errorf("of the pinned function: %+v", pinned)
	}
	if n := placed.Nodes[1]; n.Allowed || !n.MayHold || !n.Held || n.Answered != 0 || n.PassedOn != 3 {
		t.Errorf("of the placed function: %+v", placed)
	}
}
