package agent

import (
	"testing"

	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// Each report has KV's counts as they are at that moment.
func TestReportsTellKVsUse(t *testing.T) {
	r := newReporter(nil, report.Report{Node: "n1", PoP: "lon"}, 0, nil)
	if out := r.compose(); out.KV != nil {
		t.Errorf("without KV: %+v", out.KV)
	}
	hits := uint64(0)
	r.usage = func() []kv.SpaceUsage {
		hits++
		return []kv.SpaceUsage{{Namespace: hostcall.Namespace{Project: "p", Name: "n"}, Usage: kv.Usage{Hits: hits}}}
	}
	for want := uint64(1); want <= 2; want++ {
		out := r.compose()
		if len(out.KV) != 1 || out.KV[0].Project != "p" || out.KV[0].Namespace != "n" || out.KV[0].Hits != want || out.Validate() != nil {
			t.Errorf("report %d: %+v", want, out.KV)
		}
	}
}
