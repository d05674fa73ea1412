package main

import (
	"slices"
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

// Where a replicated namespace's copies are, and why one is not there.
func TestStatusSaysWhereCopiesAre(t *testing.T) {
	r := statusResult{Fleet: api.Fleet{Nodes: []api.Node{
		{Name: "lon-1", Copies: []report.Copy{{Project: "default", Namespace: "words", State: report.CopyWhole, Position: 7, Keys: 3, Bytes: 2 << 20}}},
		{Name: "lon-2", Copies: []report.Copy{
			{Project: "default", Namespace: "large", State: report.CopyNoRoom, Why: "raise limits.replica_bytes"},
			{Project: "default", Namespace: "words", State: report.CopyCatching, Position: 5, Head: 7}}},
		{Name: "lon-3", Copies: []report.Copy{{Project: "default", Namespace: "words", State: report.CopyNone, Why: "damaged\x1b[0m"}}},
	}}}
	var out strings.Builder
	r.print(&out, false)
	lines := strings.Split(out.String(), "\n")
	for node, want := range map[string][]string{"lon-1": {"default/words", "whole, at 7", "3", "2.0"}, "lon-2 ": {"default/large", "no room", "raise limits"}, "catches": {"default/words", "lon-2", "at 5 of 7"}, "none": {"lon-3", "damaged"}} {
		i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "default/") && strings.Contains(l, node) })
		if i < 0 {
			t.Errorf("no line of %q in\n%s", node, &out)
			continue
		}
		for _, w := range want {
			if !strings.Contains(lines[i], w) {
				t.Errorf("%q is not in %q", w, lines[i])
			}
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("what a node says is shown as it is")
	}
	out.Reset()
	if (&statusResult{}).print(&out, false); strings.Contains(out.String(), "REPLICATED") {
		t.Errorf("without any:\n%s", &out)
	}
}
