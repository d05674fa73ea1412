package main

import (
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/report"
)

// The status of all functions says of each that is not live somewhere where, and why.
func TestStatusSaysWhatIsWaitedFor(t *testing.T) {
	nodes := []api.NodeStatus{
		{Node: "lon-1", State: report.Live}, {Node: "lon-2", State: report.Compiling, Why: "waits"}, {Node: "lon-3", State: report.Fetching},
		{Node: "lon-4", State: report.Failed, Why: "no\nimport"}, {Node: "lon-5", State: api.Pending, Away: true},
	}
	r := statusResult{Functions: []api.Function{{Release: api.Release{Release: catalog.Release{Function: "hello"}}, Status: api.Status{Live: 1, Failed: 1, Pending: 2, PoPs: []api.PoPStatus{{PoP: "lon", Nodes: nodes}}}}}}
	var all, one strings.Builder
	r.print(&all, false)
	for _, want := range []string{"\nhello on lon-2: compiling: waits\n", "\nhello on lon-3: fetching\n", "\nhello on lon-4: failed: no"} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("%q is not in\n%s", want, &all)
		}
	}
	if s := all.String(); strings.Contains(s, "lon-1") || strings.Contains(s, "lon-5") {
		t.Errorf("what is live, or away, is waited for:\n%s", s)
	}
	if r.print(&one, true); strings.Contains(one.String(), "hello on") || !strings.Contains(one.String(), "waits") {
		t.Errorf("of one function:\n%s", &one)
	}
}
