package agent

import (
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/edge/replica"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// The report says of each replicated namespace where its copy is, and why there is none.
func TestReportSaysWhereCopiesAre(t *testing.T) {
	s := &spaces{replica: replica.Config{Dir: "somewhere"}}
	at := func(name string, b bound) {
		b.ns, b.log = hostcall.Namespace{Project: "p", Name: name}, "kv/p/"+name
		s.mu.byLog[b.log] = &b
	}
	s.mu.byLog = map[string]*bound{}
	at("cached", bound{})
	at("full", bound{replicated: true, lacks: 7})
	at("waits", bound{replicated: true})
	at("zoo", bound{replicated: true, asking: asked})
	all := s.copies()
	if len(all) != 3 || all[0].Namespace != "full" || all[0].State != report.CopyNoRoom || !strings.Contains(all[0].Why, "7 bytes") ||
		all[1].Namespace != "waits" || all[1].State != report.CopyNone || all[1].Why == "" ||
		all[2].State != report.CopyCatching || !strings.Contains(all[2].Why, "neighbours") {
		t.Errorf("%+v", all)
	}
	s.replica.Dir = ""
	if c := s.copies()[1]; !strings.Contains(c.Why, "limits.replica_bytes is 0") {
		t.Errorf("%+v", c)
	}
	r := report.Report{Node: "n", PoP: "p", Copies: s.copies()}
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
	r.Copies[0].State = "odd"
	if err := r.Validate(); err == nil {
		t.Error("an unknown state is taken")
	}
}
