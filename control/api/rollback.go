package api

import (
	"context"
	"strconv"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/runtime/function"
)

// rollback makes an earlier release live again, as a new one with its bundle, code,
// image, limits and bindings. Nothing is prepared anew where its parts are kept.
func (a *API) rollback(ctx context.Context, c *call) (*reply, error) {
	var req RollbackRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	id := function.ID{Project: c.project, Name: c.param("function")}
	c.note("function", id.String())
	was, err := a.earlier(ctx, id, req.To)
	if err != nil {
		return nil, err
	}
	c.note("to", strconv.FormatUint(was.Number, 10))
	c.note("digest", string(was.Bundle))
	if r, ok := a.liveAs(id, was.Bundle); ok {
		return unchanged(r), nil
	}
	rel := was.Release
	placed, err := a.checkPlacement(rel.Placement)
	if err != nil {
		return nil, err
	}
	notes, err := a.again(ctx, &rel)
	if err != nil {
		return nil, err
	}
	return a.publish(ctx, c, &rel, append(notes, placed...))
}

// earlier finds the release that is meant: number, or with 0 the newest one before
// the live one that is of another bundle.
func (a *API) earlier(ctx context.Context, id function.ID, number uint64) (Release, error) {
	list := "'selvage versions " + id.Name + "' lists them (GET /v1/projects/" + id.Project + "/functions/" + id.Name + "/releases)"
	kept, err := a.history(ctx, id)
	if err != nil {
		return Release{}, err
	}
	if len(kept) == 0 {
		return Release{}, notFound("deploy it first", "there never was a function %s", id)
	}
	live := kept[len(kept)-1]
	for i := len(kept) - 1; i >= 0; i-- { // from the newest: numbers may come again after a restore
		r := kept[i]
		switch {
		case number != 0 && r.Number != number:
		case r.Removed && number != 0:
			return Release{}, problem(422, "removal", list, "release %d of %s is its removal: there is nothing to go back to", number, id)
		case number != 0 || !r.Removed && r.Bundle != live.Bundle:
			return r, nil
		}
	}
	if number != 0 {
		return Release{}, notFound(list, "%s has no release %d among the last %d", id, number, len(kept))
	}
	return Release{}, problem(409, "nothing-before", list, "%s has no earlier release of another bundle", id)
}

// again checks what was checked when the release was first made and may have changed
// since: who vouched for it, and that its parts are there. Parts that are gone are made again.
func (a *API) again(ctx context.Context, rel *catalog.Release) (notes []string, err error) {
	b, publisher, err := a.uploaded(ctx, rel.ID(), rel.Bundle)
	if err != nil {
		return nil, err
	}
	rel.Publisher = publisher
	if _, err := a.decide(a.Catalog(), rel); err != nil {
		return nil, err
	}
	for _, d := range []function.Digest{rel.Code, rel.Image} {
		has, err := a.cfg.Store.HasBlob(ctx, d)
		if err != nil {
			return nil, err
		}
		if !has {
			return a.prepareModule(ctx, b, rel)
		}
	}
	return nil, nil
}
