package report

import "cmp"

// OrdersPath is where a node takes Orders on its peer listener, from control; the
// answer to each report carries them too, for a node that was away.
const OrdersPath = "/peer/v1/orders"

// Orders is what control wants of one node, beside what the catalog says.
type Orders struct {
	Epoch    uint64 `json:"epoch"`    // the store's
	Revision uint64 `json:"revision"` // 0: nothing was ever ordered
	Drain    bool   `json:"drain"`    // new traffic should go elsewhere
}

// Newer reports whether o was given after p: orders may overtake one another.
func (o Orders) Newer(p Orders) bool {
	return cmp.Or(cmp.Compare(o.Epoch, p.Epoch), cmp.Compare(o.Revision, p.Revision)) > 0
}
