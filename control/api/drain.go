package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// orderBucket keeps what is wanted of each node, by name.
const orderBucket = "orders"

// ordered is one node's record.
type ordered struct {
	Drain  bool          `json:"drain"`
	Reason string        `json:"reason,omitempty"`
	Orders report.Orders `json:"-"` // the same with the record's place in the store
}

// orders returns what is wanted of the node.
func (a *API) orders(ctx context.Context, node string) (ordered, error) {
	e, err := a.cfg.Store.Bucket(orderBucket).Get(ctx, node)
	if err != nil && !errors.Is(err, hostcall.ErrNotFound) {
		return ordered{}, err
	}
	return a.parseOrders(node, e)
}

// parseOrders reads a node's record; no value is no order, ever.
func (a *API) parseOrders(node string, e hostcall.Entry) (o ordered, err error) {
	if len(e.Value) > 0 {
		err = json.Unmarshal(e.Value, &o)
	}
	if err != nil {
		return o, fmt.Errorf("api: orders of %s: %w", node, err)
	}
	o.Orders = report.Orders{Epoch: a.cfg.Store.Epoch(), Revision: e.Revision, Drain: o.Drain}
	return o, nil
}

func (a *API) drainNode(ctx context.Context, c *call) (*reply, error) {
	var req DrainRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	if len(req.Reason) > 200 {
		return nil, invalid("reason: %d bytes, over 200", len(req.Reason))
	}
	c.note("reason", req.Reason)
	return a.order(ctx, c, ordered{Drain: true, Reason: req.Reason})
}

func (a *API) undrainNode(ctx context.Context, c *call) (*reply, error) {
	return a.order(ctx, c, ordered{})
}

// order writes down what is wanted of a node and tells the node. One that cannot be
// told now is told when it reports next.
func (a *API) order(ctx context.Context, c *call, o ordered) (*reply, error) {
	name := c.param("node")
	n, ok := a.node(name)
	if !ok {
		return nil, a.noNode(name)
	}
	if err := a.saveRecord(ctx, orderBucket, name, o, hostcall.PutOptions{IfRevision: hostcall.AnyRevision}); err != nil {
		return nil, err
	}
	o, err := a.orders(ctx, name)
	if err != nil {
		return nil, err
	}
	out := nodeOf(n, a.Head())
	out.Drain, out.Reason = o.Drain, o.Reason
	if err := a.tell(ctx, name, o.Orders); err != nil {
		a.cfg.Log.Info("api: a node is told its orders when it reports next", "node", name, "error", err)
	} else {
		a.board.drains(name, o.Drain)
		out.Draining = o.Drain
	}
	return &reply{json: out}, nil
}

// noNode says that there is no such node; of a PoP's name, which its nodes are.
func (a *API) noNode(name string) *Problem {
	var of []string
	for _, n := range a.nodes() {
		if n.PoP == name {
			of = append(of, n.Node)
		}
	}
	if len(of) > 0 {
		return notFound("name one of its nodes ("+strings.Join(of, ", ")+"), or take all of them with --pop "+name, "%s is a PoP, not a node", name)
	}
	return notFound("'selvage status' lists them (GET /v1/fleet)", "there is no node %s", name)
}

func (a *API) node(name string) (seen, bool) {
	for _, n := range a.nodes() {
		if n.Node == name {
			return n, true
		}
	}
	return seen{}, false
}

// tellLimit bounds the telling of one node.
const tellLimit = 3 * time.Second

// tell gives a node its orders on its peer listener.
func (a *API) tell(ctx context.Context, node string, o report.Orders) error {
	addr := ""
	for _, n := range a.logNodes() {
		if n.Name == node {
			addr = n.Peer
		}
	}
	if addr == "" {
		return errors.New("membership does not know its address")
	}
	c, err := peer.NewClient(peer.ClientConfig{Member: a.member, Addresses: []string{addr}, Expect: identity.Expect{Kind: identity.KindNode, Name: node}})
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, report.OrdersPath, bytes.NewReader(b))
	if err != nil {
		return err
	}
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}
