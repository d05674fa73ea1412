package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/selvage-edge/selvage/runtime/function"
)

// labels are what the node is, as far as it was heard.
func (n *seen) labels() function.Labels {
	return function.LabelsOf(n.Node, n.PoP, n.Region, n.Labels)
}

// checkPlacement refuses a pin that no node of the fleet fulfils, and notes a
// placement that none does now: who deploys it may have misspelt a label.
func (a *API) checkPlacement(p function.Placement) (notes []string, err error) {
	if p.IsZero() {
		return nil, nil
	}
	var known []string
	there := 0
	for _, n := range a.nodes() {
		if p.Allows(n.labels()) {
			if !n.away {
				return nil, nil
			}
			there++
		}
		known = append(known, n.labels()...)
	}
	slices.Sort(known)
	all := strings.Join(slices.Compact(known), ", ")
	switch {
	case there > 0:
		return []string{fmt.Sprintf("placement: the %d nodes that %s allows are away: its requests are answered when one is back", there, p)}, nil
	case len(known) == 0:
		return []string{"placement: no node has joined yet, so nobody knows whether one fulfils " + p.String()}, nil
	case p.Residency:
		return nil, problem(http.StatusUnprocessableEntity, "placement", "change [placement], or let a node join that has such a label; the fleet's are "+all,
			"no node of the fleet may run it: it is placed on %s", p)
	}
	return []string{fmt.Sprintf("placement: no node of the fleet fulfils %s (its labels: %s): any node answers until one does", p, all)}, nil
}
