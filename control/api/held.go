package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/control/store"
)

var heldQuery = []param{{"epoch", "of the position"}, {"seq", "of the position"}}

// peerHeld says, signed, what a namespace held at a position that the node has its neighbour's copy at.
func (a *API) peerHeld(ctx context.Context, c *call) (*reply, error) {
	ns, _, err := a.peerKey(c, false)
	if err != nil {
		return nil, err
	}
	epoch, err := queryUint(c.r, "epoch", 0)
	if err != nil {
		return nil, err
	}
	seq, err := queryUint(c.r, "seq", 0)
	if err != nil {
		return nil, err
	}
	unknown := func(format string, args ...any) error {
		return problem(http.StatusConflict, "unheld", "ask of a newer position, or follow the log from its beginning", format, args...)
	}
	if now := a.cfg.Store.Epoch(); epoch != now {
		return nil, unknown("the store's epoch is %d, not %d", now, epoch)
	}
	// One that the store never comes to is as one that it has not come to yet.
	if head, err := a.cfg.Store.KV().Reached(ctx); err != nil {
		return nil, err
	} else if seq > head {
		return nil, unknown("the store is at %d, before %d", head, seq)
	}
	got, err := a.cfg.Store.KV().Held(ctx, ns, seq)
	if errors.Is(err, store.ErrUnheld) {
		return nil, unknown("%s", words(err))
	}
	if err != nil {
		return nil, err
	}
	h := &changes.Held{Log: "kv/" + ns.Project + "/" + ns.Name, Position: changes.Position{Epoch: epoch, Seq: seq}, Keys: got.Keys, Bytes: got.Bytes, Sum: got.Sum}
	return &reply{raw: changes.SealHeld(a.cfg.Identity.Changes, h)}, nil
}
