package node

import (
	"encoding/json"
	"net/http"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/control/report"
)

// placed says to control what this node has of each function, and what it answered.
func (n *node) placed(w http.ResponseWriter, r *http.Request) {
	if from, ok := peer.From(r.Context()); !ok || from.Kind != identity.KindControl {
		http.Error(w, "this is for control", http.StatusForbidden)
		return
	}
	tallies := n.path.handler.Tallies()
	list := []report.Placed{}
	for _, h := range n.agent.Held() {
		t := tallies[h.ID]
		list = append(list, report.Placed{Project: h.Project, Function: h.Name, Release: h.Release, Live: h.Live, OnDisk: h.OnDisk,
			Answered: t.Answered, Away: t.Away, Pinned: t.Pinned, PassedOn: t.Passed})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list) // control left; nobody to tell
}
