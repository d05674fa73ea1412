package node

import (
	"github.com/selvage-edge/selvage/control/peer"
)

// newReach is the way to control of what functions wait for: it fails at once while control
// is known to be away, and so may be asked all the time.
func (n *node) newReach(control *peer.Client) *peer.Reach {
	return peer.NewReach(peer.ReachConfig{Line: control, OnChange: n.reached})
}

// reached is told when control is taken to be away, and when it is back.
func (n *node) reached(away bool) {
	if away {
		n.log.Warn("control does not answer", "means", "writes of KV, and reads that control has to answer, fail at once; control is asked again twice a second",
			"do", "see that control runs, and that this node reaches its peer port")
		return
	}
	n.log.Info("control answers again")
	if n.agent != nil {
		n.agent.Reached()
	}
}
